"""Meshes: which devices compute, and how a batch and the parameters lie on them."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from bert_jax.errors import UserError

AXES = ("data", "fsdp", "tensor")
# A batch is cut over both axes that hold different rows.
BATCH_SPEC = PartitionSpec(("data", "fsdp"))


def make_mesh() -> Mesh:
    """Returns a mesh of all devices, all of them on the data axis: plain data parallelism."""
    # Auto: shardings are propagated by the compiler, not part of the arrays' types.
    return jax.make_mesh((jax.device_count(), 1, 1), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows spread over the devices."""
    return NamedSharding(mesh, BATCH_SPEC)


def check_batch(mesh: Mesh, batch_size: int, accumulation_steps: int, name: str) -> None:
    """Raises a UserError unless every micro-batch divides over the devices."""
    devices = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % (devices * accumulation_steps):
        pieces = f"{devices} devices" + (f" times {accumulation_steps} micro-batches" if accumulation_steps > 1 else "")
        raise UserError(f"{name} ({batch_size}) does not divide over {pieces}: make it a multiple of both")


def put_batch(mesh: Mesh, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """Moves this process's rows of a batch to its devices; returns global arrays."""
    sharding = batch_sharding(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}


def abstract_batch(mesh: Mesh, shapes: Mapping[str, tuple[tuple[int, ...], Any]]) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a global batch with their layout, for compiling ahead of time."""
    sharding = batch_sharding(mesh)
    return {name: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding) for name, (shape, dtype) in shapes.items()}
