"""Scores of regression against their definitions; constants are 0 with a word."""

import warnings

import numpy as np
import pytest

from bert_jax.tasks.scores.regression import mean_baseline, remarks, score_numbers


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_scores_equal_their_definitions():
    draw = np.random.default_rng(0)
    true = draw.normal(size=100)
    predicted = true + draw.normal(size=100)
    scores = score_numbers(true, predicted)
    assert scores["pearson"] == pytest.approx(np.corrcoef(true, predicted)[0, 1])
    ranks = [array.argsort().argsort() for array in (true, predicted)]
    assert scores["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert scores["mse"] == pytest.approx(np.mean((true - predicted) ** 2))
    assert remarks(true, predicted) == []


def test_ties_by_hand():
    scores = score_numbers(np.array([0, 1, 2, 3]), np.array([1, 1, 2, 4]))
    # Ranks 1 2 3 4 and 1.5 1.5 3 4: covariance 4.5 of variances 5 and 4.5.
    assert scores["spearman"] == pytest.approx(4.5 / np.sqrt(5 * 4.5))
    assert scores["mse"] == pytest.approx(0.5)


@pytest.mark.parametrize("swap", [False, True])
def test_a_constant_is_zero_with_a_word(swap):
    pair = (np.array([1.0, 2.0, 3.0]), np.full(3, 2.5, np.float32))
    true, predicted = pair[::-1] if swap else pair
    scores = score_numbers(true, predicted)
    assert (scores["pearson"], scores["spearman"]) == (0.0, 0.0)
    assert scores["mse"] == pytest.approx((1.5**2 + 0.5**2 + 0.5**2) / 3)
    (line,) = remarks(true, predicted)
    assert line.startswith(f"the {'labels' if swap else 'predictions'} are all 2.5: ")


def test_a_single_example_is_zero_with_a_word():
    assert score_numbers(np.array([1.0]), np.array([2.0])) == {"pearson": 0.0, "spearman": 0.0, "mse": 1.0}
    assert "single example" in remarks(np.array([1.0]), np.array([2.0]))[0]


def test_nearly_constant_predictions_still_correlate():
    true = np.arange(5.0)
    scores = score_numbers(true, np.float32(2.5) + np.arange(5, dtype=np.float32) * np.float32(2.0**-21))
    assert scores["pearson"] == pytest.approx(1)


def test_numbers_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        score_numbers(np.array([1.0, 2.0]), np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match="cannot score"):
        score_numbers(np.array([]), np.array([]))


def test_mean_baseline():
    scores = mean_baseline(np.array([1.0, 2.0, 6.0]), np.array([2.0, 4.0]))
    assert scores == {"pearson": 0.0, "spearman": 0.0, "mse": pytest.approx(1.0)}
