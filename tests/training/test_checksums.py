"""Checksums: every changed bit is noticed, wherever the array lies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.training.checksums import array_checksum, tree_checksums


@pytest.mark.parametrize("dtype", [np.float32, np.int32, jnp.bfloat16, np.uint8])
def test_a_changed_bit_changes_the_sum(dtype):
    array = np.asarray(np.random.default_rng(0).integers(0, 100, (3, 5, 7)), dtype)
    expected = int(array_checksum(jnp.asarray(array)))
    seen = {expected}
    for byte in range(array.nbytes):
        damaged = bytearray(array.tobytes())
        damaged[byte] ^= 1 << byte % 8
        seen.add(int(array_checksum(jnp.asarray(np.frombuffer(damaged, array.dtype).reshape(array.shape)))))
    assert len(seen) == array.nbytes + 1


def test_places_count():
    array = jnp.arange(6.0)
    values = {int(array_checksum(one)) for one in (array, array[::-1], array.at[0].set(1).at[1].set(0))}
    assert len(values) == 3
    assert int(array_checksum(jnp.zeros(4))) != int(array_checksum(jnp.zeros(5))) != 0


def test_signs_of_zero_and_nan_count():
    assert int(array_checksum(jnp.array([0.0]))) != int(array_checksum(jnp.array([-0.0])))
    nan = jnp.array([jnp.nan])
    assert int(array_checksum(nan)) == int(array_checksum(nan))


def test_a_tree():
    tree = {"a": {"b": jnp.ones((2, 3)), "c": jnp.int32(4)}, "d": [jnp.zeros(2, jnp.bfloat16)]}
    checksums, finite = tree_checksums(tree)
    assert sorted(checksums) == ["a/b", "a/c", "d/0"] and finite
    assert checksums["a/b"] == int(array_checksum(tree["a"]["b"]))
    for bad in (jnp.nan, jnp.inf):
        assert not tree_checksums({**tree, "d": jnp.array([1, bad])})[1]


def test_the_same_however_the_array_is_spread():
    """Over as many devices as there are; on one, this holds trivially, on several it is the sum's order that counts."""
    mesh = jax.make_mesh((jax.device_count(),), ("data",))
    array = jax.random.normal(jax.random.key(0), (8 * jax.device_count(), 3))
    spread = jax.device_put(array, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data")))
    assert tree_checksums([spread]) == tree_checksums([array])
