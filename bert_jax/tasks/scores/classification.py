"""Scores of classification, with one label an example or several, and the majority baseline; by scikit-learn.

An average over classes takes those that occur among the true or the predicted labels: a class of the training data
that a dev set happens to lack neither lowers nor raises it, unless it is predicted there, which is wrong and counts 0.
A ratio with nothing below the line is 0.
"""

import unicodedata
from collections.abc import Sequence

import numpy as np

# Names of the class whose F1 counts where there are two, in this order; GLUE calls it 1 (MRPC, QQP).
POSITIVE_LABELS = ("1", "positive", "pos", "true", "yes")


def positive_label(labels: Sequence[str]) -> int:
    """Returns the index of the positive one of two labels: the first among `POSITIVE_LABELS`, else the second."""
    names = [label.casefold() for label in labels]
    return next((names.index(name) for name in POSITIVE_LABELS if name in names), 1)


def score_classes(true: np.ndarray, predicted: np.ndarray, labels: Sequence[str]) -> dict[str, float]:
    """Returns the scores of predictions of one label each.

    Args:
        true: indices into `labels`, `[examples]`.
        predicted: the same, of the predictions.
        labels: the names of all classes.

    Returns:
        accuracy, macro_f1, micro_f1 (equal to the accuracy where each example has one label), matthews (Matthews'
        correlation; 0 if one class alone is true or predicted); with two labels also f1, of the positive one.
    """
    from sklearn import metrics

    true, predicted = _same_length(true, predicted, 1)
    average = {"zero_division": 0}
    occur = np.union1d(true, predicted)
    scores = {
        "accuracy": metrics.accuracy_score(true, predicted),
        "macro_f1": metrics.f1_score(true, predicted, labels=occur, average="macro", **average),
        "micro_f1": metrics.f1_score(true, predicted, labels=np.arange(len(labels)), average="micro", **average),
        "matthews": metrics.matthews_corrcoef(true, predicted) if len(occur) > 1 else 0.0,
    }
    if len(labels) == 2:
        positive = positive_label(labels)
        scores["f1"] = metrics.f1_score(true, predicted, labels=[positive], average="macro", **average)
    return {name: float(value) for name, value in scores.items()}


def score_label_sets(true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Returns the scores of predictions of several labels each.

    Args:
        true: whether the example has the label, `[examples, labels]`.
        predicted: the same, of the predictions.

    Returns:
        micro_f1 (over all decisions), macro_f1 (mean over the labels that occur), subset_accuracy (all labels of an
        example right).
    """
    true, predicted = (np.asarray(array, bool) for array in _same_length(true, predicted, 2))
    # Counted here, as scikit-learn takes a single column for another kind of target.
    right, said = (true & predicted).sum(axis=0), true.sum(axis=0) + predicted.sum(axis=0)
    occur = said > 0
    return {
        "micro_f1": float(2 * right.sum() / said.sum()) if occur.any() else 0.0,
        "macro_f1": float((2 * right[occur] / said[occur]).mean()) if occur.any() else 0.0,
        "subset_accuracy": float((true == predicted).all(axis=1).mean()),
    }


def confusion_matrix(true: np.ndarray, predicted: np.ndarray, num_labels: int) -> np.ndarray:
    """Returns the counts `[true label, predicted label]` of all labels, whether they occur or not."""
    from sklearn import metrics

    true, predicted = _same_length(true, predicted, 1)
    return metrics.confusion_matrix(true, predicted, labels=np.arange(num_labels))


def class_table(true: np.ndarray, predicted: np.ndarray, labels: Sequence[str]) -> list[str]:
    """Returns the lines of a table for people: precision, recall, F1 and support of every label.

    Args:
        true: indices `[examples]`, or for several labels an example booleans `[examples, labels]`.
        predicted: the same, of the predictions.
        labels: the names of all classes. One that neither occurs nor is predicted has dashes for scores.
    """
    from sklearn import metrics

    true, predicted = np.asarray(true), np.asarray(predicted)
    if true.ndim == 1:
        true, predicted = (array[:, None] == np.arange(len(labels)) for array in (true, predicted))
    true, predicted = (np.asarray(array, bool) for array in _same_length(true, predicted, 2))
    # Label by label: scikit-learn takes a single column for another kind of target.
    rows = []
    for at, label in enumerate(labels):
        values = metrics.precision_recall_fscore_support(
            true[:, at], predicted[:, at], average="binary", pos_label=True, zero_division=0
        )
        support = int(true[:, at].sum())
        occurs = support or predicted[:, at].any()
        rows.append((label, *(f"{value:.4f}" if occurs else "-" for value in values[:3]), str(support)))
    header = ("label", "precision", "recall", "F1", "support")
    width = max(_width(row[0]) for row in [header, *rows])
    return [
        f"{first}{' ' * (width - _width(first))}  {precision:>9}  {recall:>9}  {f1:>9}  {support:>7}"
        for first, precision, recall, f1, support in [header, *rows]
    ]


def majority_class(training: np.ndarray, num_labels: int) -> int:
    """Returns the most frequent label of the training examples; of equally frequent ones the first."""
    return int(np.bincount(np.asarray(training), minlength=num_labels).argmax())


def majority_baseline(training: np.ndarray, true: np.ndarray, labels: Sequence[str]) -> dict[str, float]:
    """Returns the scores of always predicting what is most frequent in training: the least that a model must beat.

    Args:
        training: the training examples' labels: indices `[examples]`, or for several labels an example booleans
            `[examples, labels]`, where each label is predicted that more than half of the examples have.
        true: the labels of the examples that are scored, likewise.
        labels: the names of all classes.
    """
    training, true = np.asarray(training), np.asarray(true)
    if training.ndim == 2:
        return score_label_sets(true, np.broadcast_to(training.mean(axis=0) > 0.5, true.shape))
    return score_classes(true, np.full_like(true, majority_class(training, len(labels))), labels)


def _same_length(true: np.ndarray, predicted: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns both as arrays of that rank; no examples, or unequal ones, are a mistake of the program."""
    true, predicted = np.asarray(true), np.asarray(predicted)
    if true.shape != predicted.shape or true.ndim != rank or not len(true):
        raise ValueError(f"cannot score predictions {predicted.shape} of labels {true.shape}")
    return true, predicted


def _width(text: str) -> int:
    """Returns the columns that a text takes in a terminal: two for a Chinese character, none for a combining mark."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.combining(character) > 0 for character in text)
