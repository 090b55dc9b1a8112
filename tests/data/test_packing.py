"""Packing loses nothing, fits, and fills."""

import random

import pytest

from bert_jax.data.packing import first_fit


def _items(number=3000, seed=0, longest=128):
    generator = random.Random(seed)
    return [(generator.randint(5, longest), index) for index in range(number)]


@pytest.mark.parametrize("max_items", [1, 2, 8])
@pytest.mark.parametrize("open_rows", [1, 7, 64])
def test_nothing_is_lost_and_all_fits(max_items, open_rows):
    items = _items()
    lengths = {index: length for length, index in items}
    packed = list(first_fit(items, 128, max_items, open_rows))
    assert sorted(index for row in packed for index in row) == sorted(lengths)
    for row in packed:
        assert 1 <= len(row) <= max_items
        assert sum(lengths[index] for index in row) <= 128


def test_one_item_a_row_keeps_the_order():
    assert list(first_fit(_items(50), 128, 1)) == [[index] for index in range(50)]


def test_first_fit():
    items = [(60, "a"), (70, "b"), (50, "c"), (30, "d"), (10, "e")]
    # c and e fit into the row of a, the first; d only into that of b.
    assert sorted(first_fit(items, 120, 8)) == [["a", "c", "e"], ["b", "d"]]


def test_the_fullest_row_is_closed_first():
    packed = first_fit([(60, "a"), (90, "b"), (80, "c")], 100, 8, open_rows=2)
    assert next(packed) == ["b"]


def test_rows_are_closed_while_items_still_come():
    consumed = 0

    def stream():
        nonlocal consumed
        for item in _items(10_000):
            consumed += 1
            yield item

    packed = first_fit(stream(), 128, 8, open_rows=16)
    for _ in range(100):
        next(packed)
    assert consumed < 1000


def test_more_open_rows_fill_better():
    rows = {open_rows: len(list(first_fit(_items(), 128, 8, open_rows))) for open_rows in (1, 64)}
    used = sum(length for length, _ in _items())
    assert used / (128 * rows[64]) > 0.95 > 0.85 > used / (128 * rows[1])
