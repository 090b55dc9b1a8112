"""Picking the masked positions: the right vectors, and no communication between devices."""

import json
import os
import subprocess
import sys

import jax.numpy as jnp
import numpy as np

from bert_jax.models.layers import gather_positions


def test_gather_positions_against_a_loop():
    random = np.random.default_rng(0)
    hidden = random.normal(size=(3, 7, 4)).astype(np.float32)
    positions = random.integers(0, 7, (3, 5))
    expected = np.stack([[hidden[row, position] for position in positions[row]] for row in range(3)])
    np.testing.assert_array_equal(gather_positions(jnp.asarray(hidden), jnp.asarray(positions)), expected)


_COMPILE = """
import json
import jax, jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from bert_jax.models.layers import gather_positions

mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
rows = NamedSharding(mesh, PartitionSpec("data"))
hidden = jax.ShapeDtypeStruct((8, 16, 32), jnp.float32, sharding=rows)
positions = jax.ShapeDtypeStruct((8, 4), jnp.int32, sharding=rows)

def naive(hidden, positions):
    return hidden[jnp.arange(8)[:, None], positions]

def backward(hidden, positions):
    return jax.grad(lambda hidden: jnp.sum(gather_positions(hidden, positions) ** 2))(hidden)

texts = {}
for function in (gather_positions, backward, naive):
    texts[function.__name__] = jax.jit(function, out_shardings=rows).lower(hidden, positions).compile().as_text()
names = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")
print(json.dumps({function: [name for name in names if name in text] for function, text in texts.items()}))
"""


def test_gathering_on_a_sharded_batch_needs_no_communication(repository_root):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    done = subprocess.run(
        [sys.executable, "-c", _COMPILE], cwd=repository_root, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    collectives = json.loads(done.stdout)
    assert collectives["gather_positions"] == collectives["backward"] == []
    # The obvious indexing communicates: the test would notice.
    assert collectives["naive"]
