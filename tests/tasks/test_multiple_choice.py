"""Multiple choice from files' side: the choices of an example are one unit, however many it has."""

import numpy as np
import pytest

from bert_jax.errors import UserError
from bert_jax.tasks.encoding.example_encoder import encode_all
from bert_jax.tasks.examples.example_types import ChoiceExample
from bert_jax.tasks.examples.places import BadRows, Place
from bert_jax.tasks.finetuning_tasks import task_from_json
from bert_jax.tasks.multiple_choice import MultipleChoice


def example(number, context, question, choices, answer):
    return ChoiceExample(context, question, tuple(choices.split("|")), answer, f"id{number}", Place("dev", number))


EXAMPLES = [
    example(0, "a b", "c ?", "d|e f|g", 2),
    example(1, "h i j k l m n o p q r s", "t _ u", "v|w", 1),
    example(2, "x", "", "y|z", 1),
]


def test_right_logits_give_full_marks(letter_tokenizer):
    task = MultipleChoice.of(EXAMPLES)
    assert task.num_choices == 3 and task.main_metric == "accuracy"
    encoder = task.encoder(letter_tokenizer, 12, "head")
    rows, lines = encode_all(encoder, EXAMPLES), encoder.report()
    assert "1 of 3 texts are longer than 12 tokens" in lines[0]
    assert (len(rows), rows.num_units) == (9, 3)
    labels = rows.batch(np.arange(3), 12)["labels"]
    assert labels.tolist() == [2, 1, 1]
    # What a model says of a choice that is not there does not matter.
    outputs = {"logits": [np.array([0, 1, 5.0]), np.array([0, 1, 9.0]), np.array([0, 1, 9.0])]}
    assert task.score(EXAMPLES, rows, outputs) == {"accuracy": 1}
    predictions = list(task.predictions(EXAMPLES, rows, outputs))
    assert [(row["id"], row["answer"], row["text"]) for row in predictions] == [
        ("id0", 2, "g"),
        ("id1", 1, "w"),
        ("id2", 1, "z"),
    ]
    assert [len(row["probabilities"]) for row in predictions] == [3, 2, 2]
    assert predictions[1]["probabilities"] == pytest.approx([1 / (1 + np.e), np.e / (1 + np.e)])
    outputs["logits"][0] = np.array([0, 6.0, 5.0])
    assert task.score(EXAMPLES, rows, outputs) == {"accuracy": pytest.approx(2 / 3)}
    assert task.baseline(EXAMPLES, EXAMPLES) == {"accuracy": pytest.approx(2 / 3)}


def test_rows_of_a_unit(letter_tokenizer):
    rows = encode_all(MultipleChoice(3).encoder(letter_tokenizer, 12, "head"), EXAMPLES)
    batch = rows.batch(np.array([1, -1]), 12)
    assert batch["input_ids"].shape == (2, 3, 12) and batch["row_weights"].tolist() == [1, 0]
    texts = [
        " ".join(letter_tokenizer.id_to_token(index) for index in row[used > 0])
        for row, used in zip(batch["input_ids"][0], batch["segment_ids"][0], strict=True)
    ]
    # The context is longer, and gives up tokens; the gap is filled; the choice that is not there has no token.
    assert texts == ["[CLS] h i j k l m [SEP] t v u [SEP]", "[CLS] h i j k l m [SEP] t w u [SEP]", ""]
    assert batch["token_type_ids"][0, 0].tolist() == [0] * 8 + [1] * 4
    tail = encode_all(MultipleChoice(3).encoder(letter_tokenizer, 12, "tail"), EXAMPLES)
    ids = tail.batch(np.array([1]), 12)["input_ids"][0, 0]
    assert [letter_tokenizer.id_to_token(index) for index in ids[1:7]] == list("nopqrs")


def test_examples_to_predict(letter_tokenizer):
    task = MultipleChoice(3)
    given = [example(5, "a", "", "b|c|d", None)]
    rows = encode_all(task.encoder(letter_tokenizer, 12, "head"), given)
    assert not rows.targets
    (prediction,) = task.predictions(given, rows, {"logits": [np.array([0.0, 2.0, 1.0])]})
    assert (prediction["id"], prediction["answer"]) == ("id5", 1)


def test_it_comes_back_from_json():
    task = MultipleChoice(4, "loss")
    again = task_from_json(task.to_json())
    assert type(again) is MultipleChoice and again.to_json() == task.to_json()
    assert again.num_choices == 4 and not again.larger_is_better


def test_what_makes_no_sense(letter_tokenizer):
    with pytest.raises(UserError, match="dev:0: 3 choices, and the model was tuned for 2 at most"):
        list(MultipleChoice(2).usable(EXAMPLES, BadRows()))
    skipped = BadRows("skip")
    usable = list(MultipleChoice(2).usable(EXAMPLES, skipped))
    assert [len(example.choices) for example in usable] == [2] * len(usable) and len(usable) + skipped.count == 3
    with pytest.raises(UserError, match="multiple choice compares whole texts"):
        MultipleChoice(3).encoder(letter_tokenizer, 12, "windows")
    with pytest.raises(UserError, match="no metric 'f1' here"):
        MultipleChoice(3, "f1")
