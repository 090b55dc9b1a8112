"""Rows laid out as batches: token types, positions, padding, targets; and rows that are choices of one question."""

import dataclasses

import numpy as np
import pytest

from bert_jax.tasks.encoding.encoded_rows import NO_LABEL, EncodedRows, Row


@pytest.fixture
def rows():
    return EncodedRows.of(
        [
            Row([2, 7, 8, 3, 9, 3], 4, 0, {"labels": 1}, {"tags": [-1, 0, 1, -1, 2, -1]}),
            Row([2, 5, 3], 3, 1, {"labels": 0}, {"tags": [-1, 4, -1]}),
        ]
    )


def test_a_batch(rows):
    batch = rows.batch(np.asarray([1, -1, 0]), 7)
    np.testing.assert_array_equal(batch["input_ids"], [[2, 5, 3, 0, 0, 0, 0], [0] * 7, [2, 7, 8, 3, 9, 3, 0]])
    np.testing.assert_array_equal(batch["token_type_ids"], [[0] * 7, [0] * 7, [0, 0, 0, 0, 1, 1, 0]])
    np.testing.assert_array_equal(batch["segment_ids"], [[1, 1, 1, 0, 0, 0, 0], [0] * 7, [1, 1, 1, 1, 1, 1, 0]])
    np.testing.assert_array_equal(batch["position_ids"][2], [0, 1, 2, 3, 4, 5, 0])
    np.testing.assert_array_equal(batch["tags"], [[-1, 4, *[-1] * 5], [-1] * 7, [-1, 0, 1, -1, 2, -1, -1]])
    np.testing.assert_array_equal(batch["row_weights"], [1, 0, 1])
    assert batch["labels"].tolist() == [0, 0, 1]
    with pytest.raises(ValueError, match="6 tokens does not go into a batch of length 5"):
        rows.batch(np.asarray([0]), 5)


def test_what_is_empty_has_no_positions_beyond_the_batch():
    rows = EncodedRows.of([Row([2, 7, 8, 9, 3], 5, 0), Row([2, 3], 2, 1)])
    rows = dataclasses.replace(rows, targets={**rows.targets, "places": np.asarray([[3, 4], [1, 1]], np.int32)})
    batch = rows.batch(np.asarray([1, -1]), 2)
    assert batch["places"].tolist() == [[1, 1], [0, 0]] and batch["places"].dtype == np.int32


def test_shapes_are_those_of_batches(rows):
    batch = rows.batch(np.asarray([0, 1, 1]), 8)
    assert rows.shapes(3, 8) == {name: (array.shape, array.dtype) for name, array in batch.items()}


def test_choices_stay_together():
    rows = EncodedRows.of(
        [Row([2, 10 + number, 3], 3, number // 3, {"labels": number // 3}) for number in range(6)], rows_per_unit=3
    )
    assert rows.num_units == 2 and rows.unit_lengths().tolist() == [3, 3]
    batch = rows.batch(np.asarray([1, -1]), 4)
    np.testing.assert_array_equal(batch["input_ids"][0], [[2, 13, 3, 0], [2, 14, 3, 0], [2, 15, 3, 0]])
    assert not batch["input_ids"][1].any() and batch["labels"][0] == 1 and batch["row_weights"].tolist() == [1, 0]


def test_the_fingerprint_is_of_everything(rows):
    same = EncodedRows.of(
        [
            Row([2, 7, 8, 3, 9, 3], 4, 0, {"labels": 1}, {"tags": [-1, 0, 1, -1, 2, -1]}),
            Row([2, 5, 3], 3, 1, {"labels": 0}, {"tags": [-1, 4, -1]}),
        ]
    )
    assert same.fingerprint() == rows.fingerprint()
    others = [
        dataclasses.replace(rows, targets={**rows.targets, "labels": np.asarray([0, 0])}),
        EncodedRows.of([Row([2, 7, 8, 3, 9, 3], 3, 0), Row([2, 5, 3], 3, 1)]),
        EncodedRows.of([Row([2, 7, 8, 3, 9, 3], 4, 0), Row([2, 5, 3], 3, 1)]),
    ]
    assert len({rows.fingerprint(), *(other.fingerprint() for other in others)}) == 4


def test_no_rows():
    rows = EncodedRows.of([])
    assert rows.num_units == 0 and rows.unit_lengths().tolist() == []
    assert NO_LABEL == -1
