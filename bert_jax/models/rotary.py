"""Positions as rotations of queries and keys (Su et al. 2021, section 3.2.2)."""

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.models.layers import places_in_table

# Cosines and sines, float32 `[batch, length, 1, head_size / 2]` each.
Rotation = tuple[jax.Array, jax.Array]


def rotation_of(position_ids: jax.Array, head_size: int, base: float, max_positions: int) -> Rotation:
    """Returns by which angles the vectors at positions are turned: position p's pair i by p / base^(2i / head_size).

    Args:
        position_ids: `[batch, length]`.
        head_size: of queries and keys; even.
        base: the larger, the slower the slowest pair turns.
        max_positions: rotations of positions that there are not are NaN.
    """
    # In float64: an angle of hundreds of radians has few correct digits left in float32.
    frequencies = base ** (-np.arange(0, head_size, 2) / head_size)
    angles = np.arange(max_positions)[:, None] * frequencies
    places = places_in_table(position_ids, max_positions)
    cosines, sines = (jnp.asarray(function(angles), jnp.float32) for function in (np.cos, np.sin))
    return tuple(jnp.take(table, places, axis=0)[:, :, None] for table in (cosines, sines))


def rotate(vectors: jax.Array, rotation: Rotation) -> jax.Array:
    """Turns queries or keys, so that their products depend on differences of positions alone.

    Dimension i makes a pair with dimension i + head_size / 2, as in transformers; the paper pairs neighbours, which is
    the same up to the order of the dimensions.

    Args:
        vectors: `[batch, length, heads, head_size]`.
        rotation: of `rotation_of`, for the same positions.
    """
    cosines, sines = rotation
    first, second = jnp.split(vectors.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cosines - second * sines, second * cosines + first * sines], axis=-1)
    return turned.astype(vectors.dtype)
