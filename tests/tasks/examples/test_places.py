"""Bad rows: the first one ends the run, or all are counted and the first named."""

import pytest

from bert_jax.errors import UserError
from bert_jax.tasks.examples.places import BadRows, Place


def test_places_are_written_as_editors_open_them():
    assert str(Place("train.csv", 17)) == "train.csv:17"
    assert str(Place("train.json")) == "train.json"
    assert str(Place("train.json", None, "question 5")) == "train.json: question 5"
    assert str(Place("race.jsonl", 3, "question 0")) == "race.jsonl:3: question 0"


def test_fail_names_place_reason_and_what_to_do():
    with pytest.raises(UserError, match=r"^train.csv:17: the text is empty; .*--on_bad_row=skip$"):
        BadRows().reject(Place("train.csv", 17), "the text is empty")


def test_skip_counts_all_and_names_the_first():
    bad_rows = BadRows("skip")
    assert bad_rows.report() == []
    bad_rows.reject(Place("a.csv", 2), "the text is empty")
    assert bad_rows.report() == ["1 row skipped: a.csv:2 (the text is empty)"]
    for line in range(3, 11):
        bad_rows.reject(Place("a.csv", line), "ragged")
    assert bad_rows.count == 9
    (line,) = bad_rows.report()
    assert line.startswith("9 rows skipped: a.csv:2 (the text is empty), a.csv:3 (ragged), ")
    assert line.endswith("a.csv:6 (ragged), and 4 more")


def test_an_unknown_policy_is_named():
    with pytest.raises(UserError, match="--on_bad_row=ignore: it is one of fail, skip"):
        BadRows("ignore")


def test_a_reason_is_one_line_of_bounded_length():
    reason = f"the label 'a\nb{'x' * 100_000}' is unknown"
    with pytest.raises(UserError) as raised:
        BadRows("fail").reject(Place("a.csv", 3), reason)
    skipped = BadRows("skip")
    skipped.reject(Place("a.csv", 3), reason)
    for text in (str(raised.value), *skipped.report()):
        assert "a bxxx" in text and "\n" not in text and len(text) < 600
