"""Scores of regression: Pearson's and Spearman's correlations and the mean squared error."""

import numpy as np


def score_numbers(true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Returns pearson, spearman and mse.

    A correlation with something constant is undefined; it is 0 here, as the constant predicts no differences, and
    `remarks` says so.

    Args:
        true: the labels, `[examples]`.
        predicted: the predictions, `[examples]`, finite.
    """
    from scipy import stats

    true, predicted = _checked(true, predicted)
    pearson = spearman = 0.0
    if not remarks(true, predicted):
        pearson = float(stats.pearsonr(true, predicted).statistic)
        spearman = float(stats.spearmanr(true, predicted).statistic)
    return {"pearson": pearson, "spearman": spearman, "mse": float(np.mean((true - predicted) ** 2))}


def remarks(true: np.ndarray, predicted: np.ndarray) -> list[str]:
    """Returns lines for people: why the correlations are 0, if something is constant; otherwise none."""
    true, predicted = _checked(true, predicted)
    if len(true) == 1:
        return ["correlations of a single example are undefined, and reported as 0"]
    constant = [
        f"{what} are all {values[0]:.6g}: correlations are undefined, and reported as 0"
        for what, values in (("the labels", true), ("the predictions", predicted))
        if np.ptp(values) == 0
    ]
    return constant


def mean_baseline(training: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Returns the scores of always predicting the mean of the training labels: the least that a model must beat."""
    true = np.asarray(true, np.float64)
    return score_numbers(true, np.full_like(true, np.mean(np.asarray(training, np.float64))))


def _checked(true: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    true, predicted = np.asarray(true, np.float64), np.asarray(predicted, np.float64)
    if true.shape != predicted.shape or true.ndim != 1 or not len(true):
        raise ValueError(f"cannot score predictions {predicted.shape} of labels {true.shape}")
    if not (np.isfinite(true).all() and np.isfinite(predicted).all()):
        raise ValueError("cannot score numbers that are not finite")
    return true, predicted
