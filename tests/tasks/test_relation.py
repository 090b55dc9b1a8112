"""Relations: markers are one token each, and the official score decides."""

import dataclasses

import numpy as np
import pytest

from bert_jax.tasks.encoding.example_encoder import encode_all
from bert_jax.tasks.examples.example_types import TextExample
from bert_jax.tasks.examples.places import Place
from bert_jax.tasks.examples.semeval import MARKERS, mark_entities
from bert_jax.tasks.finetuning_tasks import task_from_json
from bert_jax.tasks.relation import RelationExtraction
from bert_jax.text.added_words import add_markers

LABELS = ("Cause-Effect(e1,e2)", "Cause-Effect(e2,e1)", "Other", "Cause-Effect(e1,e2)")


@pytest.fixture
def examples():
    text = mark_entities("a <e1>b</e1> c <e2>d e</e2>")
    return [TextExample(text, None, label, str(n), Place("x", n)) for n, label in enumerate(LABELS)]


def logits(task, labels):
    return {"logits": [np.where(np.arange(len(task.labels)) == task.labels.index(label), 9.0, 0) for label in labels]}


def test_markers_are_tokens(letter_tokenizer, examples):
    task = RelationExtraction.of(examples, "single", None, None, MARKERS)
    tokenizer = add_markers(letter_tokenizer, task.markers)
    rows = encode_all(task.encoder(tokenizer, 20, "head"), examples)
    first = [tokenizer.id_to_token(index) for index in rows.tokens[: rows.offsets[1]]]
    assert " ".join(first) == "[CLS] a [E1] b [/E1] c [E2] d e [/E2] [SEP]"


def test_rows_say_where_the_entities_begin(letter_tokenizer, examples):
    task = RelationExtraction.of(examples, "single", None, None, MARKERS)
    tokenizer = add_markers(letter_tokenizer, task.markers)
    turned = dataclasses.replace(examples[0], text=mark_entities("<e2>a</e2> b c <e1>d</e1>"))
    for with_labels in (True, False):
        seen = [dataclasses.replace(one, label=one.label if with_labels else None) for one in (examples[0], turned)]
        rows = encode_all(task.encoder(tokenizer, 20, "head"), seen)
        # [CLS] a [E1] b [/E1] c [E2] d e [/E2] [SEP], and [CLS] [E2] a [/E2] b c [E1] d [/E1] [SEP].
        assert rows.targets["entity_positions"].tolist() == [[2, 6], [6, 1]]
        assert ("labels" in rows.targets) == with_labels
    # What is cut off is read at [CLS].
    rows = encode_all(task.encoder(tokenizer, 7, "head"), examples[:1])
    assert rows.targets["entity_positions"].tolist() == [[2, 0]]


def test_the_official_score(letter_tokenizer, examples):
    task = RelationExtraction.of(examples, "single", None, None, MARKERS)
    assert task.main_metric == "macro_f1"
    rows = encode_all(task.encoder(add_markers(letter_tokenizer, task.markers), 20, "head"), examples)
    assert task.score(examples, rows, logits(task, LABELS))["macro_f1"] == 1
    # Other for one of the four: right 2 of 2 predicted and 3 true relations. The direction counts.
    assert task.score(examples, rows, logits(task, [*LABELS[:3], "Other"]))["macro_f1"] == pytest.approx(4 / 5)
    turned = [LABELS[1], LABELS[0], "Other", LABELS[1]]
    assert task.score(examples, rows, logits(task, turned)) == {"macro_f1": 0, "micro_f1": 0, "accuracy": 0.25}
    # The most frequent label for all: 2 right of 4 predicted and 3 true.
    assert task.baseline(examples, examples)["macro_f1"] == pytest.approx(4 / 7)
    assert task.report(examples, rows, logits(task, LABELS))[1].split()[0] == "Cause-Effect"
    assert [row["label"] for row in task.predictions(examples, rows, logits(task, turned))] == turned


def test_it_comes_back_from_json(examples):
    task = RelationExtraction.of(examples, "single", None, "micro_f1", MARKERS)
    again = task_from_json(task.to_json())
    assert type(again) is RelationExtraction and again.to_json() == task.to_json()
    assert again.markers == MARKERS and again.main_metric == "micro_f1"
