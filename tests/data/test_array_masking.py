"""Masking on NumPy arrays: the rule of `data.masking`, token for token."""

import numpy as np
import pytest

from bert_jax.data.array_masking import mask_rows, num_predictions
from bert_jax.data.masking_recipe import Masking

_PAD, _CLS, _SEP, _MASK, _SIZE = 0, 2, 3, 4, 500


def _rows(count, length, seed=0):
    draw = np.random.default_rng(seed)
    lengths = draw.integers(2, length + 1, count)
    lengths[0] = 0
    used = np.arange(length) < lengths[:, None]
    ids = np.where(used, draw.integers(5, _SIZE, (count, length)), _PAD).astype(np.int32)
    ids[1:, 0] = _CLS
    ids[np.arange(1, count), lengths[1:] - 1] = _SEP
    return ids, lengths, used & ~np.isin(ids, (_CLS, _SEP)), draw.random((count, length, 3), np.float32)


def _mask(ids, lengths, candidates, draws):
    return mask_rows(ids, lengths, candidates, draws, mask_id=_MASK, vocab_size=_SIZE)


@pytest.mark.parametrize("length", [8, 33])
def test_it_masks_as_pretraining_does(length):
    tf = pytest.importorskip("tensorflow")
    from bert_jax.data.masking import Vocabulary, mask_batch

    ids, lengths, candidates, draws = _rows(40, length)
    theirs = mask_batch(
        Masking(),
        Vocabulary(_SIZE, _MASK, (_PAD, _CLS, _SEP), np.ones(_SIZE, bool)),
        tf.constant(ids),
        tf.zeros(ids.shape, tf.int32),
        tf.constant(draws),
        tf.constant(lengths[:, None], tf.int32),
        tf.constant(candidates),
        num_predictions(length),
    )
    ours = _mask(ids, lengths, candidates, draws)
    assert ours.keys() == theirs.keys() and ours["masked_weights"].sum() > 20
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name].numpy(), err_msg=name)


def test_fifteen_percent_by_the_rule_of_80_10_10():
    ids, lengths, candidates, draws = _rows(3000, 60)
    masked = _mask(ids, lengths, candidates, draws)
    used = masked["masked_weights"] > 0
    wanted = np.minimum(np.maximum(np.round(0.15 * lengths), 1), candidates.sum(axis=1))
    np.testing.assert_array_equal(used.sum(axis=1), wanted)
    at = np.take_along_axis(candidates, masked["masked_positions"], axis=1)
    assert at[used].all() and (masked["input_ids"] != ids).sum() <= used.sum()
    shown = np.take_along_axis(masked["input_ids"], masked["masked_positions"], axis=1)[used]
    before = masked["masked_ids"][used]
    np.testing.assert_array_equal(before, np.take_along_axis(ids, masked["masked_positions"], axis=1)[used])
    hidden, kept = (shown == _MASK).mean(), (shown == before).mean()
    # Four standard deviations; a random word is the old one, or [MASK], once in 500.
    for share, expected in ((hidden, 0.8), (kept, 0.1), (1 - hidden - kept, 0.1)):
        assert share == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / used.sum()) + 1e-3)
