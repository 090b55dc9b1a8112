"""The flags that say on which devices a launcher computes, and how."""

from typing import TYPE_CHECKING

from absl import flags

from bert_jax.errors import UserError
from bert_jax.parallel.mesh_spec import DEFAULT_MESH, MeshSpec, parse_mesh
from launch.host_memory import keep_freed_memory

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


def make_mesh_from_flags(values: flags.FlagValues) -> "Mesh":
    """Lays the devices out as the flags say; imports JAX, which by then must know of the other processes."""
    spec, dcn = parse_mesh_flags(values)
    keep_freed_memory()

    from bert_jax.parallel.mesh import make_mesh

    return make_mesh(spec, dcn)
