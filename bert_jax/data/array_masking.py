"""The masking of pre-training as published, on NumPy arrays: for batches that are made without TensorFlow.

The same rule as `data.masking`, which also masks packed rows and whole words; a test holds them together.
"""

import numpy as np

from bert_jax.data.masking_recipe import Masking, max_predictions_per_row

_PUBLISHED = Masking()


def num_predictions(length: int) -> int:
    """Returns the width of the predictions' axis for rows of one text or pair, of so many tokens."""
    return max_predictions_per_row(_PUBLISHED, length, 1)


def mask_rows(
    input_ids: np.ndarray,
    lengths: np.ndarray,
    candidates: np.ndarray,
    draws: np.ndarray,
    *,
    mask_id: int,
    vocab_size: int,
) -> dict[str, np.ndarray]:
    """Hides 15% of each row's tokens: 80% of them become [MASK], 10% a random word, 10% stay (Devlin et al. 2018).

    Args:
        input_ids: int32 `[batch, length]`.
        lengths: `[batch]`, tokens of each row, [CLS] and [SEP] included: 15% of them are chosen, and at least one.
        candidates: booleans `[batch, length]`, the tokens that may be chosen.
        draws: float32 in [0, 1) `[batch, length, 3]`: the score (the lowest are chosen), what becomes of the token, the
            random word.
        mask_id: of [MASK].
        vocab_size: random words are drawn from all of them.

    Returns:
        input_ids with tokens replaced; masked_positions and masked_ids int32, masked_weights float32, all
        `[batch, predictions]`, with weight 0 where fewer are masked.
    """
    most = num_predictions(input_ids.shape[1])
    wanted = np.clip(np.round(np.float32(_PUBLISHED.masked_lm_prob) * lengths.astype(np.float32)), 1, most)
    rank = np.argsort(np.argsort(np.where(candidates, draws[..., 0], 2), axis=1, kind="stable"), axis=1)
    chosen = candidates & (rank < wanted[:, None])
    kind, kept = draws[..., 1], _PUBLISHED.mask_share + _PUBLISHED.keep_share
    random_ids = (draws[..., 2] * np.float32(vocab_size)).astype(np.int32)
    replaced = np.where(kind < _PUBLISHED.mask_share, mask_id, np.where(kind < kept, input_ids, random_ids))
    # Chosen positions first, in order.
    positions = np.argsort(~chosen, axis=1, kind="stable")[:, :most]
    is_used = np.take_along_axis(chosen, positions, axis=1)
    return {
        "input_ids": np.where(chosen, replaced, input_ids).astype(np.int32),
        "masked_positions": np.where(is_used, positions, 0).astype(np.int32),
        "masked_ids": np.where(is_used, np.take_along_axis(input_ids, positions, axis=1), 0).astype(np.int32),
        "masked_weights": is_used.astype(np.float32),
    }
