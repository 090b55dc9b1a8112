"""Scores of classes against counts by hand and definitions written out; absent classes; several labels."""

import warnings

import numpy as np
import pytest

from bert_jax.tasks.scores.classification import (
    class_table,
    confusion_matrix,
    majority_baseline,
    majority_class,
    positive_label,
    score_classes,
    score_label_sets,
)


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def f1(right, predicted, true):
    return 2 * right / (predicted + true) if predicted + true else 0.0


def test_two_labels_by_hand():
    true = np.array([1, 1, 1, 1, 0, 0])
    predicted = np.array([1, 1, 0, 1, 1, 0])
    scores = score_classes(true, predicted, ["0", "1"])
    # Class 1: 3 right of 4 predicted and 4 true; class 0: 1 right of 2 predicted and 2 true.
    assert scores["accuracy"] == scores["micro_f1"] == pytest.approx(4 / 6)
    assert scores["f1"] == pytest.approx(f1(3, 4, 4))
    assert scores["macro_f1"] == pytest.approx((f1(3, 4, 4) + f1(1, 2, 2)) / 2)
    assert scores["matthews"] == pytest.approx((3 * 1 - 1 * 1) / np.sqrt(4 * 4 * 2 * 2))


def test_scores_equal_their_definitions():
    draw = np.random.default_rng(0)
    true, predicted = draw.integers(0, 5, (2, 300))
    scores = score_classes(true, predicted, list("abcde"))
    f1s = [f1(((true == k) & (predicted == k)).sum(), (predicted == k).sum(), (true == k).sum()) for k in range(5)]
    assert scores["macro_f1"] == pytest.approx(np.mean(f1s))
    assert scores["accuracy"] == pytest.approx((true == predicted).mean())
    # Matthews' correlation of several classes is that of the indicator matrices (Gorodkin, 2004).
    one_hot = [np.eye(5)[array] - np.eye(5)[array].mean(axis=0) for array in (true, predicted)]
    covariance = (one_hot[0] * one_hot[1]).sum()
    assert scores["matthews"] == pytest.approx(covariance / np.sqrt((one_hot[0] ** 2).sum() * (one_hot[1] ** 2).sum()))
    assert "f1" not in scores


def test_classes_absent_from_dev_neither_crash_nor_count():
    true, predicted = np.array([0, 2, 2, 0]), np.array([0, 2, 0, 0])
    few, many = (score_classes(true, predicted, [str(k) for k in range(number)]) for number in (3, 50))
    assert few == many
    assert few["macro_f1"] == pytest.approx((f1(2, 3, 2) + f1(1, 1, 2)) / 2)
    # Predicted where it never is true, a class counts as 0.
    assert score_classes(np.array([0, 0]), np.array([0, 1]), list("abc"))["macro_f1"] == pytest.approx(f1(1, 1, 2) / 2)


def test_one_class_alone():
    scores = score_classes(np.zeros(3, int), np.zeros(3, int), ["neg", "pos"])
    assert scores == {"accuracy": 1.0, "macro_f1": 1.0, "micro_f1": 1.0, "matthews": 0.0, "f1": 0.0}


@pytest.mark.parametrize(
    ("labels", "positive"),
    [(("0", "1"), 1), (("1", "0"), 0), (("Positive", "negative"), 0), (("no", "yes"), 1), (("ham", "spam"), 1)],
)
def test_which_label_is_positive(labels, positive):
    assert positive_label(labels) == positive
    right = np.array([positive] * 3 + [1 - positive])
    predicted = np.array([positive, positive, 1 - positive, 1 - positive])
    assert score_classes(right, predicted, labels)["f1"] == pytest.approx(f1(2, 2, 3))


def test_no_examples_are_refused():
    with pytest.raises(ValueError, match="cannot score"):
        score_classes(np.array([], int), np.array([], int), ["a", "b"])
    with pytest.raises(ValueError, match="cannot score"):
        score_classes(np.array([1, 0]), np.array([1]), ["a", "b"])


class TestSeveralLabels:
    TRUE = np.array([[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]], bool)
    PREDICTED = np.array([[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]], bool)

    def test_by_hand(self):
        scores = score_label_sets(self.TRUE, self.PREDICTED)
        assert scores["micro_f1"] == pytest.approx(f1(2, 3, 3))
        # The labels: right, missed once, invented once; the fourth occurs nowhere and does not count.
        assert scores["macro_f1"] == pytest.approx((f1(1, 1, 1) + f1(1, 1, 2) + f1(0, 1, 0)) / 3)
        assert scores["subset_accuracy"] == pytest.approx(1 / 3)

    def test_one_column_is_counted_as_any_other(self):
        true, predicted = np.asarray([[1], [0], [0], [0], [1]]), np.asarray([[1], [0], [0], [0], [0]])
        alone = score_label_sets(true, predicted)
        assert alone["micro_f1"] == alone["macro_f1"] == pytest.approx(2 / 3)
        # Others that never occur change nothing.
        wide = [np.pad(array, [(0, 0), (0, 2)]) for array in (true, predicted)]
        assert score_label_sets(*wide) == pytest.approx(alone)

    def test_agrees_with_scikit_learn(self):
        from sklearn import metrics

        true, predicted = np.random.default_rng(0).random((2, 200, 5)) < 0.3
        scores = score_label_sets(true, predicted)
        for average in ("micro", "macro"):
            assert scores[f"{average}_f1"] == pytest.approx(metrics.f1_score(true, predicted, average=average))

    def test_nothing_true_and_nothing_predicted(self):
        nothing = np.zeros((2, 3), bool)
        assert score_label_sets(nothing, nothing) == {"micro_f1": 0.0, "macro_f1": 0.0, "subset_accuracy": 1.0}

    def test_a_single_label(self):
        scores = score_label_sets(self.TRUE[:, :1], self.PREDICTED[:, :1])
        assert scores == {"micro_f1": 1.0, "macro_f1": 1.0, "subset_accuracy": 1.0}

    def test_table(self):
        lines = class_table(self.TRUE, self.PREDICTED, list("abcd"))
        assert [line.split() for line in lines[1:]] == [
            ["a", "1.0000", "1.0000", "1.0000", "1"],
            ["b", "1.0000", "0.5000", "0.6667", "2"],
            ["c", "0.0000", "0.0000", "0.0000", "0"],
            ["d", "-", "-", "-", "0"],
        ]

    def test_majority(self):
        training = np.array([[1, 1, 0, 1], [1, 0, 0, 0], [1, 1, 0, 0]], bool)
        predicted = np.broadcast_to([True, True, False, False], self.TRUE.shape)
        assert majority_baseline(training, self.TRUE, list("abcd")) == score_label_sets(self.TRUE, predicted)


def test_confusion_matrix_has_every_label():
    matrix = confusion_matrix(np.array([0, 2, 2]), np.array([0, 0, 2]), 4)
    expected = np.zeros((4, 4), int)
    expected[0, 0] = expected[2, 0] = expected[2, 2] = 1
    np.testing.assert_array_equal(matrix, expected)


def test_table_of_classes():
    lines = class_table(np.array([0, 1, 1, 1]), np.array([0, 1, 1, 0]), ["负面", "positive", "never"])
    assert [line.split() for line in lines] == [
        ["label", "precision", "recall", "F1", "support"],
        ["负面", "0.5000", "1.0000", "0.6667", "1"],
        ["positive", "1.0000", "0.6667", "0.8000", "3"],
        ["never", "-", "-", "-", "0"],
    ]
    # A Chinese character is two columns wide: its line has as many characters less.
    assert len(lines[1]) == len(lines[2]) - 2


def test_majority_baseline():
    training, true = np.array([2, 2, 1, 0]), np.array([2, 1, 1, 1])
    assert majority_class(training, 3) == 2
    scores = majority_baseline(training, true, list("abc"))
    assert scores["accuracy"] == 0.25
    assert scores["matthews"] == 0
    assert majority_class(np.array([1, 0, 0, 1]), 3) == 0
