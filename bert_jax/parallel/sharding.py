"""How the train state lies on a mesh: by the names of the parameters' axes, and a short table of rules.

On a mesh of data alone the table has nothing to cut, and everything is replicated; with fsdp each parameter, its
gradient and its moments are cut along the hidden size (ZeRO-3); with tensor along heads, feed-forward size and
vocabulary; with both, along two axes.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bert_jax.models.activation_axes import laying_out
from bert_jax.parallel.mesh import BATCH_SPEC

# Which axis of the mesh cuts which axis of a parameter. Others (layers, kv) are never cut: a scan runs over the layers,
# and a head is computed in one place.
RULES = {"vocab": "tensor", "heads": "tensor", "mlp": "tensor", "embed": "fsdp"}
# Which axes of the mesh cut which axis of an activation.
ACTIVATION_RULES = {"batch": BATCH_SPEC[0], "vocab": "tensor", "heads": "tensor", "mlp": "tensor"}

Axes = tuple[str | None, ...]


def rules_for(mesh: Mesh) -> dict[str, str]:
    """Returns the rules that this mesh has devices for."""
    return {name: axis for name, axis in RULES.items() if mesh.shape[axis] > 1}


def _partition(mesh: Mesh, axes: Axes, shape: tuple[int, ...]) -> tuple[PartitionSpec, list[str]]:
    """Returns how an array is cut, and for each axis that is not, although a rule names it, why."""
    rules = rules_for(mesh)
    spec: list[str | None] = []
    exceptions = []
    for name, size in zip(axes, shape, strict=True):
        axis = rules.get(name)
        if axis in spec and axis is not None:
            exceptions.append(f"{name}: {axis} already cuts another of its axes")
            axis = None
        elif axis is not None and size % mesh.shape[axis]:
            exceptions.append(f"{name}: {size} does not divide over {axis}:{mesh.shape[axis]}")
            axis = None
        spec.append(axis)
    return PartitionSpec(*spec), exceptions


def _is_axes(node: Any) -> bool:
    return isinstance(node, tuple)


def param_shardings(mesh: Mesh, logical_axes: Any, abstract_params: Any) -> Any:
    """Returns a tree of NamedShardings like the parameters.

    Args:
        mesh: where they go.
        logical_axes: for each parameter the names of its axes, as `Task.logical_axes` returns them.
        abstract_params: shapes.
    """

    def sharding(axes: Axes, leaf: Any) -> NamedSharding:
        return NamedSharding(mesh, _partition(mesh, axes, leaf.shape)[0])

    return jax.tree.map(sharding, logical_axes, abstract_params, is_leaf=_is_axes)


def state_shardings(mesh: Mesh, logical_axes: Any, abstract_state: Any) -> Any:
    """Returns a tree of NamedShardings like the train state.

    What the optimizer keeps for a parameter, or some of its layers, lies where the parameter does; all else, such as
    counts, is replicated.

    Args:
        mesh: where it goes.
        logical_axes: see `param_shardings`.
        abstract_state: a TrainState of shapes.
    """
    params = param_shardings(mesh, logical_axes, abstract_state.params)
    axes = dict(jax.tree_util.tree_leaves_with_path(logical_axes, is_leaf=_is_axes))

    def sharding(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        # Moments are trees like the parameters, or parts of them, somewhere in the optimizer's state: the end of their
        # path is the parameter's.
        for start in range(len(path)):
            of_parameter = axes.get(path[start:], ())
            if len(of_parameter) == leaf.ndim > 0:
                return NamedSharding(mesh, _partition(mesh, of_parameter, leaf.shape)[0])
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree_util.tree_map_with_path(sharding, abstract_state)._replace(params=params)


def activations_like(abstract_batch: Any) -> contextlib.AbstractContextManager[None]:
    """Keeps the activations of models that are traced in here cut as the batch is, and over tensor."""
    mesh = getattr(jax.tree.leaves(abstract_batch)[0].sharding, "mesh", None)
    if mesh is None:
        return laying_out(None)

    def layout(activation: jax.Array, axes: Axes) -> jax.Array:
        spec = PartitionSpec(*map(ACTIVATION_RULES.get, axes))
        return jax.lax.with_sharding_constraint(activation, NamedSharding(mesh, spec))

    return laying_out(layout)


def with_shardings(abstract: Any, shardings: Any) -> Any:
    """Returns the shapes with their layout, for compiling ahead of time and for restoring."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), abstract, shardings
    )


def bytes_per_device(abstract: Any) -> int:
    """The bytes that each device holds of arrays with these shapes and shardings; without one, an array is whole."""
    return sum(_local_bytes(leaf) for leaf in jax.tree.leaves(abstract))


def _local_bytes(leaf: Any) -> int:
    sharding = getattr(leaf, "sharding", None)
    return math.prod(leaf.shape if sharding is None else sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize


def describe(mesh: Mesh, logical_axes: Any, abstract_params: Any) -> list[str]:
    """Says how the parameters lie on the mesh, and what is not cut although a rule names it, and why."""
    sizes = ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items() if size > 1) or "one device"
    placed = with_shardings(abstract_params, param_shardings(mesh, logical_axes, abstract_params))
    total = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(abstract_params))
    rules = rules_for(mesh)
    lines = [f"mesh: {sizes}; {bytes_per_device(placed) / 1e6:.1f} of {total / 1e6:.1f} MB of parameters a device"]
    for axis in dict.fromkeys(rules.values()):
        names = ", ".join(name for name in rules if rules[name] == axis)
        cut = sum(axis in leaf.sharding.spec for leaf in jax.tree.leaves(placed))
        lines.append(f"  {axis} cuts {names}: {cut} of {len(jax.tree.leaves(placed))} tensors")
    lines += [
        f"  not cut: {path} along {reason}"
        for path, leaf, axes in _leaves(abstract_params, logical_axes)
        for reason in _partition(mesh, axes, leaf.shape)[1]
    ]
    return lines


def _leaves(abstract_params: Mapping[str, Any], logical_axes: Any) -> Iterator[tuple[str, Any, Axes]]:
    axes = jax.tree.leaves(logical_axes, is_leaf=_is_axes)
    for (path, leaf), names in zip(jax.tree_util.tree_leaves_with_path(abstract_params), axes, strict=True):
        yield jax.tree_util.keystr(path, simple=True, separator="/"), leaf, names
