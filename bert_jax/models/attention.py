"""Who sees whom, from which distance, and what tokens make of what they see."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bert_jax.config import BertConfig
from bert_jax.models.dropout import dropout
from bert_jax.models.rotary import Rotation, rotate, rotation_of

# Below any score a model produces, and finite, so that a row of padding alone stays free of NaN.
_MASKED_SCORE = -1e30


def attention_mask(segment_ids: jax.Array, positions: jax.Array | None = None) -> jax.Array:
    """Who may see whom: tokens of the same packed pair, and nobody sees padding.

    Args:
        segment_ids: `[batch, length]`; 0 is padding, k the k-th packed pair.
        positions: `[batch, queries]`, those that look; all if None.

    Returns:
        Booleans `[batch, 1, query_length, key_length]`.
    """
    queries = segment_ids if positions is None else jnp.take_along_axis(segment_ids, positions, axis=1)
    same = queries[:, :, None] == segment_ids[:, None, :]
    return (same & (segment_ids > 0)[:, None, :])[:, None]


def attention_weights(query: jax.Array, key: jax.Array, mask: jax.Array) -> jax.Array:
    """Softmax, in float32, of the scaled products of queries and keys (Vaswani et al. 2017, section 3.2.1).

    Args:
        query: `[batch, query_length, heads, kv]`.
        key: `[batch, key_length, heads, kv]`.
        mask: booleans that broadcast to `[batch, heads, query_length, key_length]`.

    Returns:
        Float32 `[batch, heads, query_length, key_length]`. A query that may see nothing sees all keys alike.
    """
    query = query / math.sqrt(query.shape[-1])
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
    return jax.nn.softmax(jnp.where(mask, scores, _MASKED_SCORE), axis=-1)


def attention(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array, rate: float, keys: jax.Array | None
) -> jax.Array:
    """Scaled dot-product attention (Vaswani et al. 2017), with dropout of the weights.

    Args:
        query: `[batch, query_length, heads, kv]`.
        key: `[batch, key_length, heads, kv]`.
        value: `[batch, key_length, heads, kv]`.
        mask: booleans that broadcast to `[batch, heads, query_length, key_length]`.
        rate: dropout of the attention weights.
        keys: `[batch]` dropout keys, or None for no dropout.

    Returns:
        `[batch, query_length, heads, kv]`.
    """
    weights = attention_weights(query, key, mask).astype(value.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", dropout(weights, rate, keys), value)


class View(NamedTuple):
    """What the layers are told beside their inputs, the same in each.

    Attributes:
        mask: of `attention_mask`.
        query_rotation: of the tokens that look; None without rotary positions.
        key_rotation: of the tokens that are looked at, likewise.
    """

    mask: jax.Array
    query_rotation: Rotation | None = None
    key_rotation: Rotation | None = None

    def turn(self, query: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Gives queries and keys `[batch, length, heads, head_size]` their positions."""
        if self.query_rotation is None:
            return query, key
        return rotate(query, self.query_rotation), rotate(key, self.key_rotation)


def view_of(
    config: BertConfig, segment_ids: jax.Array, position_ids: jax.Array, positions: jax.Array | None = None
) -> View:
    """Returns what all layers see of a batch.

    Args:
        config: the architecture.
        segment_ids: `[batch, length]`; 0 is padding, k the k-th packed pair.
        position_ids: `[batch, length]`.
        positions: `[batch, queries]`, the tokens that look; all if None.
    """
    mask = attention_mask(segment_ids, positions)
    if config.position_embedding_type != "rotary":
        return View(mask)
    keys = rotation_of(position_ids, config.head_size, config.rotary_base, config.max_position_embeddings)
    if positions is None:
        return View(mask, keys, keys)
    return View(mask, tuple(jnp.take_along_axis(part, positions[..., None, None], axis=1) for part in keys), keys)
