"""What a compiled program moves to and from a device's main memory.

The compiler's own count ("bytes accessed") has the body of every loop once, and counts what stays in a core's memory.
Here each instruction reads its operands and writes its result as often as a step runs it, as far as they lie in the
main memory. What a fusion computes in between is not moved; of an operand that it only slices, the slices are read, and
of a result that it updates in place, the update is written.
"""

import math
from collections.abc import Iterable, Sequence

from bert_jax.parallel.hlo import Computation, Instruction, Program, Shape

# They move nothing, or what they move is counted where it begins, or within the computation that they call.
_FREE = (
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "opt-barrier", "after-all"),
    *("while", "conditional", "call", "async-start", "async-update", "partition-id", "replica-id"),
)
_SLICES = ("slice", "dynamic-slice", "gather")
_UPDATE = "dynamic-update-slice"
# Of their operand they need what is used of their result.
_ELEMENTWISE = ("bitcast", "convert", "copy", "tuple")


def memory_bytes(program: Program) -> int:
    """Returns the bytes that a step moves to and from the main memory of one device."""
    return sum(
        times * instruction_bytes(program, computation, instruction)
        for computation, times in program.executions()
        if computation.name not in program.fused
        for instruction in computation.instructions.values()
    )


def instruction_bytes(program: Program, computation: Computation, instruction: Instruction) -> int:
    """Returns what one instruction outside fusions moves when it runs once."""
    opcode = instruction.opcode
    # A call without arguments reserves memory.
    reserves = opcode == "custom-call" and not instruction.operands
    if opcode in _FREE or opcode.endswith("-done") or reserves:
        return 0
    if opcode == "slice-start":
        # Its result is (what it slices, the slice, a context).
        source, target = instruction.shapes[:2]
        return target.bytes * ((source.space == 0) + (target.space == 0))
    if opcode.endswith("-start"):
        # Its result names both what it reads and what it writes.
        return _in_memory(instruction.shapes)
    if opcode == "fusion":
        return _fusion_bytes(program, instruction)
    if opcode in _SLICES:
        return 2 * _in_memory(instruction.shapes)
    if opcode == _UPDATE:
        return 2 * _in_memory(computation.operand_shapes(instruction)[1:2])
    return _in_memory(computation.operand_shapes(instruction)) + _in_memory(instruction.shapes)


def _fusion_bytes(program: Program, fusion: Instruction) -> int:
    called = program.called(fusion)
    root = called.instructions[called.root]
    # One array a name; some operations, such as a sum of two arrays side by side, have several results themselves.
    results = root.operands if root.opcode == "tuple" else (root.name,) * len(fusion.shapes)
    read = (
        _in_memory(parameter.shapes) * _elements_read(program, called, parameter.name) / _number(parameter)
        for parameter in called.parameters()
        if _in_memory(parameter.shapes)
    )
    written = (
        _in_memory([shape]) * _share_written(program, called, result)
        for shape, result in zip(fusion.shapes, results, strict=True)
        if _in_memory([shape])
    )
    return round(sum(read) + sum(written))


def _elements_read(
    program: Program, computation: Computation, name: str, outer: Sequence[tuple[Computation, str]] = ()
) -> int:
    """How many elements of one of its values a fused computation uses.

    Args:
        program: all of it.
        computation: fused.
        name: of the value.
        outer: the fusions within which this one lies, from the outside in: who calls, and the result's name there.
    """
    whole = _number(computation.instructions[name])
    if name == computation.root:
        return min(whole, _elements_read(program, *outer[-1], outer[:-1])) if outer else whole
    read = 0
    for user in computation.instructions.values():
        if name not in user.operands:
            continue
        if user.opcode in _SLICES and user.operands[0] == name:
            read += _number(user)
        elif user.opcode in _ELEMENTWISE:
            read += _elements_read(program, computation, user.name, outer)
        elif user.opcode == "fusion":
            called, within = program.called(user), (*outer, (computation, user.name))
            read += sum(
                _elements_read(program, called, parameter.name, within)
                for parameter in called.parameters()
                if user.operands[int(parameter.attributes)] == name
            )
        elif user.opcode != _UPDATE or user.operands[0] != name:
            return whole
    return min(whole, read)


def _share_written(program: Program, computation: Computation, name: str) -> float:
    """The share of a value's elements that a fused computation computes, and does not find in place."""
    instruction = computation.instructions[name]
    if instruction.opcode in _ELEMENTWISE:
        return _share_written(program, computation, instruction.operands[0])
    if instruction.opcode == "fusion":
        called = program.called(instruction)
        return _share_written(program, called, called.root)
    if instruction.opcode == _UPDATE:
        return _number(computation.instructions[instruction.operands[1]]) / _number(instruction)
    return 1.0


def _number(instruction: Instruction) -> int:
    """How many elements a value has."""
    return sum(math.prod(shape.sizes) for shape in instruction.shapes)


def _in_memory(shapes: Iterable[Shape]) -> int:
    return sum(shape.bytes for shape in shapes if shape.space == 0)
