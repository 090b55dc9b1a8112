"""Runs go on with the numerics that they were begun with."""

import pytest

from bert_jax.errors import UserError
from bert_jax.numerics import LATEST, Numerics


def test_what_is_recorded_comes_back():
    for version in range(LATEST + 1):
        assert Numerics.of_run({"pretrain.seed": 1, **Numerics(version).identity()}) == Numerics(version)


def test_a_new_run_has_the_latest_and_one_of_before_there_were_any_the_first():
    assert Numerics.of_run(None) == Numerics(LATEST) == Numerics()
    assert Numerics.of_run({"pretrain.seed": 1}) == Numerics(0)
    # Its identity stays what it was.
    assert Numerics(0).identity() == {}


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (LATEST + 1, "was begun by a newer bert_jax"),
        (-1, "must be a whole number"),
        ("1", "must be a whole number"),
        (True, "must be a whole number"),
        (None, "must be a whole number"),
    ],
)
def test_a_version_that_is_not_known_is_refused(version, message):
    with pytest.raises(UserError, match=message):
        Numerics.of_run({"numerics": version})
