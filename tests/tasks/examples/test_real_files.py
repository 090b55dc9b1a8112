"""The real task files: every row reads, as many as their description says. Skipped where they are absent."""

import collections

import pytest

from bert_jax.tasks.examples.choices import continuations, read_choices
from bert_jax.tasks.examples.labels import collect_labels, unknown_label
from bert_jax.tasks.examples.places import BadRows
from bert_jax.tasks.examples.semeval import MARKERS, read_semeval
from bert_jax.tasks.examples.tables import open_table


@pytest.fixture(scope="module")
def tasks(shared_data):
    folder = shared_data / "tasks"
    if not folder.is_dir():
        pytest.skip(f"needs the task files: no {folder}")
    return folder


@pytest.mark.parametrize(
    ("train", "dev", "counts", "labels", "is_pair"),
    [
        ("sst2/train.tsv", "sst2/dev.tsv", (67_349, 872), ("0", "1"), False),
        ("mrpc/train.tsv", "mrpc/dev.tsv", (3_668, 408), ("0", "1"), True),
        ("chnsenticorp/train.tsv", "chnsenticorp/dev.tsv", (9_600, 1_200), ("0", "1"), False),
        ("imdb/train.jsonl.gz", "imdb/test.jsonl.gz", (25_000, 25_000), ("neg", "pos"), False),
    ],
)
def test_classification(tasks, train, dev, counts, labels, is_pair):
    tables = [open_table(str(tasks / name)) for name in (train, dev)]
    assert [table.is_pair for table in tables] == [is_pair, is_pair]
    examples = [list(table.read(BadRows())) for table in tables]
    assert tuple(map(len, examples)) == counts
    assert collect_labels(examples[0]) == labels
    assert not any(unknown_label(example, labels) for example in examples[1])
    for split in examples:
        assert len({example.id for example in split}) == len(split)
        shares = collections.Counter(example.label for example in split)
        assert min(shares.values()) > 0.3 * len(split)


def test_regression(tasks):
    for name, count in (("train", 5_749), ("dev", 1_500)):
        table = open_table(str(tasks / f"stsb/{name}.tsv"), kind="float")
        examples = list(table.read(BadRows()))
        assert table.is_pair
        assert len(examples) == count
        assert {type(example.label) for example in examples} == {float}
        assert min(example.label for example in examples) == 0
        assert max(example.label for example in examples) == 5


def test_texts_without_labels(tasks):
    table = open_table(str(tasks / "imdb/unlabelled.jsonl.gz"), kind="none")
    assert sum(1 for _ in table.read(BadRows())) == 10_000


def test_quotes_of_tsv_are_characters(tasks):
    with open(tasks / "mrpc/dev.tsv", encoding="utf-8") as file:
        quotes = file.read().count('"')
    examples = open_table(str(tasks / "mrpc/dev.tsv")).read(BadRows())
    assert sum(text.count('"') for example in examples for text in (example.text, example.pair)) == quotes > 0


def test_relations(tasks):
    for name, count in (("train", 7_000), ("dev", 1_000)):
        examples = list(read_semeval(str(tasks / f"semeval2010_task8/{name}.txt"), bad_rows=BadRows()))
        assert len(examples) == count
        assert len({example.label for example in examples} | {"Entity-Destination(e2,e1)"}) == 19
        assert all(example.text.split().count(marker) == 1 for example in examples for marker in MARKERS)


def test_multiple_choice(tasks):
    for name, passages, questions in (("middle", 368, 1_436), ("high", 1_021, 3_451)):
        examples = list(read_choices(str(tasks / f"race_sample/{name}.jsonl.gz"), bad_rows=BadRows()))
        assert len(examples) == questions
        assert len({example.place.line for example in examples}) == passages
        assert {len(example.choices) for example in examples} == {4}
        # Every gap is filled, except in the few questions whose choices have too few parts.
        unfilled = [example for example in examples if any("_" in text for text in continuations(example))]
        assert len(unfilled) < 5
