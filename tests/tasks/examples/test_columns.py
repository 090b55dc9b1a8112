"""Columns guessed from their names, and given ones."""

import subprocess
import sys

import pytest

from bert_jax.errors import UserError
from bert_jax.tasks.examples.columns import ColumnChoice, choose_columns


def choose(names: str, kind: str = "single", **given):
    """Returns the names of the columns chosen among those between spaces: text, pair, label, id."""
    names = names.split()
    chosen = choose_columns(names, ColumnChoice(**given), kind=kind, place="train.csv:1")
    positions = (chosen.text, chosen.pair, chosen.label, chosen.id)
    return tuple(None if at is None else names[at] for at in positions)


@pytest.mark.parametrize(
    ("names", "kind", "expected"),
    [
        ("text label", "single", ("text", None, "label", None)),
        ("Label TEXT_A qid", "single", ("TEXT_A", None, "Label", "qid")),
        ("text-a text-b label", "single", ("text-a", "text-b", "label", None)),
        ("sentence1 sentence2 score", "float", ("sentence1", "sentence2", "score", None)),
        ("question sentence idx label", "single", ("question", "sentence", "label", "idx")),
        ("premise hypothesis gold_label label1", "single", ("premise", "hypothesis", "gold_label", None)),
        ("review sentiment", "single", ("review", None, "sentiment", None)),
        ("content title class", "single", ("content", None, "class", None)),
        ("text title category", "single", ("text", None, "category", None)),
        ("headline target guid id", "single", ("headline", None, "target", "id")),
        # A score beside a label is the label only where numbers are wanted.
        ("text label score", "single", ("text", None, "label", None)),
        ("text label score", "float", ("text", None, "score", None)),
        ("text labels", "multi", ("text", None, "labels", None)),
        ("text label", "none", ("text", None, None, None)),
        ("sentence1 label", "single", ("sentence1", None, "label", None)),
        # Two columns of one name identify nothing.
        ("text label id id", "single", ("text", None, "label", None)),
    ],
)
def test_guesses(names, kind, expected):
    assert choose(names, kind) == expected


@pytest.mark.parametrize(
    ("names", "given", "expected"),
    [
        ("a b c", {"text": "b", "label": "c"}, ("b", None, "c", None)),
        ("a b c", {"text": "2", "label": "3", "id": "1"}, ("b", None, "c", "a")),
        ("2 1 label", {"text": "2"}, ("2", None, "label", None)),
        ("text_a text_b label", {"text": "text_b"}, ("text_b", None, "label", None)),
        ("text_a text_b label", {"pair": "text_b"}, ("text_a", "text_b", "label", None)),
        ("text_a text_b label", {"pair": "none"}, ("text_a", None, "label", None)),
        ("text extra label", {"pair": "extra"}, ("text", "extra", "label", None)),
        ("text label id", {"id": "none"}, ("text", None, "label", None)),
        ("text label quality", {"label": "Quality"}, ("text", None, "quality", None)),
        ("question answer label", {"label": "answer"}, ("question", None, "answer", None)),
    ],
)
def test_given_columns(names, given, expected):
    assert choose(names, **given) == expected


@pytest.mark.parametrize(
    ("names", "given", "message"),
    [
        ("text b", {}, "no column looks like the label"),
        ("a label", {}, "no column looks like the text"),
        (
            "premise hypothesis question answer label",
            {},
            "may be 'premise' with 'hypothesis' or 'question' with 'answer'",
        ),
        ("text_a text_b sentence1 sentence2 label", {}, "'sentence1' with 'sentence2' or 'text_a' with 'text_b'"),
        ("comment body label", {}, "the text may be 'comment' or 'body'; say which with --text_column"),
        ("text label", {"label": "none"}, "no column looks like the label"),
        (
            "text label",
            {"pair": "other"},
            "no column 'other', which --pair_column names; the columns are 'text', 'label'",
        ),
        ("text label", {"text": "3"}, "no column '3'"),
        ("text label", {"pair": "text", "text": "text"}, "column 'text' is chosen for two things"),
    ],
)
def test_mistakes(names, given, message):
    with pytest.raises(UserError, match=message):
        choose(names, **given)


def test_every_example_needs_a_text():
    with pytest.raises(UserError, match="--text_column=none"):
        ColumnChoice(text="none")


def test_reading_tables_imports_no_heavy_library(repository_root):
    code = (
        "import sys, bert_jax.tasks.examples.tables, bert_jax.tasks.examples.choices, bert_jax.tasks.examples.semeval\n"
        "heavy = {'jax', 'tensorflow', 'tensorflow_datasets', 'sklearn', 'scipy', 'matplotlib'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repository_root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
