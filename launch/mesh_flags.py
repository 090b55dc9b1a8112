"""The flags that say on which devices a launcher computes, and how."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from absl import flags

from bert_jax.errors import UserError
from bert_jax.parallel.mesh_spec import DEFAULT_MESH, MeshSpec, check_heads, parse_mesh
from launch.host_memory import keep_freed_memory
from launch.process_flags import is_one_of_several

if TYPE_CHECKING:
    from jax.sharding import Mesh

JIT, PMAP = "jit", "pmap"
# The largest --batch_size: more is a slip of the hand.
MOST_ROWS = 1 << 20


def define_mesh_flags(values: flags.FlagValues) -> None:
    """Adds --mesh and --dcn_mesh."""
    here = {"flag_values": values}
    flags.DEFINE_string(
        "mesh",
        str(DEFAULT_MESH),
        "Devices along each axis, such as data:-1,fsdp:4,tensor:2: data copies the model, fsdp cuts its parameters and"
        " the optimizer's state, tensor its heads, feed-forward size and vocabulary; -1 is what is left.",
        **here,
    )
    flags.DEFINE_string(
        "dcn_mesh",
        None,
        "How much of --mesh lies across slices or nodes, such as data:2; by default the slices lie along data.",
        **here,
    )


def define_partitioner_flag(values: flags.FlagValues) -> None:
    """Adds --partitioner, for launchers that train."""
    flags.DEFINE_enum(
        "partitioner",
        JIT,
        (JIT, PMAP),
        "How a step is spread over the devices: jit, where the compiler cuts it as --mesh says; or pmap, plain data"
        " parallelism with explicit sums.",
        flag_values=values,
    )


def parse_mesh_flags(values: flags.FlagValues) -> tuple[MeshSpec, MeshSpec | None]:
    """Reads the flags without looking at the devices; a UserError if they make no sense."""
    spec = parse_mesh(values.mesh)
    dcn = parse_mesh(values.dcn_mesh, "dcn_mesh") if values.dcn_mesh else None
    if "partitioner" in values and values.partitioner == PMAP and (spec.fsdp, spec.tensor) != (1, 1):
        raise UserError(f"--partitioner=pmap is data parallel alone, and --mesh={spec} has more: use --partitioner=jit")
    return spec, dcn


def check_layout(values: flags.FlagValues, num_attention_heads: int, batches: Mapping[str, tuple[int, int]]) -> None:
    """Raises a UserError if --mesh does not fit; to be called before data are read, and the run's folder is made.

    One of several processes knows the devices only once it has met the others: it finds out here what needs none.

    Args:
        values: the flags.
        num_attention_heads: of the model.
        batches: see `make_checked_mesh`.
    """
    spec, _ = parse_mesh_flags(values)
    if spec.tensor > 0:
        check_heads(spec.tensor, num_attention_heads)
    if not is_one_of_several(values):
        make_checked_mesh(values, num_attention_heads, batches)


def make_checked_mesh(
    values: flags.FlagValues, num_attention_heads: int, batches: Mapping[str, tuple[int, int]]
) -> "Mesh":
    """Lays the devices out as the flags say, for a model and the batches that it is trained on; imports JAX.

    Args:
        values: the flags.
        num_attention_heads: of the model.
        batches: the rows of a step and its micro-batches, by the name that users know the rows by.

    Raises:
        UserError: devices, heads or rows do not divide.
    """
    mesh = make_mesh_from_flags(values)

    from bert_jax.parallel.mesh import check_batch

    check_heads(mesh.shape["tensor"], num_attention_heads)
    for name, (batch_size, accumulation_steps) in batches.items():
        check_batch(mesh, batch_size, accumulation_steps, name)
    return mesh


def make_mesh_from_flags(values: flags.FlagValues) -> "Mesh":
    """Lays the devices out as the flags say; imports JAX, which by then must know of the other processes."""
    spec, dcn = parse_mesh_flags(values)
    keep_freed_memory()

    from bert_jax.parallel.mesh import make_mesh

    return make_mesh(spec, dcn)
