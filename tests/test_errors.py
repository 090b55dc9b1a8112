"""A message is one line, whatever stands in it."""

import sys

import pytest

from bert_jax.errors import DataError, TrainingError, UserError


@pytest.mark.parametrize("kind", [UserError, TrainingError, DataError])
def test_a_message_is_one_line(kind):
    ends = [chr(number) for number in range(sys.maxunicode + 1) if len(f"a{chr(number)}b".splitlines()) > 1]
    assert {"\n", "\r", "\u2028"} <= set(ends)
    for end in [*ends, "\r\n", " \n\t "]:
        assert str(kind(f"a{end}b: mend it")) == "a b: mend it"


def test_other_whitespace_stays():
    assert str(UserError("a  b\tc\u3000d")) == "a  b\tc\u3000d"
    assert str(UserError(OSError("no room"))) == "no room"
