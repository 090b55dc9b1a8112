"""Batches by length: every row once an epoch, the same at any step however it is reached, and little padding."""

import itertools

import numpy as np
import pytest

from bert_jax.data.length_batches import (
    LengthBatches,
    batches_in_order_of_length,
    choose_padded_lengths,
    lengths_in_order,
    lengths_of_batches,
)


@pytest.fixture
def lengths():
    return np.random.default_rng(0).integers(3, 100, 203)


@pytest.fixture
def order(lengths):
    return LengthBatches(lengths, 8, 5, (32, 64, 104))


def test_every_row_comes_once_in_every_epoch(order, lengths):
    assert order.steps_per_epoch == 26
    epochs = []
    for epoch in range(3):
        batches = [order(epoch * 26 + place)[0] for place in range(26)]
        rows = np.concatenate(batches)
        assert sorted(rows[rows >= 0]) == list(range(len(lengths))) and np.sum(rows < 0) == 26 * 8 - 203
        epochs.append(rows.tolist())
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_step_does_not_depend_on_those_before_it(order, lengths):
    through = [order(step) for step in range(60)]
    for step in (59, 3, 30):
        rows, length = LengthBatches(lengths, 8, 5, (32, 64, 104))(step)
        np.testing.assert_array_equal(rows, through[step][0])
        assert length == through[step][1]
    assert LengthBatches(lengths, 8, 6, (32, 64, 104))(3)[0].tolist() != through[3][0].tolist()


def test_a_batch_is_as_long_as_its_longest_row_needs(order, lengths):
    for step in range(26):
        rows, length = order(step)
        longest = lengths[rows[rows >= 0]].max()
        assert length == min(candidate for candidate in (32, 64, 104) if candidate >= longest)


def test_rows_of_a_batch_are_of_about_the_same_length():
    lengths = np.random.default_rng(1).integers(8, 128, 5000)
    order = LengthBatches(lengths, 16, 0, tuple(range(8, 136, 8)))
    padded = sum(16 * order(step)[1] for step in range(order.steps_per_epoch))
    assert padded < 1.08 * lengths.sum()
    # And yet the batches of an epoch come in no order of length.
    sizes = [order(step)[1] for step in range(order.steps_per_epoch)]
    assert abs(np.corrcoef(sizes, np.arange(len(sizes)))[0, 1]) < 0.2


def test_evaluation_takes_every_row_once(lengths):
    seen = [rows for rows, _ in batches_in_order_of_length(lengths, 8, (32, 64, 104))]
    rows = np.concatenate(seen)
    assert sorted(rows[rows >= 0]) == list(range(203)) and all(len(batch) == 8 for batch in seen)


def test_the_padded_lengths_are_the_best_there_are():
    draw = np.random.default_rng(0)
    for _ in range(100):
        most = int(draw.integers(1, 5))
        multiple = int(draw.choice([1, 4, 8]))
        lengths = draw.integers(1, 20 * multiple, draw.integers(1, 60))
        chosen = choose_padded_lengths(lengths, most, multiple=multiple)
        units = -(-lengths // multiple)

        def cost(ends, units=units):
            return np.asarray(ends)[np.searchsorted(ends, units)].sum()

        candidates = range(1, units.max() + 1)
        choices = itertools.chain.from_iterable(
            itertools.combinations(candidates, number) for number in range(1, most + 1)
        )
        best = min(cost(ends) for ends in choices if ends[-1] == units.max())
        assert cost([length // multiple for length in chosen]) == best
        assert len(chosen) <= most and list(chosen) == sorted(set(chosen))


def test_each_length_saves_its_price():
    draw = np.random.default_rng(2)
    for _ in range(8):
        lengths = draw.integers(1, 10, 30)
        choices = [
            (*shorter, lengths.max())
            for number in range(lengths.max())
            for shorter in itertools.combinations(range(1, lengths.max()), number)
        ]
        padded = [sum(min(end for end in ends if end >= length) for length in lengths) for ends in choices]
        numbers = []
        for price in (0.1, 1.0, 30.0):
            of_lengths = price * lengths.mean()
            best = min(tokens + len(ends) * of_lengths for tokens, ends in zip(padded, choices, strict=True))
            chosen = choose_padded_lengths(lengths, 12, price=price, multiple=1)
            assert padded[choices.index(chosen)] + len(chosen) * of_lengths == pytest.approx(best)
            numbers.append(len(chosen))
        assert numbers[0] > numbers[1] > numbers[2] == 1


def test_the_lengths_of_batches_are_those_of_their_longest_rows(lengths):
    order = LengthBatches(lengths, 8, 5, (104,))
    expected = [lengths[rows[rows >= 0]].max() for rows in (order(step)[0] for step in range(order.steps_per_epoch))]
    assert lengths_of_batches(lengths, 8, 5).tolist() == expected
    ascending = np.sort(lengths)
    expected = [ascending[start : start + 8].max() for start in range(0, len(lengths), 8)]
    assert lengths_in_order(lengths, 8).tolist() == expected
