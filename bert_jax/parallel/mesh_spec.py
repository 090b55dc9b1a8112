"""What --mesh and --dcn_mesh say: how many devices lie along each axis of a mesh. Importable without JAX."""

import dataclasses
import math

from bert_jax.errors import UserError

# From the outermost axis, which communicates least, to the innermost, which communicates in every layer.
AXES = ("data", "fsdp", "tensor")
_REST = -1


@dataclasses.dataclass(frozen=True)
class MeshSpec:
    """The sizes of a mesh's axes; one may be -1, for what the others leave.

    Attributes:
        data: copies of the model, each with rows of its own.
        fsdp: devices that share one copy's parameters, gradients and optimizer state, each with rows of its own
            (ZeRO-3, Rajbhandari et al. 2020, section 5; fully sharded data parallelism).
        tensor: devices that share the heads, the feed-forward network and the vocabulary of the same rows (Shoeybi et
            al. 2019, section 3).
    """

    data: int = 1
    fsdp: int = 1
    tensor: int = 1

    @property
    def sizes(self) -> tuple[int, int, int]:
        """The sizes in the order of AXES."""
        return self.data, self.fsdp, self.tensor

    def __str__(self) -> str:
        """As it is written in a flag, without the axes of size 1."""
        named = [f"{axis}:{size}" for axis, size in zip(AXES, self.sizes, strict=True) if size != 1]
        return ",".join(named or ["data:1"])

    def resolve(self, num_devices: int) -> "MeshSpec":
        """Returns the mesh of so many devices, without a -1.

        Raises:
            UserError: it has another number of devices.
        """
        given = math.prod(size for size in self.sizes if size != _REST)
        if _REST in self.sizes and num_devices % given == 0:
            return MeshSpec(*(num_devices // given if size == _REST else size for size in self.sizes))
        if given == num_devices:
            return self
        wanted = f"a multiple of {given}" if _REST in self.sizes else str(given)
        raise UserError(
            f"--mesh={self} needs {wanted} devices, and there are {num_devices}: change a size, or let one be -1"
        )


# All devices on the data axis: plain data parallelism.
DEFAULT_MESH = MeshSpec(data=_REST)


def parse_mesh(text: str, flag: str = "mesh") -> MeshSpec:
    """Reads AXIS:SIZE,AXIS:SIZE; axes that are not named have size 1.

    Args:
        text: such as "data:-1,fsdp:4,tensor:2".
        flag: where it comes from, for messages; only in `mesh` may a size be -1.

    Raises:
        UserError: it cannot be read.
    """
    may_be_rest = flag == "mesh"
    example = "data:-1,fsdp:4,tensor:2" if may_be_rest else "data:2"
    sizes: dict[str, int] = {}
    for part in text.split(","):
        axis, _, size = (piece.strip() for piece in part.partition(":"))
        if axis not in AXES:
            raise UserError(f"--{flag}={text}: {axis!r} is not an axis; write {', '.join(AXES)}, as in {example}")
        if axis in sizes:
            raise UserError(f"--{flag}={text}: {axis} is there twice; name each axis once, as in {example}")
        is_count = size.isdecimal() and len(size) < 10 and int(size) > 0
        if not is_count and not (may_be_rest and size == str(_REST)):
            wanted = "a positive number, or -1 for what is left" if may_be_rest else "a positive number"
            raise UserError(f"--{flag}={text}: the size of {axis} must be {wanted}, not {size!r}")
        sizes[axis] = int(size)
    if list(sizes.values()).count(_REST) > 1:
        raise UserError(f"--{flag}={text}: only one axis can be -1, what the others leave")
    return MeshSpec(**sizes)


def check_heads(tensor: int, num_attention_heads: int) -> None:
    """Raises a UserError unless every device of the tensor axis gets the same number of attention heads."""
    if num_attention_heads % tensor:
        possible = [str(size) for size in range(1, num_attention_heads + 1) if num_attention_heads % size == 0]
        raise UserError(
            f"--mesh: tensor is {tensor}, and the model's {num_attention_heads} attention heads do not divide over it:"
            f" use {', '.join(possible[:-1])} or {possible[-1]}"
            if len(possible) > 1
            else f"--mesh: tensor is {tensor}, and the model has one attention head: use 1"
        )
