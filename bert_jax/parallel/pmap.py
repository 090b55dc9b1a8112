"""The second partitioner: plain data parallelism, one program for each device with its own rows, and explicit sums.

It is what `jax.pmap` does, and what `jax.pmap` is built of today: jit of shard_map. Used directly, shard_map takes and
returns arrays of all processes, so that the state lies as jit has it, on a mesh of data alone, and the checkpoints of
either partitioner continue under the other.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, PartitionSpec

from bert_jax.errors import UserError
from bert_jax.models.activation_axes import laying_out

# The axis over which a step sums; see `make_train_step`.
AXIS = "data"


def data_parallel(mesh: Mesh, train_step: Callable[[Any, Any], tuple[Any, Any]]) -> Callable[[Any, Any], Any]:
    """Runs a train step on every device with its own rows.

    Args:
        mesh: with devices along data only.
        train_step: (state, rows of a device) -> (state, metrics), the same on all devices, since it sums over AXIS.

    Returns:
        (state, global batch) -> (state, metrics), for `compile_train_step`.

    Raises:
        UserError: the mesh has other axes.
    """
    if mesh.size != mesh.shape[AXIS]:
        raise UserError("--partitioner=pmap is data parallel alone: leave --mesh out, or use --partitioner=jit")

    def on_each_device(state: Any, batch: Any) -> tuple[Any, Any]:
        # What is traced in here is the program of one device: there is nothing to lay out.
        with laying_out(None):
            return train_step(state, batch)

    # Unchecked, gradients are a device's own until the step sums them; checked, JAX would put in sums of its own.
    return jax.shard_map(
        on_each_device,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec(AXIS)),
        out_specs=PartitionSpec(),
        check_vma=False,
    )
