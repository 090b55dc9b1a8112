"""Question answering from files' side: answers out of logits, windows, and the threshold of no answer."""

import numpy as np
import pytest

from bert_jax.errors import UserError
from bert_jax.tasks.encoding.example_encoder import encode_all
from bert_jax.tasks.encoding.passages import END, START
from bert_jax.tasks.examples.example_types import QuestionExample
from bert_jax.tasks.examples.places import Place
from bert_jax.tasks.finetuning_tasks import task_from_json
from bert_jax.tasks.question_answering import PassageReading, QuestionAnswering

READING = PassageReading(doc_stride=4, max_question_len=4, max_answer_len=6, n_best=3)


def question(number, context, *answers):
    located = tuple((answer, context.index(answer)) for answer in answers)
    return QuestionExample("who ?", context, located, not answers, f"id{number}", Place("dev.json"))


ANSWERED = [
    question(0, "Abc De fgh", "De"),
    question(1, "a b c d e f g h i j k l m n o p q r s t u v w x y", "s t u", "t u"),
    question(2, "x", "x"),
]
IMPOSSIBLE = [*ANSWERED, question(3, "a b c d e f g h i j k l m n")]


def always_right(rows, padded=40, **changed):
    """Logits of a model that knows the answers, of batches that are padded; `changed`: scores of [CLS] by example."""
    logits = []
    for row, (start, end) in enumerate(zip(rows.targets[START], rows.targets[END], strict=True)):
        values = np.zeros((padded, 2))
        values[start, 0] = values[end, 1] = 5
        null = changed.get(f"null{rows.examples[row]}")
        if null is not None:
            values[0] = null
        logits.append(values)
    return {"logits": logits}


def test_right_logits_give_full_marks(letter_tokenizer):
    task = QuestionAnswering.of(ANSWERED, [], reading=READING)
    assert (task.evaluator, task.may_be_impossible, task.main_metric) == ("squad1", False, "f1")
    encoder = task.encoder(letter_tokenizer, 16, "head")
    rows, lines = encode_all(encoder, ANSWERED), encoder.report()
    assert len(rows) > 3 and "1 of 3 questions" in lines[0]
    outputs = always_right(rows)
    assert task.score(ANSWERED, rows, outputs) == {"exact_match": 1, "f1": 1}
    assert task.baseline(ANSWERED, ANSWERED) == {}
    assert task.report(ANSWERED, rows, outputs) == ["squad1: exact_match 100.0000, f1 100.0000"]
    predictions = list(task.predictions(ANSWERED, rows, outputs))
    assert [(row["id"], row["answer"]) for row in predictions] == [("id0", "De"), ("id1", "s t u"), ("id2", "x")]
    for row, example in zip(predictions, ANSWERED, strict=True):
        assert example.context[row["start"] : row["end"]] == row["answer"]
        assert "null_odds" not in row and row["n_best"][0]["text"] == row["answer"] and len(row["n_best"]) <= 3


def test_a_question_counts_once_however_many_windows_it_has(letter_tokenizer):
    task = QuestionAnswering.of(ANSWERED, [], reading=READING)
    rows = encode_all(task.encoder(letter_tokenizer, 16, "head"), ANSWERED)
    outputs = always_right(rows)
    for row in np.flatnonzero(rows.examples == 1):
        outputs["logits"][row][:] = 0
    assert task.score(ANSWERED, rows, outputs)["exact_match"] == pytest.approx(2 / 3)


def test_no_answer(letter_tokenizer):
    task = QuestionAnswering.of(IMPOSSIBLE, [], reading=READING)
    assert (task.evaluator, task.may_be_impossible, task.main_metric) == ("squad2", True, "best_f1")
    rows = encode_all(task.encoder(letter_tokenizer, 16, "head"), IMPOSSIBLE)
    scores = task.score(IMPOSSIBLE, rows, always_right(rows))
    assert {scores[name] for name in ("f1", "exact_match", "best_f1", "has_answer_f1", "no_answer_f1")} == {1}
    assert task.baseline(IMPOSSIBLE, IMPOSSIBLE) == {"exact_match": 0.25, "f1": 0.25, "best_f1": 0.25}
    *_, last = task.predictions(IMPOSSIBLE, rows, always_right(rows))
    assert (last["id"], last["answer"], last["start"], last["end"]) == ("id3", "", None, None)
    assert last["null_odds"] > 0 and last["n_best"][0]["text"] == ""


def test_the_threshold_that_dev_likes_best_is_used_from_then_on(letter_tokenizer):
    """A model that is too fond of silence: by 4 where there is an answer, by 18 where there is none."""
    task = QuestionAnswering.of(IMPOSSIBLE, [], reading=READING)
    rows = encode_all(task.encoder(letter_tokenizer, 16, "head"), IMPOSSIBLE)
    outputs = always_right(rows, null0=7, null1=7, null2=7, null3=9)
    scores = task.score(IMPOSSIBLE, rows, outputs)
    assert (scores["f1"], scores["best_f1"]) == (0.25, 1)
    assert scores["null_threshold"] == pytest.approx(4)
    assert all(row["answer"] == "" for row in task.predictions(IMPOSSIBLE, rows, outputs))
    tuned = task_from_json(task.to_json(), scores)
    assert tuned.null_threshold == scores["null_threshold"]
    assert tuned.score(IMPOSSIBLE, rows, outputs)["f1"] == 1
    answers = [row["answer"] for row in tuned.predictions(IMPOSSIBLE, rows, outputs)]
    assert answers == ["De", "s t u", "x", ""]
    assert task_from_json(task.to_json(), {"loss": 1.0}).null_threshold == 0


def test_questions_to_predict(letter_tokenizer):
    task = QuestionAnswering.of(ANSWERED, [], reading=READING)
    given = [QuestionExample("who ?", "Abc De", None, False, "new", Place("new.jsonl", 1))]
    rows = encode_all(task.encoder(letter_tokenizer, 16, "head"), given)
    assert not rows.targets
    values = np.zeros((16, 2))
    first = rows.first_lengths[0] + 3  # after the three letters of Abc
    values[first, 0] = values[first + 1, 1] = 4
    (prediction,) = task.predictions(given, rows, {"logits": [values]})
    assert (prediction["id"], prediction["answer"]) == ("new", "De")


def test_it_comes_back_from_json():
    task = QuestionAnswering("cmrc", True, "exact_match", READING, 1.5)
    again = task_from_json({**task.to_json(), "max_seq_len": 384})
    assert type(again) is QuestionAnswering and again.to_json() == task.to_json()
    assert again.reading == READING and again.null_threshold == 1.5


def test_the_rules_are_those_of_the_questions():
    chinese = QuestionExample("谁在北京？", "他在北京", (("他", 0),), False, "1", Place("x"))
    task = QuestionAnswering.of([chinese], [chinese])
    assert task.evaluator == "cmrc"
    # Each character is a token.
    assert task.reading.max_answer_len == 80 and QuestionAnswering.of(ANSWERED, []).reading.max_answer_len == 30
    assert QuestionAnswering.of([chinese], [], reading=READING).reading.max_answer_len == 6
    assert QuestionAnswering.of(ANSWERED, IMPOSSIBLE).evaluator == "squad2"
    assert not QuestionAnswering.of(ANSWERED, IMPOSSIBLE).may_be_impossible
    assert QuestionAnswering.of(IMPOSSIBLE, ANSWERED, evaluator="squad1").evaluator == "squad1"


def test_scores_where_dev_alone_has_questions_without_answer(letter_tokenizer):
    task = QuestionAnswering.of(ANSWERED, IMPOSSIBLE, reading=READING)
    rows = encode_all(task.encoder(letter_tokenizer, 16, "head"), IMPOSSIBLE)
    assert task.score(IMPOSSIBLE, rows, always_right(rows)) == {"exact_match": 0.75, "f1": 0.75}


def test_what_makes_no_sense():
    with pytest.raises(UserError, match="no metric 'best_f1' here"):
        QuestionAnswering.of(ANSWERED, [], "best_f1")
    with pytest.raises(UserError, match="n_best must be at least 1, not 0"):
        PassageReading(n_best=0)
