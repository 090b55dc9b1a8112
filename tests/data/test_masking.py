"""Masking: the published shares, what may never be masked, and draws that belong to (seed, epoch, pair)."""

import collections

import numpy as np
import pytest

from bert_jax.data.masking_recipe import Masking, max_predictions_per_row
from bert_jax.errors import UserError

tf = pytest.importorskip("tensorflow")

from bert_jax.data.masking import (  # noqa: E402
    Vocabulary,
    choose_tokens,
    choose_words,
    mask_batch,
    pair_draws,
)

SIZE = 1000
PAD, CLS, SEP, MASK = 0, 2, 3, 4
VOCABULARY = Vocabulary(SIZE, MASK, (PAD, CLS, SEP, MASK), np.arange(SIZE) % 3 != 0)


def make_rows(lengths, seq_len, seed=0):
    """Rows that pack pairs of the given lengths; returns ids, pair_index, position, pair_lengths, candidates."""
    random = np.random.default_rng(seed)
    batch, max_pairs = len(lengths), max(map(len, lengths))
    ids = np.zeros((batch, seq_len), np.int32)
    pair_index, position = np.zeros_like(ids), np.zeros_like(ids)
    candidates = np.zeros((batch, seq_len), bool)
    pair_lengths = np.zeros((batch, max_pairs), np.int32)
    for row, its_lengths in enumerate(lengths):
        start = 0
        for number, length in enumerate(its_lengths):
            tokens = random.integers(5, SIZE, length)
            tokens[[0, length // 2, -1]] = CLS, SEP, SEP
            here = slice(start, start + length)
            ids[row, here], pair_index[row, here], position[row, here] = tokens, number, np.arange(length)
            candidates[row, here] = ~np.isin(np.arange(length), [0, length // 2, length - 1])
            pair_lengths[row, number] = length
            start += length
        pair_index[row, start:] = max(len(its_lengths) - 1, 0)
    return ids, pair_index, position, pair_lengths, candidates


def mask(masking, lengths, seq_len, seed=0, epoch=0, first_pair_id=0):
    """Masks packed rows; returns the original ids, the layout, and the result as numpy."""
    ids, pair_index, position, pair_lengths, candidates = make_rows(lengths, seq_len)
    present = pair_lengths > 0
    pair_ids = np.cumsum(present.ravel()).reshape(present.shape) - 1 + first_pair_id
    flat = tf.constant(pair_ids.ravel(), tf.int64)
    draws = pair_draws(masking, seed, tf.fill(flat.shape, tf.constant(epoch, tf.int64)), flat, seq_len).numpy()
    draws = draws.reshape(*pair_ids.shape, seq_len, 3)
    token_draws = draws[np.arange(len(ids))[:, None], pair_index, position]
    width = max_predictions_per_row(masking, seq_len, pair_lengths.shape[1])
    result = mask_batch(
        masking, VOCABULARY, *map(tf.constant, (ids, pair_index, token_draws, pair_lengths)), candidates, width
    )
    return ids, pair_index, pair_lengths, candidates, {name: value.numpy() for name, value in result.items()}


def chosen_positions(result, row):
    return result["masked_positions"][row][result["masked_weights"][row] > 0]


def test_published_shares():
    ids, _, _, candidates, result = mask(Masking(), [[128]] * 400, 128)
    weights = result["masked_weights"]
    number = weights.sum()
    assert number == 400 * round(0.15 * 128)
    rows, places = np.nonzero(weights)
    positions = result["masked_positions"][rows, places]
    new, old = result["input_ids"][rows, positions], ids[rows, positions]
    # Four deviations of a binomial share; a random word is the old one once in a vocabulary.
    for share, expected in (((new == MASK).mean(), 0.8), ((new == old).mean(), 0.1)):
        assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / number) + 1 / SIZE
    random = new[(new != MASK) & (new != old)]
    assert abs(len(random) / number - 0.1) < 4 * np.sqrt(0.09 / number)
    counts = np.histogram(random, bins=10, range=(0, SIZE))[0]
    assert (np.abs(counts / len(random) - 0.1) < 5 * np.sqrt(0.09 / len(random))).all()
    # Every position is as likely as any other.
    chosen = np.zeros(128)
    np.add.at(chosen, positions, 1)
    assert (chosen[~candidates[0]] == 0).all()
    expected = number / candidates[0].sum()
    assert (np.abs(chosen[candidates[0]] - expected) < 5 * np.sqrt(expected)).all()


LENGTHS = [[60, 40, 20], [10, 8], [120], [5], []]


@pytest.mark.parametrize("whole_word", [False, True])
def test_what_every_row_holds(whole_word):
    ids, pair_index, pair_lengths, candidates, result = mask(Masking(whole_word=whole_word), LENGTHS, 128)
    assert result["masked_weights"].shape == (5, max_predictions_per_row(Masking(), 128, 3))
    for row in range(len(LENGTHS)):
        positions = chosen_positions(result, row)
        number = len(positions)
        assert (np.diff(positions) > 0).all()
        assert candidates[row, positions].all() and not np.isin(ids[row, positions], VOCABULARY.special_ids).any()
        # The used places come first; the others are zero throughout.
        np.testing.assert_array_equal(
            result["masked_weights"][row], np.arange(result["masked_weights"].shape[1]) < number
        )
        np.testing.assert_array_equal(result["masked_ids"][row, :number], ids[row, positions])
        assert (result["masked_ids"][row, number:] == 0).all() and (result["masked_positions"][row, number:] == 0).all()
        untouched = np.setdiff1d(np.arange(128), positions)
        np.testing.assert_array_equal(result["input_ids"][row, untouched], ids[row, untouched])
        per_pair = np.bincount(pair_index[row, positions], minlength=pair_lengths.shape[1])
        wanted = [max(1, round(0.15 * length)) if length else 0 for length in pair_lengths[row]]
        if whole_word:
            assert (per_pair <= wanted).all()
        else:
            np.testing.assert_array_equal(per_pair, wanted)


def test_numbers_are_those_of_the_original_at_every_length():
    lengths = list(range(5, 129))
    result = mask(Masking(max_predictions_per_pair=17), [[length] for length in lengths], 128)[-1]
    expected = [min(17, max(1, round(length * 0.15))) for length in lengths]
    np.testing.assert_array_equal(result["masked_weights"].sum(1), expected)


def test_special_tokens_in_the_middle_of_a_text_are_never_masked():
    ids, pair_index, position, pair_lengths, _ = make_rows([[40]], 40)
    ids[0, 1:-1] = MASK
    ids[0, 20] = 9
    draws = tf.random.stateless_uniform([1, 40, 3], [1, 2])
    result = mask_batch(
        Masking(), VOCABULARY, *map(tf.constant, (ids, pair_index)), draws, pair_lengths, position > 0, 6
    )
    assert result["masked_weights"].numpy().sum() == 1 and result["masked_positions"].numpy()[0, 0] == 20


def test_shares_can_be_chosen():
    result = mask(Masking(masked_lm_prob=0.3, mask_share=0.0, keep_share=1.0), [[100]], 100)
    np.testing.assert_array_equal(result[0], result[-1]["input_ids"])
    assert result[-1]["masked_weights"].sum() == 30
    always = mask(Masking(mask_share=1.0, keep_share=0.0), [[100]], 100)[-1]
    assert (always["input_ids"][0, chosen_positions(always, 0)] == MASK).all()


@pytest.mark.parametrize(("lengths", "seq_len"), [([[8] * 16], 128), ([[5] * 25], 128), ([[4, 4]], 8), ([[128]], 128)])
def test_no_prediction_is_dropped(lengths, seq_len):
    masking = Masking()
    result = mask(masking, lengths, seq_len)[-1]
    assert result["masked_weights"].sum() == sum(max(1, round(0.15 * length)) for length in lengths[0])


def test_the_predictions_axis_is_never_longer_than_the_row():
    assert max_predictions_per_row(Masking(), 8, 8) == 8


def test_draws_depend_on_seed_epoch_and_pair_alone():
    pairs = tf.constant([7, 123456789012, 3], tf.int64)
    epochs = tf.constant([0, 5, 2], tf.int64)
    draws = pair_draws(Masking(), 1, epochs, pairs, 16).numpy()
    assert ((draws >= 0) & (draws < 1)).all()
    # Another place in the batch, and another number of tokens drawn for.
    np.testing.assert_array_equal(pair_draws(Masking(), 1, epochs[::-1], pairs[::-1], 16)[::-1], draws)
    for length in (5, 37, 512):
        shorter = min(length, 16)
        longer = pair_draws(Masking(), 1, epochs, pairs, length).numpy()
        np.testing.assert_array_equal(longer[:, :shorter], draws[:, :shorter])
    others = [
        pair_draws(Masking(), 2, epochs, pairs, 16),
        pair_draws(Masking(), 1, epochs + 1, pairs, 16),
        pair_draws(Masking(), 1, epochs, pairs + 1, 16),
    ]
    for other in others:
        assert (np.abs(other.numpy() - draws).max((1, 2)) > 0.1).all()


def test_static_masks_stay_and_dynamic_masks_change():
    for static in (False, True):
        first, second = (mask(Masking(static=static), [[64]] * 4, 64, epoch=epoch)[-1] for epoch in (0, 3))
        same = all((first[name] == second[name]).all() for name in first)
        assert same == static


def test_packing_and_row_length_change_no_mask():
    packed_ids, _, _, _, packed = mask(Masking(), [[30, 20, 14]], 64)
    starts = (0, 30, 50)
    found = []
    for pair_id, (start, length) in enumerate(zip(starts, (30, 20, 14), strict=True)):
        ids = np.zeros((1, 96), np.int32)
        ids[0, :length] = packed_ids[0, start : start + length]
        position = np.broadcast_to(np.arange(96), (1, 96))
        draws = pair_draws(Masking(), 0, tf.zeros([1], tf.int64), tf.constant([pair_id], tf.int64), 96)
        candidates = (position < length) & ~np.isin(position, [0, length // 2, length - 1])
        alone = mask_batch(
            Masking(),
            VOCABULARY,
            tf.constant(ids),
            tf.zeros([1, 96], tf.int32),
            draws,
            np.array([[length]], np.int32),
            candidates,
            15,
        )
        alone = {name: value.numpy() for name, value in alone.items()}
        np.testing.assert_array_equal(alone["input_ids"][0, :length], packed["input_ids"][0, start : start + length])
        found += (chosen_positions(alone, 0) + start).tolist()
    assert found == chosen_positions(packed, 0).tolist()


def choose_words_in_plain_python(scores, candidates, begins, pair_index, predictions):
    """The original's loop: words in random order, each taken if it still fits."""
    words, previous = [], None
    for position, candidate in enumerate(candidates):
        if candidate and previous == position - 1 and not begins[position]:
            words[-1].append(position)
        elif candidate:
            words.append([position])
        if candidate:
            previous = position
    left, chosen = list(predictions), np.zeros(len(candidates), bool)
    for word in sorted(words, key=lambda word: scores[word[0]]):
        pair = pair_index[word[0]]
        if len(word) <= left[pair]:
            left[pair] -= len(word)
            chosen[word] = True
    return chosen


def test_whole_words_against_plain_python():
    random = np.random.default_rng(0)
    lengths = [[int(n) for n in random.integers(5, 30, random.integers(1, 4))] for _ in range(60)]
    _, pair_index, _, pair_lengths, candidates = make_rows(lengths, 96)
    begins = random.random(candidates.shape) < 0.5
    scores = random.random(candidates.shape).astype(np.float32)
    predictions = random.integers(0, 8, pair_lengths.shape).astype(np.int32)
    arguments = (scores, candidates, begins, pair_index, predictions)
    chosen = choose_words(*map(tf.constant, arguments), pair_lengths.shape[1]).numpy()
    for row in range(len(lengths)):
        expected = choose_words_in_plain_python(*(argument[row] for argument in arguments))
        np.testing.assert_array_equal(chosen[row], expected, err_msg=str(row))
    assert 0 < chosen.sum() < predictions.sum()


def test_tokens_against_plain_python():
    random = np.random.default_rng(1)
    _, pair_index, _, _pair_lengths, candidates = make_rows([[20, 9, 30], [40, 5], [7]], 64)
    scores = random.random(candidates.shape).astype(np.float32)
    # More than there are candidates, too: the surplus must not spill into the next pair.
    predictions = np.array([[30, 1, 4], [0, 2, 0], [3, 0, 0]], np.int32)
    chosen = choose_tokens(*map(tf.constant, (scores, candidates, pair_index, predictions)), 3).numpy()
    for row in range(3):
        for pair in range(3):
            places = np.flatnonzero(candidates[row] & (pair_index[row] == pair))
            expected = sorted(places[np.argsort(scores[row, places])][: predictions[row, pair]].tolist())
            assert np.flatnonzero(chosen[row] & (pair_index[row] == pair)).tolist() == expected


def test_whole_words_are_masked_whole():
    ids, _, _, candidates, result = mask(Masking(whole_word=True), [[64]] * 50, 64)
    partly = collections.Counter()
    for row in range(50):
        chosen = np.zeros(64, bool)
        chosen[chosen_positions(result, row)] = True
        starts = VOCABULARY.starts_word[ids[row]]
        for position in range(1, 64):
            continues = candidates[row, position] and candidates[row, position - 1] and not starts[position]
            if continues:
                partly[chosen[position] == chosen[position - 1]] += 1
    assert partly[False] == 0 and partly[True] > 100
    number = result["masked_weights"].sum()
    # Most of the budget of 10 a row is used: only words that do not fit are passed over.
    assert 0.95 * 500 < number <= 500


@pytest.mark.parametrize(
    "fields",
    [
        {"masked_lm_prob": 0.0},
        {"masked_lm_prob": 1.0},
        {"masked_lm_prob": "0.15"},
        {"max_predictions_per_pair": 0},
        {"max_predictions_per_pair": 1.5},
        {"mask_share": 0.95},
        {"keep_share": -0.1},
        {"keep_share": None},
    ],
    ids=str,
)
def test_recipes_that_make_no_sense_are_user_errors(fields):
    with pytest.raises(UserError, match=f"Masking.{next(iter(fields))}"):
        Masking(**fields)


def test_every_pair_has_at_least_one_prediction():
    result = mask(Masking(masked_lm_prob=0.02), [[20, 5, 9], [6]], 40)[-1]
    np.testing.assert_array_equal(result["masked_weights"].sum(1), [3, 1])
