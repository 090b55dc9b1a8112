"""Scores of answers against the official evaluators' rules and results."""

import json

import numpy as np
import pytest

from bert_jax.errors import UserError
from bert_jax.tasks.examples.example_types import QuestionExample
from bert_jax.tasks.examples.places import BadRows, Place
from bert_jax.tasks.examples.squad import QuestionFile
from bert_jax.tasks.scores.answers import (
    bag_f1,
    cmrc_scores,
    evaluator_for,
    exact_match,
    fractions,
    normalize_answer,
    run_f1,
    score_answers,
    squad1_scores,
    squad2_scores,
    tune_null_threshold,
)


def question(identity, *answers, text="Who?"):
    return QuestionExample(
        text, "context", tuple((answer, 0) for answer in answers), not answers, identity, Place("dev.json")
    )


@pytest.mark.parametrize("name", ["squad1", "squad2"])
def test_scores_of_real_predictions_are_the_official_ones(shared_data, name):
    questions = list(QuestionFile(str(shared_data / "tasks" / name / "dev.json"), BadRows()))
    predictions = json.loads((shared_data / "golden" / f"{name}_predictions.json").read_text())
    official = json.loads((shared_data / "golden" / "squad_scores.json").read_text())[name]
    assert squad2_scores(questions, predictions) == pytest.approx(official, rel=1e-13)
    if name == "squad1":
        expected = {"exact_match": official["exact"], "f1": official["f1"]}
        assert squad1_scores(questions, predictions) == pytest.approx(expected, rel=1e-13)


def test_normalization():
    assert normalize_answer("The  Theatre, an A-team's  a!") == "theatre ateams"
    assert normalize_answer("U.S.A.") == "usa"
    assert normalize_answer("Élan — vital") == "élan — vital"  # only ASCII's punctuation goes


def test_words_are_compared_as_bags():
    assert bag_f1("the cat sat", "a cat cat") == pytest.approx(2 * 0.5 * 0.5 / (0.5 + 0.5))
    assert bag_f1("dog", "cat") == 0
    assert bag_f1("", "the") == 1
    assert bag_f1("", "cat") == 0
    assert exact_match("The Cat.", "cat") == 1


def test_the_best_of_several_answers_counts_and_a_missing_prediction_is_wrong_in_v1():
    questions = [question("a", "New York", "New York City"), question("b", "Rome")]
    assert squad1_scores(questions, {"a": "new york city"}) == {"exact_match": 50.0, "f1": 50.0}


def test_questions_without_answer():
    questions = [question("a", "Rome"), question("b"), question("c"), question("d", "the")]
    scores = squad2_scores(questions, {"a": "", "b": "", "c": "Paris", "d": ""})
    assert scores["exact"] == scores["f1"] == 50.0
    assert scores["HasAns_exact"] == 50.0  # an answer that normalizes to nothing is matched by silence
    assert scores["NoAns_exact"] == 50.0
    # Of several, such an answer counts for nothing.
    assert squad2_scores([question("a", "the", "Rome")], {"a": ""})["exact"] == 0.0
    assert (scores["total"], scores["HasAns_total"], scores["NoAns_total"]) == (4, 2, 2)


def test_a_missing_prediction_is_a_mistake_in_v2():
    with pytest.raises(UserError, match="1 questions have no prediction, b"):
        squad2_scores([question("a"), question("b")], {"a": ""})


def official_search(questions, predictions, scores, odds):
    """The search for the best threshold as the official evaluator describes it, step by step."""
    current = best = sum(not q.answers for q in questions)
    threshold = 0.0
    for q in sorted(questions, key=lambda q: odds[q.id]):
        current += scores[q.id] if q.answers else (-1 if predictions[q.id] else 0)
        if current > best:
            best, threshold = current, odds[q.id]
    return 100.0 * best / len(questions), threshold


def made_up(seed, size=60):
    random = np.random.default_rng(seed)
    questions, predictions, odds = [], {}, {}
    for index in range(size):
        identity = f"q{index}"
        has_answer = random.random() < 0.5
        questions.append(question(identity, *(["red fish"] if has_answer else [])))
        predictions[identity] = str(random.choice(["red fish", "blue fish", "bird"]))
        odds[identity] = float(np.round(random.normal() + (0.0 if has_answer else 1.5), 1))  # with ties
    return questions, predictions, odds


@pytest.mark.parametrize("seed", range(5))
def test_best_thresholds(seed):
    questions, predictions, odds = made_up(seed)
    scores = squad2_scores(questions, predictions, odds)
    for name, score in (("exact", exact_match), ("f1", bag_f1)):
        raw = {q.id: score("red fish", predictions[q.id]) for q in questions}
        expected = official_search(questions, predictions, raw, odds)
        assert (scores[f"best_{name}"], scores[f"best_{name}_thresh"]) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_is_better_than_the_tuned_one(seed):
    questions, predictions, odds = made_up(seed)

    def f1_at(threshold):
        return squad2_scores(questions, predictions, odds, threshold)["f1"]

    tuned = tune_null_threshold(questions, predictions, odds)
    assert f1_at(tuned) == max(f1_at(threshold) for threshold in [-np.inf, *odds.values(), np.inf])


def test_where_silence_is_best_the_tuned_threshold_silences_all():
    questions = [question("a"), question("b"), question("c", "Rome")]
    predictions, odds = {"a": "x", "b": "y", "c": "z"}, {"a": -5.0, "b": -4.0, "c": -3.0}
    tuned = tune_null_threshold(questions, predictions, odds)
    assert tuned < -5.0
    assert squad2_scores(questions, predictions, odds, tuned)["NoAns_f1"] == 100.0


def test_chinese_is_scored_by_runs_of_characters():
    # Shared run: 光荣和 (3 segments) of 4 and 5; ω-force is one segment.
    assert run_f1("光荣和ω-force", "由光荣和他") == pytest.approx(2 * (3 / 5) * (3 / 4) / (3 / 5 + 3 / 4))
    assert run_f1("北京大学", "《北京》大学。") == 1.0
    # A bag of characters would have found all four.
    assert run_f1("北京大学", "大学北京") == pytest.approx(0.5)
    questions = [question("a", "1898年", "一八九八年"), question("b", "北京")]
    assert cmrc_scores(questions, {"a": "1898年。"}) == {
        "AVERAGE": 50.0,
        "F1": 50.0,
        "EM": 50.0,
        "TOTAL": 2,
        "SKIP": 1,
    }


def test_the_evaluator_follows_from_the_questions():
    assert evaluator_for([question("a", "x")]) == "squad1"
    assert evaluator_for([question("a", "x"), question("b")]) == "squad2"
    assert evaluator_for([question("a", "北京", text="首都是哪里？")]) == "cmrc"
    for evaluator in ("squad1", "squad2", "cmrc"):
        scores = score_answers(evaluator, [question("a", "x")], {"a": "x"})
        assert fractions(scores) == {"exact_match": 1.0, "f1": 1.0}
