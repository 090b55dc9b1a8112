"""Which tokens are hidden from the model, and what stands in their place (Devlin et al. 2018, section 3.1).

All graph ops over a whole batch. The draws of a pair depend on (seed, epoch, pair id) alone, so that neither packing
nor the batch's size, the number of hosts or an interruption changes them.
"""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from bert_jax.data.masking_recipe import Masking


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """What masking needs to know of a tokenizer.

    Attributes:
        size: number of word pieces; random replacements are drawn from all of them, as in the original.
        mask_id: the id of [MASK].
        special_ids: ids that are never masked.
        starts_word: `[size]` booleans; whether the piece begins a word. Used by whole-word masking only.
    """

    size: int
    mask_id: int
    special_ids: tuple[int, ...]
    starts_word: np.ndarray


def pair_draws(masking: Masking, seed: int, epochs: tf.Tensor, pair_ids: tf.Tensor, length: int) -> tf.Tensor:
    """Draws three uniform numbers for each token of each pair.

    Args:
        masking: with static masking every epoch draws as epoch 0 does.
        seed: of the run.
        epochs: int64 `[pairs]`.
        pair_ids: int64 `[pairs]`.
        length: number of tokens to draw for; a token's draws do not depend on it.

    Returns:
        float32 `[pairs, length, 3]`.
    """
    if masking.static:
        epochs = tf.zeros_like(epochs)

    def draw(epoch_and_pair: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        epoch, pair_id = epoch_and_pair
        key = tf.random.fold_in(tf.stack([tf.constant(seed, tf.int64), epoch]), pair_id)
        return tf.random.stateless_uniform([length, 3], key, alg="philox")

    return tf.map_fn(draw, (epochs, pair_ids), fn_output_signature=tf.TensorSpec([length, 3], tf.float32))


def choose_tokens(
    scores: tf.Tensor, candidates: tf.Tensor, pair_index: tf.Tensor, predictions: tf.Tensor, max_pairs: int
) -> tf.Tensor:
    """Chooses in each pair the candidates with the lowest scores.

    Args:
        scores: float32 `[batch, length]` in [0, 1).
        candidates: booleans `[batch, length]`, the tokens that may be chosen.
        pair_index: int32 `[batch, length]`, which pair of the row a token belongs to, from 0.
        predictions: int32 `[batch, max_pairs]`, how many to choose.
        max_pairs: pairs per row at most.

    Returns:
        Booleans `[batch, length]`.
    """
    # Order the row by pair, then by score; what may not be chosen goes last. A token's rank within its pair is its
    # place in that order less the number of candidates in earlier pairs.
    order = tf.argsort(_sort_key(scores, candidates, pair_index, max_pairs), axis=1, stable=True)
    rank = tf.argsort(order, axis=1)
    membership = tf.one_hot(tf.where(candidates, pair_index, -1), max_pairs, dtype=tf.int32)
    before = tf.cumsum(tf.reduce_sum(membership, axis=1), axis=1, exclusive=True)
    limit = tf.gather(before + predictions, pair_index, batch_dims=1)
    return candidates & (rank < limit) & (rank >= tf.gather(before, pair_index, batch_dims=1))


def choose_words(
    scores: tf.Tensor,
    candidates: tf.Tensor,
    begins: tf.Tensor,
    pair_index: tf.Tensor,
    predictions: tf.Tensor,
    max_pairs: int,
) -> tf.Tensor:
    """Chooses whole words: in random order, each that still fits into the pair's number of predictions.

    Follows the whole-word masking of the original repository (2019): a word with more pieces than are left is passed
    over.

    Args:
        scores: float32 `[batch, length]`; a word is ordered by the score of its first piece.
        candidates: booleans `[batch, length]`.
        begins: booleans `[batch, length]`, the token begins a word.
        pair_index: int32 `[batch, length]`.
        predictions: int32 `[batch, max_pairs]`.
        max_pairs: pairs per row at most.

    Returns:
        Booleans `[batch, length]`.
    """
    length = tf.shape(scores)[1]
    positions = tf.broadcast_to(tf.range(length), tf.shape(scores))
    # The first candidate after something that cannot be masked begins a word too, whatever piece it is.
    begins = candidates & (begins | ~tf.pad(candidates, [[0, 0], [1, 0]])[:, :-1])
    word = tf.where(candidates, tf.cumsum(tf.cast(begins, tf.int32), axis=1), 0)
    # Words by number: how many pieces each has, and where its first piece is. Word 0 is what may not be chosen.
    batch_size = tf.shape(scores)[0]
    flat = tf.reshape(word + tf.range(batch_size)[:, None] * (length + 1), [-1])

    def by_word(values: tf.Tensor) -> tf.Tensor:
        sums = tf.math.unsorted_segment_sum(tf.reshape(values, [-1]), flat, batch_size * (length + 1))
        return tf.reshape(sums, [batch_size, length + 1])

    sizes = by_word(tf.cast(candidates, tf.int32))
    starts = by_word(tf.where(begins, positions, 0))
    word_scores = tf.gather(scores, tf.gather(starts, word, batch_dims=1), batch_dims=1)
    order = tf.argsort(_sort_key(word_scores, candidates, pair_index, max_pairs), axis=1, stable=True)

    def take(state: tuple[tf.Tensor, tf.Tensor], place: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        left, taking = state
        token = order[:, place][:, None]
        pair = tf.gather(pair_index, token, batch_dims=1)
        size = tf.gather(sizes, tf.gather(word, token, batch_dims=1), batch_dims=1)[:, 0]
        fits = size <= tf.gather(left, pair, batch_dims=1)[:, 0]
        begun = tf.gather(begins, token, batch_dims=1)[:, 0]
        candidate = tf.gather(candidates, token, batch_dims=1)[:, 0]
        taking = tf.where(begun, fits, taking) & candidate
        spent = tf.one_hot(pair[:, 0], max_pairs, dtype=tf.int32) * tf.where(begun & taking, size, 0)[:, None]
        return left - spent, taking

    taken = tf.scan(take, tf.range(length), (predictions, tf.zeros_like(candidates[:, 0])))[1]
    return tf.gather(tf.transpose(taken), tf.argsort(order, axis=1), batch_dims=1)


def _sort_key(scores: tf.Tensor, candidates: tf.Tensor, pair_index: tf.Tensor, max_pairs: int) -> tf.Tensor:
    # In float64 pair + score keeps every bit of the score.
    key = tf.cast(pair_index, tf.float64) + tf.cast(scores, tf.float64)
    return tf.where(candidates, key, tf.constant(max_pairs, tf.float64))


def mask_batch(
    masking: Masking,
    vocabulary: Vocabulary,
    input_ids: tf.Tensor,
    pair_index: tf.Tensor,
    draws: tf.Tensor,
    pair_lengths: tf.Tensor,
    candidates: tf.Tensor,
    num_predictions: int,
) -> dict[str, tf.Tensor]:
    """Hides tokens of a batch.

    Args:
        masking: the recipe.
        vocabulary: of the tokenizer that made the ids.
        input_ids: int32 `[batch, length]`.
        pair_index: int32 `[batch, length]`, from 0.
        draws: float32 `[batch, length, 3]`: the score, the replacement's kind, the random word.
        pair_lengths: int32 `[batch, max_pairs]`, special tokens included; 0 where the row has no such pair.
        candidates: booleans `[batch, length]`, tokens that are not [CLS], [SEP] or padding.
        num_predictions: width of the predictions' axis.

    Returns:
        input_ids with tokens replaced, masked_positions, masked_ids and masked_weights `[batch, predictions]`.
    """
    for special in vocabulary.special_ids:
        candidates &= input_ids != special
    wanted = tf.cast(tf.round(masking.masked_lm_prob * tf.cast(pair_lengths, tf.float32)), tf.int32)
    length = input_ids.shape[1]
    most = masking.max_predictions_per_pair or math.ceil(masking.masked_lm_prob * length)
    predictions = tf.where(pair_lengths > 0, tf.clip_by_value(wanted, 1, most), 0)
    max_pairs = pair_lengths.shape[1]
    if masking.whole_word:
        begins = tf.gather(tf.constant(vocabulary.starts_word), input_ids)
        chosen = choose_words(draws[:, :, 0], candidates, begins, pair_index, predictions, max_pairs)
    else:
        chosen = choose_tokens(draws[:, :, 0], candidates, pair_index, predictions, max_pairs)

    random_ids = tf.cast(draws[:, :, 2] * vocabulary.size, tf.int32)
    kind = draws[:, :, 1]
    kept = masking.mask_share + masking.keep_share
    replaced = tf.where(kind < masking.mask_share, vocabulary.mask_id, tf.where(kind < kept, input_ids, random_ids))

    # Chosen positions first, each group in order: a stable sort of the flags.
    positions = tf.argsort(tf.cast(~chosen, tf.int32), axis=1, stable=True)[:, :num_predictions]
    weights = tf.gather(tf.cast(chosen, tf.float32), positions, batch_dims=1)
    filled = tf.cast(weights, tf.int32)
    return {
        "input_ids": tf.where(chosen, replaced, input_ids),
        "masked_positions": positions * filled,
        "masked_ids": tf.gather(input_ids, positions, batch_dims=1) * filled,
        "masked_weights": weights,
    }
