"""Tagging from files' side: tags out of logits, through windows, back to entities in the text."""

import numpy as np
import pytest

from bert_jax.errors import UserError
from bert_jax.tasks.encoding.example_encoder import encode_all
from bert_jax.tasks.encoding.words import LABELS
from bert_jax.tasks.examples.conll import joined
from bert_jax.tasks.examples.example_types import TaggedExample
from bert_jax.tasks.examples.places import BadRows, Place
from bert_jax.tasks.finetuning_tasks import task_from_json
from bert_jax.tasks.tagging import Tagging


def sentence(number, words, tags=None):
    words = tuple(words.split())
    text, spans = joined(words)
    return TaggedExample(words, tuple(tags.split()) if tags else None, text, spans, f"id{number}", Place("dev", number))


EXAMPLES = [
    sentence(0, "abc lives in de fg", "B-PER O O B-LOC I-LOC"),
    sentence(1, "no names", "O O"),
    sentence(2, "a b c d e f g h i j k l m n o p", "O O B-LOC I-LOC I-LOC O O O B-PER B-PER I-PER O O O O B-LOC"),
]


def always_right(task, rows, padded=30):
    """Logits of a model that knows the tags, of batches that are padded; what is not predicted is noise."""
    draw = np.random.default_rng(0)
    logits = []
    for first, last in zip(rows.offsets[:-1], rows.offsets[1:], strict=True):
        values = draw.normal(size=(padded, len(task.labels)))
        labels = rows.token_targets[LABELS][first:last]
        places = np.flatnonzero(labels >= 0)
        values[places, labels[places]] = 20
        logits.append(values)
    return {"logits": logits}


@pytest.mark.parametrize("max_seq_len", [8, 30])
def test_right_logits_give_full_marks(letter_tokenizer, max_seq_len):
    task = Tagging.of(EXAMPLES)
    assert task.labels == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER") and task.main_metric == "f1"
    encoder = task.encoder(letter_tokenizer, max_seq_len, "head")
    rows, lines = encode_all(encoder, EXAMPLES), encoder.report()
    assert (len(rows) > 3) == (max_seq_len == 8) and "3 sentences" in lines[0]
    outputs = always_right(task, rows)
    scores = task.score(EXAMPLES, rows, outputs)
    assert scores == {"f1": 1, "precision": 1, "recall": 1, "token_accuracy": 1}
    predictions = list(task.predictions(EXAMPLES, rows, outputs))
    assert [row["id"] for row in predictions] == ["id0", "id1", "id2"]
    assert [tuple(row["tags"]) for row in predictions] == [example.tags for example in EXAMPLES]
    assert min(predictions[0]["probabilities"]) > 0.99
    found = [(entity["label"], entity["text"]) for entity in predictions[0]["entities"]]
    assert found == [("PER", "abc"), ("LOC", "de fg")]
    assert predictions[0]["entities"][1]["start"] == 13
    assert "all (micro)" in task.report(EXAMPLES, rows, outputs)[-1]


def test_every_word_counts_once(letter_tokenizer):
    """Wrong in one word of the long sentence, which is read in windows that overlap."""
    task = Tagging.of(EXAMPLES)
    rows = encode_all(task.encoder(letter_tokenizer, 8, "head"), EXAMPLES)
    outputs = always_right(task, rows)
    places = [
        (row, place)
        for row, first in enumerate(rows.offsets[:-1])
        for place in range(rows.offsets[row + 1] - first)
        if rows.examples[row] == 2 and rows.token_targets["words"][first + place] == 15
    ]
    ((row, place),) = places
    outputs["logits"][row][place] = [20, 0, 0, 0, 0]
    scores = task.score(EXAMPLES, rows, outputs)
    assert scores["token_accuracy"] == pytest.approx(22 / 23)
    assert (scores["precision"], scores["recall"]) == (1, pytest.approx(5 / 6))


def test_sentences_to_predict(letter_tokenizer):
    task = Tagging.of(EXAMPLES)
    given = [sentence(7, "de fg")]
    rows = encode_all(task.encoder(letter_tokenizer, 8, "head"), given)
    assert LABELS not in rows.token_targets
    values = np.zeros((8, 5))
    values[1, 1] = values[3, 2] = 3
    (prediction,) = task.predictions(given, rows, {"logits": [values]})
    assert prediction["tags"] == ["B-LOC", "I-LOC"]
    assert prediction["probabilities"] == pytest.approx([np.exp(3) / (np.exp(3) + 4)] * 2)


def test_it_comes_back_from_json():
    task = Tagging.of(EXAMPLES, "recall")
    again = task_from_json(task.to_json())
    assert type(again) is Tagging and again.to_json() == task.to_json()
    assert again.baseline(EXAMPLES, EXAMPLES) == {
        "f1": 0,
        "precision": 0,
        "recall": 0,
        "token_accuracy": pytest.approx(13 / 23),
    }


def test_what_cannot_be_learned(letter_tokenizer):
    with pytest.raises(UserError, match="every word of the training examples has the tag O"):
        Tagging.of(EXAMPLES[1:2])
    with pytest.raises(UserError, match="no metric 'accuracy' here: choose one of f1, precision"):
        Tagging.of(EXAMPLES, "accuracy")
    other = sentence(4, "a b", "O B-ORG")
    with pytest.raises(UserError, match="dev:4: the tag 'B-ORG' of word 2, 'b', is not among those of training"):
        list(Tagging.of(EXAMPLES).usable([other], BadRows()))
    skipped = BadRows("skip")
    assert list(Tagging.of(EXAMPLES).usable([*EXAMPLES, other], skipped)) == list(EXAMPLES) and skipped.count == 1
