"""Checksums of arrays where they lie: whether what is read back is bit for bit what was saved.

The formats that checkpoints are stored in do not notice a flipped bit in an array. A checksum is a sum modulo 2**32, so
that it depends neither on the order of the additions nor on how an array is spread over devices, and no copy of the
array to the host is needed.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Odd numbers of well spread bits: that of Knuth's multiplicative hash, and those of MurmurHash3's finalizer.
_PLACE_FACTOR, _FIRST_FACTOR, _SECOND_FACTOR = np.uint32(0x9E3779B1), np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35)


def array_checksum(array: jax.Array) -> jax.Array:
    """Returns a uint32 scalar: the sum of the array's words, each scrambled together with its place.

    Each place's scrambling is one to one, so that a change of a single word always changes the sum; other damage goes
    unnoticed once in about 2**32 times.
    """
    words = jax.lax.bitcast_convert_type(array, jnp.dtype(f"uint{8 * array.dtype.itemsize}")).astype(jnp.uint32)
    place = jnp.ones(words.shape, jnp.uint32)
    for axis in range(words.ndim):
        stride = np.uint32(math.prod(words.shape[axis + 1 :]) % 2**32)
        place += jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis) * stride
    mixed = words + place * _PLACE_FACTOR
    mixed = (mixed ^ (mixed >> 16)) * _FIRST_FACTOR
    mixed = (mixed ^ (mixed >> 13)) * _SECOND_FACTOR
    return jnp.sum(mixed ^ (mixed >> 16), dtype=jnp.uint32)


@jax.jit
def _describe(tree: Any) -> tuple[list[jax.Array], jax.Array]:
    leaves = jax.tree.leaves(tree)
    finite = [jnp.all(jnp.isfinite(leaf)) for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return [array_checksum(leaf) for leaf in leaves], jnp.all(jnp.stack([jnp.bool_(True), *finite]))


def tree_checksums(tree: Any) -> tuple[dict[str, int], bool]:
    """Returns the checksum of each leaf by its path, as integers for JSON, and whether all numbers are finite.

    Args:
        tree: a pytree of arrays of 1, 2 or 4 bytes a number.
    """
    paths = [
        jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree_util.tree_leaves_with_path(tree)
    ]
    checksums, finite = jax.device_get(_describe(tree))
    return {path: int(checksum) for path, checksum in zip(paths, checksums, strict=True)}, bool(finite)
