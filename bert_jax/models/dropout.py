"""Dropout whose masks belong to rows, not to batches.

Every row of the global batch carries a key of its own, so that the masks do not depend on how the batch is cut into
micro-batches, devices or processes.
"""

import jax
import jax.numpy as jnp

# Sixteen random bits decide each element, and make the rate exact to 1/65536. Each 32-bit draw is cut in two: asked for
# 16-bit numbers, JAX computes 32 bits for each and throws half of them away.
_BITS = 16
_RESOLUTION = 1 << _BITS


def row_keys(key: jax.Array, rows: jax.Array) -> jax.Array:
    """Returns one dropout key per row.

    Args:
        key: the key of the step, a scalar of a typed key array.
        rows: `[batch]`, the rows' numbers in the global batch.

    Returns:
        Keys `[batch]`.
    """
    return jax.vmap(jax.random.fold_in, (None, 0))(key, rows)


def fold_in_each(keys: jax.Array | None, data: int | jax.Array) -> jax.Array | None:
    """Derives from each row's key the key of a place (a layer, a sub-layer); None, for no dropout, stays None."""
    return None if keys is None else jax.vmap(jax.random.fold_in, (0, None))(keys, data)


def dropout(inputs: jax.Array, rate: float, keys: jax.Array | None) -> jax.Array:
    """Sets elements to zero with probability `rate` and scales the others to keep the expectation.

    Args:
        inputs: `[batch, ...]`.
        rate: the share to drop, rounded to the nearest 1/65536.
        keys: `[batch]`, one key per row, or None to return the inputs as they are.
    """
    threshold = round(rate * _RESOLUTION)
    if keys is None or threshold == 0:
        return inputs
    *outer, last = inputs.shape[1:]
    words = jax.vmap(lambda key: jax.random.bits(key, (*outer, -(-last // 2)), jnp.uint32))(keys)
    bits = jnp.concatenate([words & (_RESOLUTION - 1), words >> _BITS], axis=-1)[..., :last]
    scale = jnp.asarray(_RESOLUTION / (_RESOLUTION - threshold), inputs.dtype)
    return jnp.where(bits >= threshold, inputs * scale, jnp.zeros((), inputs.dtype))
