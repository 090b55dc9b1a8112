"""The communication of a compiled program: what is sent, how often in a step, and along which axes of the mesh."""

import collections
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from bert_jax.parallel.hlo import Computation, Instruction, Program

ALL_REDUCE, ALL_GATHER, REDUCE_SCATTER = "all-reduce", "all-gather", "reduce-scatter"
ALL_TO_ALL, PERMUTE = "all-to-all", "collective-permute"
_KINDS = (ALL_REDUCE, ALL_GATHER, REDUCE_SCATTER, ALL_TO_ALL, PERMUTE)
# A TPU's reduce-scatter is an all-reduce within a fusion of this name.
_FUSED_REDUCE_SCATTER = "all-reduce-scatter"
# What a TPU exchanges with other slices goes through its host, and the compiled program says so in words of its own.
_BETWEEN_SLICES = re.compile(r'_xla_megascale_transfer_type="(\w+)"')


@dataclasses.dataclass(frozen=True)
class Collective:
    """All collectives of a step that are of one kind and go along the same axes.

    Attributes:
        kind: all-reduce, all-gather, reduce-scatter, all-to-all or collective-permute.
        axes: of the mesh, such as "data" or "data+fsdp"; with a "part of " before them where the groups are smaller,
            and ", between slices" after them where a TPU's host sends.
        group: positions in the mesh, in the order of its devices, that exchange with each other; one of the groups.
        times: how many a step runs.
        bytes: what a step puts in, or for all-gather gets out, on one device, over all these times.
    """

    kind: str
    axes: str
    group: tuple[int, ...]
    times: int
    bytes: int

    @property
    def sent_bytes(self) -> float:
        """What each device sends in a step where the group is a ring (Thakur et al. 2005, section 4)."""
        return self.bytes * share_sent(self.kind, len(self.group))


def share_sent(kind: str, group_size: int) -> float:
    """What a device of a ring sends, as a share of the collective's bytes."""
    if kind == PERMUTE:
        return 1.0
    return (2 if kind == ALL_REDUCE else 1) * (group_size - 1) / group_size


def find_collectives(
    program: Program, mesh_shape: Mapping[str, int], slices: Sequence[int] | None = None
) -> list[Collective]:
    """Returns the collectives that a step runs, those with the most bytes first.

    Args:
        program: compiled for the devices of one mesh.
        mesh_shape: the sizes of the mesh's axes, in order.
        slices: that of each device of the mesh; None if there is but one.
    """
    number = int(np.prod(list(mesh_shape.values())))
    found: dict[tuple[str, str, tuple[int, ...]], list[int]] = collections.defaultdict(lambda: [0, 0])
    for computation, instruction, times in _distinct(program):
        kind = _kind(computation, instruction)
        between_slices = instruction.opcode == "send"
        groups = _same_places(slices) if between_slices else _groups(instruction, number)
        if groups.shape[1] < 2:
            continue
        sent = instruction.shapes[:1] if between_slices else computation.operand_shapes(instruction)
        payload = sum(shape.bytes for shape in sent)
        if kind == ALL_GATHER:
            payload *= groups.shape[1]
        axes = mesh_axes(groups, mesh_shape) + (", between slices" if between_slices else "")
        entry = found[kind, axes, tuple(groups[0].tolist())]
        entry[0] += times
        entry[1] += times * payload
    collectives = [Collective(*key, *counts) for key, counts in found.items()]
    return sorted(collectives, key=lambda collective: -collective.bytes)


def _distinct(program: Program) -> Iterator[tuple[Computation, Instruction, int]]:
    """Yields each collective once, and how often a step runs it.

    A TPU's collective that runs beside other work is written again, with its channel, in the fusion that starts it, in
    each that carries it on, within loops too, and in the one that ends it.
    """
    beside_work: dict[tuple, tuple[Computation, Instruction, int]] = {}
    for computation, times in program.executions():
        for instruction in computation.instructions.values():
            kind = _kind(computation, instruction)
            if kind is None:
                continue
            if computation.name not in program.fused or computation.name.startswith(_FUSED_REDUCE_SCATTER):
                yield computation, instruction, times
                continue
            # Channels alone do not tell them apart: unrelated ones share channel 1.
            channel = re.search(r"channel_id=(\d+)", instruction.attributes)
            key = kind, channel and channel[1], instruction.shapes
            if key not in beside_work or times < beside_work[key][2]:
                beside_work[key] = computation, instruction, times
    yield from beside_work.values()


def mesh_axes(groups: np.ndarray, mesh_shape: Mapping[str, int]) -> str:
    """Names the axes of the mesh along which the members of each group differ.

    Args:
        groups: positions in the mesh `[groups, members]`.
        mesh_shape: the sizes of its axes, in order.
    """
    coordinates = np.stack(np.unravel_index(groups, tuple(mesh_shape.values())))
    differ = (coordinates != coordinates[:, :, :1]).any(axis=(1, 2))
    axes = [axis for axis, differs in zip(mesh_shape, differ, strict=True) if differs]
    whole = groups.shape[1] == np.prod([mesh_shape[axis] for axis in axes])
    return ("" if whole else "part of ") + "+".join(axes)


def _kind(computation: Computation, instruction: Instruction) -> str | None:
    if instruction.opcode == "send":
        between = _BETWEEN_SLICES.search(instruction.attributes)
        named = between and between[1].lower().replace("_", "-")
        return named if named in _KINDS else between and PERMUTE
    kind = instruction.opcode.removesuffix("-start")
    if kind == "ragged-all-to-all":
        kind = ALL_TO_ALL
    if kind == ALL_REDUCE and computation.name.startswith(_FUSED_REDUCE_SCATTER):
        kind = REDUCE_SCATTER
    return kind if kind in _KINDS else None


def _same_places(slices: Sequence[int] | None) -> np.ndarray:
    """Returns `[groups, slices]`: the devices at the same place of every slice."""
    numbers = np.asarray([0] if slices is None else slices)
    return np.stack([np.flatnonzero(numbers == one) for one in np.unique(numbers)], axis=1)


def _groups(instruction: Instruction, number: int) -> np.ndarray:
    """Returns `[groups, members]`; for a permutation, its cycles or chains made pairs of (source, target)."""
    if pairs := re.search(r"source_target_pairs=\{(.*?)\}(?=,|$|\s)(?!,\{)", instruction.attributes):
        return np.array(_braces(pairs[1]))
    attributes = instruction.attributes
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\((.*?)\))? \{([^}]*)\}", attributes):
        return _of_named_axes(named[1], named[2], named[3], number)
    if counted := re.search(r"replica_groups=(\[[0-9,]+\]<=\[[0-9,]+\](?:T\([0-9,]+\))?)", attributes):
        return _counted(counted[1])
    listed = re.search(r"replica_groups=\{((?:\{[0-9,]*\},?)*)\}", attributes)
    groups = _braces(listed[1]) if listed else []
    return np.array(groups) if groups else np.arange(number)[None]


def _braces(text: str) -> list[list[int]]:
    return [_integers(group) for group in re.findall(r"\{([0-9,]+)\}", text) or ([text] if text else [])]


def _integers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def _counted(text: str) -> np.ndarray:
    """Reads [a,b]<=[c,d]T(1,0): the numbers from 0, laid out as [c,d], transposed and laid out as [a,b]."""
    sizes, _, rest = text.partition("<=")
    source, _, order = rest.partition("T")
    numbers = np.arange(np.prod(_integers(source))).reshape(_integers(source))
    return (numbers.transpose(_integers(order)) if order else numbers).reshape(_integers(sizes))


def _of_named_axes(sizes: str, devices: str | None, grouped: str, number: int) -> np.ndarray:
    """Reads groups given by the axes of a mesh of the compiler's own.

    Args:
        sizes: such as 'axis_0'=4,'axis_1'=32.
        devices: which device lies where, such as [32,4]T(1,0), or a list; from 0 if None.
        grouped: the axes along which a group lies, such as 'axis_0','axis_1':(1)2, whose last is a part of an axis: of
            2 neighbours, with 1 between them.
        number: of devices.
    """
    if devices is None:
        laid_out = np.arange(number)
    elif devices.startswith("["):
        source, _, order = devices.partition("T")
        laid_out = np.arange(number).reshape(_integers(source))
        laid_out = laid_out.transpose(_integers(order)) if order else laid_out
    else:
        laid_out = np.array(_integers(devices))
    axes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", sizes)}
    wanted = re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", grouped)
    # Every axis is cut in three, of which a part of an axis is the middle one.
    cuts = {name: (1, size, 1) for name, size in axes.items()}
    for name, before, size in wanted:
        if size:
            cuts[name] = int(before), int(size), axes[name] // int(before) // int(size)
    laid_out = laid_out.reshape([size for name in axes for size in cuts[name]])
    members = [3 * list(axes).index(name) + 1 for name, _, _ in wanted]
    others = [axis for axis in range(laid_out.ndim) if axis not in members]
    size = int(np.prod([laid_out.shape[axis] for axis in members]))
    return laid_out.transpose(*others, *members).reshape(-1, size)


def summarize(collectives: Sequence[Collective]) -> dict[tuple[str, str], tuple[int, int, float]]:
    """Totals by kind and axes: how often, bytes, and bytes that each device sends."""
    totals: dict[tuple[str, str], tuple[int, int, float]] = {}
    for one in collectives:
        times, size, sent = totals.get((one.kind, one.axes), (0, 0, 0.0))
        totals[one.kind, one.axes] = times + one.times, size + one.bytes, sent + one.sent_bytes
    return totals
