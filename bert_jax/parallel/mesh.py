"""Meshes: which devices compute, and how a batch lies on them; sharding.py says how the parameters do."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from bert_jax.errors import UserError
from bert_jax.parallel.mesh_spec import AXES, DEFAULT_MESH, MeshSpec

# A batch is cut over both axes that hold different rows.
BATCH_SPEC = PartitionSpec(("data", "fsdp"))


def make_mesh(
    spec: MeshSpec | None = None, dcn: MeshSpec | None = None, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """Lays devices out as a mesh with the axes data, fsdp and tensor.

    Args:
        spec: the sizes of the whole mesh; all devices on the data axis if None.
        dcn: how much of each axis lies across slices (or nodes), which are connected by the data-center network; the
            rest lies within them, on faster links. If None, the slices lie along the data axis where it divides.
        devices: all by default.

    Raises:
        UserError: the devices, or their slices, are not as many as that.
    """
    devices = list(jax.devices() if devices is None else devices)
    spec = (spec or DEFAULT_MESH).resolve(len(devices))
    num_slices = len({getattr(device, "slice_index", 0) for device in devices})
    if dcn is None and num_slices > 1 and spec.data % num_slices == 0:
        dcn = MeshSpec(data=num_slices)
    dcn = dcn or MeshSpec()
    for axis, size, across in zip(AXES, spec.sizes, dcn.sizes, strict=True):
        if size % across:
            raise UserError(f"--dcn_mesh={dcn}: {axis} is {size} in the whole mesh and does not divide over {across}")
    within = tuple(size // across for size, across in zip(spec.sizes, dcn.sizes, strict=True))
    if dcn.sizes == (1, 1, 1):
        laid_out = _lay_out(within, devices)
    elif num_slices > 1:
        if num_slices != np.prod(dcn.sizes):
            raise UserError(f"--dcn_mesh={dcn} wants {np.prod(dcn.sizes)} slices, and the devices lie in {num_slices}")
        laid_out = mesh_utils.create_hybrid_device_mesh(within, dcn.sizes, devices, allow_split_physical_axes=True)
    else:
        # No slices are known (CPUs): neighbours are those whose numbers are close.
        axes = np.arange(2 * len(AXES)).reshape(2, -1).T.ravel()
        laid_out = np.asarray(devices).reshape(*dcn.sizes, *within).transpose(axes).reshape(spec.sizes)
    # Auto: shardings are propagated by the compiler, not part of the arrays' types.
    return Mesh(laid_out, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _lay_out(sizes: Sequence[int], devices: Sequence[jax.Device]) -> np.ndarray:
    """Returns the devices in the order that suits their links."""
    try:
        return mesh_utils.create_device_mesh(sizes, devices)
    except NotImplementedError:
        # An axis of the mesh wants part of an axis of the torus: its rings are open, and slower.
        return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows spread over the devices of data and fsdp, and the same on all devices of tensor."""
    return NamedSharding(mesh, BATCH_SPEC)


def check_batch(mesh: Mesh, batch_size: int, accumulation_steps: int, name: str) -> None:
    """Raises a UserError unless every micro-batch divides over the devices."""
    devices = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % (devices * accumulation_steps):
        pieces = f"{devices} devices" + (f" times {accumulation_steps} micro-batches" if accumulation_steps > 1 else "")
        raise UserError(f"{name} ({batch_size}) does not divide over {pieces}: make it a multiple of both")


def abstract_batch(mesh: Mesh, shapes: Mapping[str, tuple[tuple[int, ...], Any]]) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a global batch with their layout, for compiling ahead of time."""
    sharding = batch_sharding(mesh)
    return {name: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding) for name, (shape, dtype) in shapes.items()}
