"""The weights of classes: the definition of "balanced", and what may be listed."""

import numpy as np
import pytest

from bert_jax.errors import UserError
from bert_jax.tasks.class_weights import ClassWeigher, class_weights

_ROWS = np.asarray([0, 2, 0, 0, 2, 0, 1, 0])


def test_balanced_classes_count_the_same():
    weights = class_weights("balanced", ("a", "b", "c"), _ROWS)
    np.testing.assert_allclose(weights, [8 / (3 * 5), 8 / (3 * 1), 8 / (3 * 2)], rtol=1e-6)
    totals = np.bincount(_ROWS, weights=weights[_ROWS])
    np.testing.assert_allclose(totals, totals[0], rtol=1e-6)
    assert totals.sum() == pytest.approx(len(_ROWS), rel=1e-6)


def test_a_listed_label_without_rows_makes_no_infinity():
    assert np.isfinite(class_weights("balanced", ("a", "b", "c", "d"), _ROWS)).all()


def test_rows_get_the_weight_of_their_class_and_empty_ones_none():
    weigh = ClassWeigher(class_weights([1.0, 2.0, 0.5], ("a", "b", "c"), _ROWS))
    batch = {"labels": np.asarray([2, 1, 0, 1]), "row_weights": np.asarray([1, 1, 1, 0], np.float32)}
    weights = weigh(batch)
    assert weights.tolist() == [0.5, 2.0, 1.0, 0.0] and weights.dtype == np.float32


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ([1.0, 2.0], "class_weights has 2 numbers, and there are 3 labels: give one for each, in the order a, b, c"),
        ([1.0, 0.0, 1.0], "must be numbers above 0"),
        ([1.0, float("inf"), 1.0], "must be numbers above 0"),
    ],
)
def test_bad_lists(choice, message):
    with pytest.raises(UserError, match=message):
        class_weights(choice, ("a", "b", "c"), _ROWS)
