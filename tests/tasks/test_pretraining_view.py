"""The view of a task's rows for the losses of pre-training: what is masked and swapped, and what it depends on."""

import dataclasses
import types

import numpy as np
import pytest

from bert_jax.errors import UserError
from bert_jax.tasks.encoding.encoded_rows import EncodedRows, Row
from bert_jax.tasks.pretraining_view import PretrainingView

_TOKENIZER = types.SimpleNamespace(
    cls_id=2, sep_id=3, pad_id=0, mask_id=4, vocab_size=3000, token_to_id={"[E1]": 7}.get
)
_LENGTH = 40
_ALL = np.arange(400)


def _pairs(count=400, seed=0):
    """Pairs whose second text says whose it is: its words are 1000 plus the number of its example."""
    draw, rows = np.random.default_rng(seed), []
    for number in range(count):
        first = [2, *draw.integers(10, 900, draw.integers(2, 25)).tolist(), 3]
        second = [1000 + number] * int(draw.integers(1, _LENGTH - len(first)))
        rows.append(Row([*first, *second, 3], len(first), number))
    return EncodedRows.of(rows)


def _view(rows, seed=5, with_pairs=True):
    return PretrainingView.of(rows, seed, _TOKENIZER, ["[E1]"], with_pairs=with_pairs)


def _shown(view):
    """The view's tokens as they were before they were masked, `[batch, length]`."""
    ids = view["view_input_ids"].copy()
    rows, at = np.nonzero(view["masked_weights"])
    ids[rows, view["masked_positions"][rows, at]] = view["masked_ids"][rows, at]
    return ids


@pytest.fixture(scope="module")
def rows():
    return _pairs()


@pytest.fixture(scope="module")
def view(rows):
    return _view(rows)(_ALL, _LENGTH, 3, _ALL)


def test_labels_say_which_second_texts_are_from_elsewhere(rows, view):
    ids, labels = _shown(view), view["next_sentence_labels"]
    # Half of them, within four standard deviations.
    assert labels.mean() == pytest.approx(0.5, abs=4 * 0.5 / 20) and (view["next_sentence_weights"] == 1).all()
    cut = 0
    for row, (tokens, label) in enumerate(zip(ids, labels, strict=True)):
        first, length = rows.first_lengths[row], int(view["view_segment_ids"][row].sum())
        begin, end = rows.offsets[row : row + 2]
        np.testing.assert_array_equal(tokens[:first], rows.tokens[begin : begin + first])
        np.testing.assert_array_equal(view["view_token_type_ids"][row, :length], np.arange(length) >= first)
        np.testing.assert_array_equal(view["view_position_ids"][row, :length], np.arange(length))
        (other,) = set(tokens[first : length - 1] - 1000)
        assert tokens[length - 1] == 3 and (tokens[length:] == 0).all() and (other != row) == label
        if not label:
            np.testing.assert_array_equal(tokens[: end - begin], rows.tokens[begin:end])
        whole = rows.offsets[other + 1] - rows.offsets[other] - rows.first_lengths[other]
        assert length == min(first + whole, _LENGTH)
        cut += first + whole > _LENGTH
    assert cut > 0


def test_ordinary_tokens_are_masked(rows, view):
    lengths = view["view_segment_ids"].sum(axis=1)
    np.testing.assert_array_equal(view["masked_weights"].sum(axis=1), np.maximum(np.round(0.15 * lengths), 1))
    assert not np.isin(view["masked_ids"][view["masked_weights"] > 0], (0, 2, 3)).any()
    assert (view["view_input_ids"] == 4).sum() / view["masked_weights"].sum() == pytest.approx(0.8, abs=0.05)
    marked = EncodedRows.of([Row([2, 7, 7, 7, 9, 3], 6, 0)] * 30)
    masked = _view(marked, with_pairs=False)(np.arange(30), 8, 0, np.arange(30))
    assert (masked["masked_ids"][:, 0] == 9).all()


def test_the_view_is_a_function_of_seed_step_and_row(rows, view):
    def same(one, other):
        return all(np.array_equal(one[name], other[name]) for name in one)

    make = _view(rows)
    assert same(make(_ALL, _LENGTH, 3, _ALL), view)
    part = np.asarray([1, 7, 300])
    assert same(make(part, _LENGTH, 3, part), {name: array[part] for name, array in view.items()})
    for other in (
        make(_ALL, _LENGTH, 4, _ALL),
        make(_ALL, _LENGTH, 3, _ALL + 1),
        _view(rows, 6)(_ALL, _LENGTH, 3, _ALL),
    ):
        assert (other["next_sentence_labels"] != view["next_sentence_labels"]).sum() > 100
        assert (other["masked_positions"] != view["masked_positions"]).mean() > 0.5


def test_an_empty_row_counts_for_nothing(rows):
    view = _view(rows)(np.asarray([-1, 3]), _LENGTH, 0, np.arange(2))
    assert view["masked_weights"][0].sum() == 0 == view["next_sentence_weights"][0]
    assert not view["view_segment_ids"][0].any() and view["next_sentence_weights"][1] == 1
    shapes = _view(rows).shapes(2, _LENGTH)
    assert {name: (array.shape, array.dtype) for name, array in view.items()} == shapes


def test_of_choices_the_right_one_is_shown(rows):
    made = EncodedRows.of(
        [
            Row([2, 10 + number, 3, 100 + 3 * number + choice, 3], 3, number)
            for number in range(8)
            for choice in range(3)
        ],
        rows_per_unit=3,
    )
    right = np.arange(8) % 3
    made = dataclasses.replace(made, targets={**made.targets, "labels": np.repeat(right, 3)})
    shown = _shown(_view(made, with_pairs=False)(np.arange(8), 8, 0, np.arange(8)))
    np.testing.assert_array_equal(shown[:, 3], 100 + 3 * np.arange(8) + right)
    swapped = _view(made)(np.arange(8), 8, 0, np.arange(8))
    others = (_shown(swapped)[:, 3] - 100) // 3
    np.testing.assert_array_equal(others != np.arange(8), swapped["next_sentence_labels"])
    assert 0 < swapped["next_sentence_labels"].sum() < 8


def test_a_second_text_is_never_swapped_for_its_like():
    # Two examples of three have the same second text, and one is read in two windows.
    texts = [([10], [50], 0), ([11], [50], 1), ([12], [60], 2), ([12], [61], 2)]
    rows = EncodedRows.of([Row([2, *a, 3, *b, 9, 3], 3, number) for a, b, number in texts])
    for step in range(30):
        view = _view(rows)(np.arange(4), 8, step, np.arange(4))
        seconds, swapped = _shown(view)[:, 3], view["next_sentence_labels"].astype(bool)
        assert np.isin(seconds[:2][swapped[:2]], (60, 61)).all() and (seconds[2:][swapped[2:]] == 50).all()


@pytest.mark.parametrize(("second", "message"), [([], "are single texts"), ([20, 3], "all have the same second text")])
def test_nothing_to_swap(second, message):
    rows = EncodedRows.of([Row([2, number, 3, *second], 3, number) for number in (10, 11)])
    with pytest.raises(UserError, match=message):
        _view(rows)
    assert not _view(rows, with_pairs=False)(np.arange(2), 8, 0, np.arange(2))["next_sentence_weights"].any()
