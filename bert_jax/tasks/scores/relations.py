"""The official score of SemEval-2010 task 8: macro F1 of the directed relations, without Other.

The task's scorer calls it "(9+1)-way evaluation with directionality taken into account". It scores nine relations, not
eighteen: both directions of a relation count together, but a prediction is right only if its direction is. For each
relation,
    precision = right / predicted as the relation in either direction,
    recall = right / truly the relation in either direction,
and the score is the mean of the relations' F1. Other is never averaged, yet predictions of a relation for a true Other
lower that relation's precision, and predictions of Other lower recall. (Hendrickx et al., 2010, SemEval-2010 Task 8,
section 4; the arithmetic is that of the scorer distributed with the data.)
"""

import collections
import re
from collections.abc import Sequence

OTHER = "Other"

_DIRECTED = re.compile(r"(?P<relation>.+)\((?:e1,e2|e2,e1)\)")


def relation_of(label: str) -> str:
    """Returns a label's relation without its direction: `Cause-Effect` of `Cause-Effect(e2,e1)`."""
    match = _DIRECTED.fullmatch(label)
    return match["relation"] if match else label


def score_relations(true: Sequence[str], predicted: Sequence[str]) -> dict[str, float]:
    """Returns the scores of predicted relations.

    Args:
        true: the labels, such as `Cause-Effect(e2,e1)` or `Other`.
        predicted: the predictions, likewise.

    Returns:
        macro_f1: the official score. Like the scorer's, the mean takes the relations that occur among the labels, which
            in the official data are all nine; a prediction of another relation counts as one of Other.
        micro_f1: F1 of right over predicted and true relations, these relations together.
        accuracy: of labels with their direction, Other included.
    """
    counts = [count for count in _counts(true, predicted).values() if count[2]]
    totals = tuple(map(sum, zip(*counts, strict=True))) or (0, 0, 0)
    return {
        "macro_f1": sum(_ratios(*count)[2] for count in counts) / max(len(counts), 1),
        "micro_f1": _ratios(*totals)[2],
        "accuracy": sum(a == b for a, b in zip(true, predicted, strict=True)) / len(true),
    }


def relation_table(true: Sequence[str], predicted: Sequence[str]) -> list[str]:
    """Returns the lines of a table for people: precision, recall, F1 and support of every relation but Other."""
    counts = _counts(true, predicted)
    width = max([len("relation"), *map(len, counts)])
    lines = [f"{'relation':<{width}}  {'precision':>9}  {'recall':>9}  {'F1':>9}  {'support':>7}"]
    for relation, count in counts.items():
        precision, recall, f1 = _ratios(*count)
        lines.append(f"{relation:<{width}}  {precision:>9.4f}  {recall:>9.4f}  {f1:>9.4f}  {count[2]:>7}")
    return lines


def _counts(true: Sequence[str], predicted: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    """Returns (right, predicted, true) of every relation but Other, in the order of the alphabet."""
    if len(true) != len(predicted) or not len(true):
        raise ValueError(f"cannot score {len(predicted)} predictions of {len(true)} labels")
    right = collections.Counter(relation_of(a) for a, b in zip(true, predicted, strict=True) if a == b)
    predictions = collections.Counter(map(relation_of, predicted))
    truths = collections.Counter(map(relation_of, true))
    relations = sorted((predictions | truths).keys() - {OTHER})
    return {relation: (right[relation], predictions[relation], truths[relation]) for relation in relations}


def _ratios(right: int, predicted: int, true: int) -> tuple[float, float, float]:
    """Returns precision, recall and F1; what has nothing below the line is 0."""
    precision = right / predicted if predicted else 0.0
    recall = right / true if true else 0.0
    return precision, recall, 2 * right / (predicted + true) if predicted + true else 0.0
