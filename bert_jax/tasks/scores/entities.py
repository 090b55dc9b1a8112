"""Entities scored as CoNLL's evaluation does: right are those whose words and type are both right.

Counted by seqeval in its default mode, not in its strict one. The default has conlleval's rules for tags that no scheme
allows, as a model may predict them: an `I-` after `O`, or after another type, opens an entity. Strict mode takes such
entities for none, which makes other scores than those that have been published since 2002. Of tags that are right, as
those of files are made sure to be, both modes find the same entities.
"""

import dataclasses
import warnings
from collections.abc import Sequence

Tags = Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True, slots=True)
class TypeScores:
    """Precision, recall and F1 between 0 and 1, and the number of reference entities."""

    precision: float
    recall: float
    f1: float
    support: int


def entity_scores(gold: Tags, predicted: Tags) -> dict[str, float]:
    """Returns precision, recall and f1 over all entities (micro), and token_accuracy, between 0 and 1.

    Where nothing was predicted, precision is 0; where there is nothing to find, recall is.

    Args:
        gold: IOB2 tags of every sentence.
        predicted: tags of the same words.
    """
    overall = _count(gold, predicted, "micro")
    words = sum(len(tags) for tags in gold)
    right = sum(a == b for true, given in zip(gold, predicted, strict=True) for a, b in zip(true, given, strict=True))
    return {
        "f1": overall.f1,
        "precision": overall.precision,
        "recall": overall.recall,
        "token_accuracy": right / words if words else 0.0,
    }


def scores_by_type(gold: Tags, predicted: Tags) -> dict[str, TypeScores]:
    """Returns the scores of every type of entity that is in either, sorted by name; arguments as `entity_scores`."""
    return _count(gold, predicted, None)


def entity_table(gold: Tags, predicted: Tags) -> list[str]:
    """Returns lines of a table for people: the scores of every type, and of all; arguments as `entity_scores`."""
    rows = {**scores_by_type(gold, predicted), "all (micro)": _count(gold, predicted, "micro")}
    width = max(len("type"), *map(len, rows))
    lines = [f"{'type':<{width}}  precision  recall      f1  support"]
    for name, scores in rows.items():
        numbers = f"{scores.precision:9.4f}  {scores.recall:6.4f}  {scores.f1:6.4f}  {scores.support:7d}"
        lines.append(f"{name:<{width}}  {numbers}")
    return lines


def _count(gold: Tags, predicted: Tags, average: str | None) -> TypeScores | dict[str, TypeScores]:
    from seqeval.metrics.sequence_labeling import get_entities, precision_recall_fscore_support

    true, given = [list(tags) for tags in gold], [list(tags) for tags in predicted]
    with warnings.catch_warnings():
        # A prefix alone ("B", of word segmentation) is fine, and so is a type that was never predicted.
        warnings.simplefilter("ignore")
        types = sorted({label for tags in (true, given) for label, _, _ in get_entities(tags)})
        if not types:
            return TypeScores(0.0, 0.0, 0.0, 0) if average else {}
        counts = precision_recall_fscore_support(true, given, average=average, zero_division=0)
    if average:
        precision, recall, f1, support = counts
        return TypeScores(float(precision), float(recall), float(f1), int(support))
    return {
        label: TypeScores(float(precision), float(recall), float(f1), int(support))
        for label, precision, recall, f1, support in zip(types, *counts, strict=True)
    }
