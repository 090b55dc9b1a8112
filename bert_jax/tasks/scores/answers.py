"""Answers to questions scored as the official evaluators do: SQuAD v1.1, SQuAD v2.0 and CMRC 2018.

All scores are percentages, under the evaluators' own names, so that they can be compared with published ones;
`fractions` gives what training watches. The rules are those of evaluate-v1.1.py, evaluate-v2.0.py and
cmrc2018_evaluate.py.
"""

import collections
import difflib
import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from bert_jax.errors import UserError
from bert_jax.tasks.examples.example_types import QuestionExample

SQUAD1, SQUAD2, CMRC = EVALUATORS = ("squad1", "squad2", "cmrc")

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)

# What CMRC's evaluator removes; its list has an ellipsis of two characters, which no single character equals.
_CMRC_PUNCTUATION = str.maketrans("", "", "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
# Its segments: Chinese characters one by one, what is between them by words. The official one cuts that by NLTK's
# tokenizer; words, numbers with their points and commas, and single punctuation marks differ from it in abbreviations.
_CMRC_SEGMENT = re.compile(r"[\u4e00-\u9fa5]|(?:(?![\u4e00-\u9fa5])\w)+(?:[.,](?:(?![\u4e00-\u9fa5])\w)+)*|[^\w\s]")


def evaluator_for(questions: Sequence[QuestionExample]) -> str:
    """Returns whose rules suit questions: CMRC's where most are in Chinese, SQuAD v2.0's where some have no answer."""
    chinese = sum(bool(re.search(r"[\u4e00-\u9fa5]", question.question)) for question in questions)
    if chinese * 2 > len(questions):
        return CMRC
    return SQUAD2 if any(question.is_impossible for question in questions) else SQUAD1


def score_answers(
    evaluator: str,
    questions: Sequence[QuestionExample],
    predictions: Mapping[str, str],
    null_odds: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Returns the scores of one of EVALUATORS.

    Args:
        evaluator: one of EVALUATORS.
        questions: with answers.
        predictions: texts by question id; "" where the context is said to have no answer.
        null_odds: for SQuAD v2.0, see `squad2_scores`.
    """
    if evaluator == SQUAD2:
        return squad2_scores(questions, predictions, null_odds)
    return {SQUAD1: squad1_scores, CMRC: cmrc_scores}[evaluator](questions, predictions)


def fractions(scores: Mapping[str, float]) -> dict[str, float]:
    """Returns exact_match and f1 between 0 and 1 of any evaluator's percentages."""
    exact = next(scores[name] for name in ("exact_match", "exact", "EM") if name in scores)
    f1 = next(scores[name] for name in ("f1", "F1") if name in scores)
    return {"exact_match": exact / 100, "f1": f1 / 100}


def squad1_scores(questions: Iterable[QuestionExample], predictions: Mapping[str, str]) -> dict[str, float]:
    """Returns exact_match and f1; a question without a prediction counts as wrong."""
    exact = f1 = 0.0
    total = 0
    for question in questions:
        total += 1
        if question.id not in predictions:
            continue
        prediction, answers = predictions[question.id], _texts(question)
        exact += _best(answers, lambda answer, given=prediction: exact_match(answer, given))
        f1 += _best(answers, lambda answer, given=prediction: bag_f1(answer, given))
    return {"exact_match": _percent(exact, total), "f1": _percent(f1, total)}


def squad2_scores(
    questions: Sequence[QuestionExample],
    predictions: Mapping[str, str],
    null_odds: Mapping[str, float] | None = None,
    null_threshold: float = np.inf,
) -> dict[str, float]:
    """Returns the scores of v2.0, which are defined for v1.1's questions, too.

    Args:
        questions: with answers, or none where the context has none.
        predictions: the best text of every question; "" for no answer.
        null_odds: by question, larger where no answer is more likely; with them, the best scores over all thresholds
            are looked for.
        null_threshold: a prediction whose odds are above it is taken as no answer. The official default is 1, for odds
            that are probabilities.

    Returns:
        exact, f1, total; the same of questions with an answer (HasAns_) and without (NoAns_), as far as there are any;
        with odds best_exact, best_exact_thresh, best_f1, best_f1_thresh.

    Raises:
        UserError: a question has no prediction, or no odds.
    """
    exact, f1 = _raw_scores(questions, predictions)
    has_answer = np.array([bool(question.answers) for question in questions], bool)
    odds = _odds(questions, null_odds) if null_odds is not None else np.zeros(len(questions))
    silenced = odds > null_threshold
    final = {"exact": np.where(silenced, ~has_answer, exact), "f1": np.where(silenced, ~has_answer, f1)}
    scores: dict[str, float] = {}
    for prefix, chosen in (("", np.ones_like(has_answer)), ("HasAns_", has_answer), ("NoAns_", ~has_answer)):
        total = int(chosen.sum())
        if total or not prefix:
            for name, values in final.items():
                scores[prefix + name] = _percent(sum(values[chosen].tolist()), total)
            scores[prefix + "total"] = total
    if null_odds is not None:
        speaks = np.array([bool(predictions[question.id]) for question in questions], bool)
        for name, values in (("exact", exact), ("f1", f1)):
            reached, order = _reached(values, has_answer, speaks, odds)
            best = int(np.argmax(reached))
            scores[f"best_{name}"] = _percent(float(reached[best]), len(questions))
            # The official search begins at threshold 0 with every question unanswered, and keeps it if that is best.
            scores[f"best_{name}_thresh"] = float(odds[order[best - 1]]) if best else 0.0
    return scores


def tune_null_threshold(
    questions: Sequence[QuestionExample],
    predictions: Mapping[str, str],
    null_odds: Mapping[str, float],
) -> float:
    """Returns the threshold with the best f1 on these questions: above it, no answer is given.

    Unlike the official search, questions of equal odds stay together, and where silence is best for all, the threshold
    is below all odds.

    Args:
        questions: a dev set with answers, or none where the context has none.
        predictions: for every question the best text that is not "".
        null_odds: as in `squad2_scores`.
    """
    _, f1 = _raw_scores(questions, predictions)
    has_answer = np.array([bool(question.answers) for question in questions], bool)
    speaks = np.array([bool(predictions[question.id]) for question in questions], bool)
    odds = _odds(questions, null_odds)
    reached, order = _reached(f1, has_answer, speaks, odds)
    ordered = odds[order]
    inside_tie = np.concatenate([[False], ordered[1:] == ordered[:-1], [False]])
    best = int(np.argmax(np.where(inside_tie, -np.inf, reached)))
    if best == 0:
        return float(np.nextafter(ordered[0], -np.inf)) if len(ordered) else 0.0
    return float(ordered[best - 1])


def cmrc_scores(questions: Iterable[QuestionExample], predictions: Mapping[str, str]) -> dict[str, float]:
    """Returns AVERAGE, F1, EM, TOTAL and SKIP (questions without a prediction, which count as wrong).

    F1 is of the longest run of segments that prediction and answer share, not of bags of words as SQuAD's.
    """
    exact = f1 = 0.0
    total = skipped = 0
    for question in questions:
        total += 1
        if question.id not in predictions:
            skipped += 1
            continue
        prediction, answers = predictions[question.id], _texts(question)
        plain = cmrc_normalize(prediction)
        exact += any(cmrc_normalize(answer) == plain for answer in answers)
        f1 += _best(answers, lambda answer, given=prediction: run_f1(answer, given))
    f1_percent, exact_percent = _percent(f1, total), _percent(exact, total)
    return {
        "AVERAGE": (f1_percent + exact_percent) / 2,
        "F1": f1_percent,
        "EM": exact_percent,
        "TOTAL": total,
        "SKIP": skipped,
    }


def normalize_answer(text: str) -> str:
    """Returns a text as SQuAD compares it: lower case, no ASCII punctuation, no a, an, the, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_WITHOUT_PUNCTUATION)).split())


def exact_match(answer: str, prediction: str) -> float:
    """Returns 1 where the normalized texts are equal, else 0."""
    return float(normalize_answer(answer) == normalize_answer(prediction))


def bag_f1(answer: str, prediction: str) -> float:
    """Returns F1 of the words of both as bags; if one has none, 1 where neither has, else 0 (v2.0's rule).

    v1.1 has no such rule, and its answers no such case.
    """
    gold, given = normalize_answer(answer).split(), normalize_answer(prediction).split()
    if not gold or not given:
        return float(gold == given)
    shared = sum((collections.Counter(gold) & collections.Counter(given)).values())
    return _f1(shared, len(given), len(gold))


def cmrc_normalize(text: str) -> str:
    """Returns a text as CMRC compares it: lower case, no spaces around, without most punctuation."""
    return text.lower().strip().translate(_CMRC_PUNCTUATION)


def run_f1(answer: str, prediction: str) -> float:
    """Returns CMRC's F1: the longest common run of segments against the lengths of both."""
    gold = _CMRC_SEGMENT.findall(cmrc_normalize(answer))
    given = _CMRC_SEGMENT.findall(cmrc_normalize(prediction))
    run = difflib.SequenceMatcher(None, gold, given, autojunk=False).find_longest_match().size
    return _f1(run, len(given), len(gold))


def _f1(shared: int, predicted: int, gold: int) -> float:
    if not shared:
        return 0.0
    precision, recall = shared / predicted, shared / gold
    return 2 * precision * recall / (precision + recall)


def _raw_scores(questions: Sequence[QuestionExample], predictions: Mapping[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Returns exact match and F1 of every question, as v2.0 counts them."""
    missing = [question.id for question in questions if question.id not in predictions]
    if missing:
        raise UserError(
            f"{len(missing)} questions have no prediction, {missing[0]} is the first: predict all of the file"
        )
    exact, f1 = np.zeros(len(questions)), np.zeros(len(questions))
    for index, question in enumerate(questions):
        prediction = predictions[question.id]
        # An answer of articles and punctuation alone is none.
        answers = [text for text in _texts(question) if normalize_answer(text)] or [""]
        exact[index] = _best(answers, lambda answer, given=prediction: exact_match(answer, given))
        f1[index] = _best(answers, lambda answer, given=prediction: bag_f1(answer, given))
    return exact, f1


def _odds(questions: Sequence[QuestionExample], null_odds: Mapping[str, float]) -> np.ndarray:
    missing = [question.id for question in questions if question.id not in null_odds]
    if missing:
        raise UserError(f"{len(missing)} questions have no null odds, {missing[0]} is the first: predict all of them")
    return np.array([null_odds[question.id] for question in questions], np.float64)


def _reached(
    scores: np.ndarray, has_answer: np.ndarray, speaks: np.ndarray, odds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the total that is reached when the k questions of least odds are answered, k from 0; and their order."""
    order = np.argsort(odds, kind="stable")
    # Answering wins a question's score if it has an answer; if it has none, it loses what silence had won.
    gained = np.where(has_answer, scores, -speaks.astype(np.float64))[order]
    return np.cumsum(np.concatenate([[float((~has_answer).sum())], gained])), order


def _texts(question: QuestionExample) -> list[str]:
    if question.answers is None:
        raise UserError(f"{question.place}: the question has no answers to compare with; evaluate a file that has them")
    return [text for text, _ in question.answers]


def _best(answers: Sequence[str], score: Callable[[str], float]) -> float:
    return max((score(answer) for answer in answers), default=0.0)


def _percent(points: float, total: int) -> float:
    return 100.0 * points / total if total else 0.0
