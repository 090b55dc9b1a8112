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


def test_a_long_message_keeps_its_beginning_and_its_end():
    message = str(UserError(f"model.json: {'x' * 100_000} is not a name: mend it"))
    assert len(message) < 2000
    assert message.startswith("model.json: xxx") and message.endswith("xxx is not a name: mend it")
    assert str(UserError("x" * 2000)) == "x" * 2000
