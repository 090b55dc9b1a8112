"""Classification from files' side: answers out of logits, windows averaged, each example counted once."""

import dataclasses

import numpy as np
import pytest

from bert_jax.errors import UserError
from bert_jax.tasks.classification import Classification
from bert_jax.tasks.encoding.example_encoder import encode_all
from bert_jax.tasks.examples.example_types import TextExample
from bert_jax.tasks.examples.places import BadRows, Place
from bert_jax.tasks.finetuning_tasks import task_from_json

TEXTS = ("a b c", "d", "e f", "g h i j k l m n o p q r")
SINGLE = ("bad", "good", "bad", "fair")
MULTI = (("red",), (), ("blue", "red"), ("green",))
NUMBERS = (0.5, -1.0, 3.0, 2.0)


def examples(labels, texts=TEXTS):
    return [
        TextExample(text, None, label, f"id{number}", Place("dev.csv", number + 2))
        for number, (text, label) in enumerate(zip(texts, labels, strict=True))
    ]


def always_right(task, rows):
    """Logits of a model that knows the answers."""
    wanted = rows.targets["labels"]
    if task.kind == "float":
        return {"logits": list(wanted[:, None])}
    if task.kind == "multi":
        return {"logits": list(20 * wanted - 10)}
    return {"logits": list(20.0 * (np.arange(len(task.labels)) == wanted[:, None]))}


@pytest.mark.parametrize(
    ("kind", "labels", "answers"),
    [
        ("single", SINGLE, [{"label": label} for label in SINGLE]),
        ("multi", MULTI, [{"labels": sorted(labels)} for labels in MULTI]),
        ("float", NUMBERS, [{"value": number} for number in NUMBERS]),
    ],
)
def test_right_logits_give_full_marks(letter_tokenizer, kind, labels, answers):
    given = examples(labels)
    task = Classification.of(given, kind)
    encoder = task.encoder(letter_tokenizer, 8, "windows")
    rows, lines = encode_all(encoder, given), encoder.report()
    assert "1 of 4 texts are longer than 8 tokens" in lines[0] and len(rows) > 4
    outputs = always_right(task, rows)
    scores = task.score(given, rows, outputs)
    assert scores[task.main_metric] == pytest.approx(1) and task.larger_is_better
    predictions = list(task.predictions(given, rows, outputs))
    assert [row["id"] for row in predictions] == ["id0", "id1", "id2", "id3"]
    for row, answer in zip(predictions, answers, strict=True):
        assert {name: row[name] for name in answer} == answer
        if kind != "float":
            assert row["probabilities"].keys() == set(task.labels)
    assert task.report(given, rows, outputs) is not None
    assert task.baseline(given, given)[task.main_metric] < 1


@pytest.mark.parametrize("kind, labels", [("single", SINGLE), ("multi", MULTI), ("float", NUMBERS)])
def test_it_comes_back_from_json(letter_tokenizer, kind, labels):
    given = examples(labels)
    task = Classification.of(given, kind)
    again = task_from_json({**task.to_json(), "max_seq_len": 8})
    assert type(again) is Classification and again.to_json() == task.to_json()
    rows = encode_all(task.encoder(letter_tokenizer, 8, "head"), given)
    outputs = always_right(task, rows)
    assert list(again.predictions(given, rows, outputs)) == list(task.predictions(given, rows, outputs))


def test_windows_are_averaged_and_count_as_one_example(letter_tokenizer):
    given = examples(("bad", "good"), ("abcdefghijklmnop", "a"))
    task = Classification("single", ("bad", "good"))
    rows = encode_all(task.encoder(letter_tokenizer, 8, "windows"), given)
    assert rows.examples.tolist() == [0, 0, 0, 1]
    # Of the first text two windows are a little for good, and one is sure of bad; the second text is wrong.
    outputs = {"logits": [np.array(one) for one in ([0, 0.1], [9.0, 0], [0, 0.1], [9.0, 0])]}
    first, second = task.predictions(given, rows, outputs)
    chances = [1 / (1 + np.exp(0.1))] * 2 + [1 / (1 + np.exp(-9))]
    assert first["label"] == "bad" and first["probabilities"]["bad"] == pytest.approx(np.mean(chances))
    assert second["label"] == "bad"
    assert task.score(given, rows, outputs)["accuracy"] == 0.5
    assert task.confusion_matrix(given, rows, outputs).tolist() == [[1, 0], [1, 0]]


def test_texts_to_predict_have_no_targets(letter_tokenizer):
    given = examples((None,) * 4)
    task = Classification("single", ("bad", "good"))
    rows = encode_all(task.encoder(letter_tokenizer, 20, "head"), given)
    assert not rows.targets
    logits = [np.array([0.0, 1.0]), np.array([1.0, 0.0]), np.array([0.0, 1.0]), np.array([1.0, 0.0])]
    answers = [row["label"] for row in task.predictions(given, rows, {"logits": logits})]
    assert answers == ["good", "bad", "good", "bad"]


@pytest.mark.parametrize(
    ("kind", "labels", "metric"),
    [("single", ("a", "b", "c"), "f1"), ("multi", ("a",), "accuracy"), ("float", None, "f1")],
)
def test_a_metric_that_is_not_there(kind, labels, metric):
    with pytest.raises(UserError, match=f"no metric '{metric}' here: choose one of"):
        Classification(kind, labels, metric)


def test_a_task_that_is_not_known():
    with pytest.raises(UserError, match="tuned for 'parsing', and known are classification, tagging"):
        task_from_json({"task": "parsing"})


def test_labels_of_another_task_are_bad_rows():
    task = Classification.of(examples(SINGLE), "single")
    seen = examples(("good", "splendid", "bad", "fair"))
    with pytest.raises(UserError, match=r"^dev\.csv:3: the label 'splendid' is not among those of training"):
        list(task.usable(seen, BadRows()))
    skipped = BadRows("skip")
    assert [example.label for example in task.usable(seen, skipped)] == ["good", "bad", "fair"]
    assert skipped.count == 1
    unlabelled = examples([None] * 4)
    assert list(task.usable(unlabelled, BadRows())) == unlabelled


def test_pairs_are_not_taken_for_single_texts():
    single = examples(SINGLE)
    pairs = [dataclasses.replace(example, pair="second") for example in single]
    for learned, other in ((single, pairs), (pairs, single)):
        task = task_from_json(Classification.of(learned, "single").to_json())
        assert list(task.usable(learned, BadRows())) == learned
        with pytest.raises(UserError, match=r"dev\.csv:2: this is a .*--pair_column"):
            list(task.usable(other, BadRows("skip")))
    # Checkpoints of before this was kept, and models of others.
    assert list(Classification("single", ["bad", "fair", "good"]).usable(pairs, BadRows())) == pairs
