"""The text of a compiled program (XLA's HLO) as computations of instructions, and how often a step runs each of them.

The compiler's own cost analysis counts the body of a loop once, and the layers of a model are a loop: what is counted
here is multiplied by the loops' trip counts.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Sequence

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][a-z0-9\-]*)\((.*)$")
# Of the layout that may follow, the number of a memory other than the device's main one, as in {1,0:T(8,128)S(1)}.
_SHAPE = re.compile(r"\b(pred|token|[a-z]+[0-9]+[a-z0-9]*)\[([0-9,]*)\](?:\{[^}]*?(?:S\((\d+)\))?\})?")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(r"\b(?:calls|body|true_computation|false_computation|to_apply)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIP_COUNT = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
# Operations whose computation is applied to single elements, or named a second time at the end of an asynchronous call.
_NOT_CALLS = ("reduce", "reduce-window", "scatter", "select-and-scatter", "sort", "map", "async-update", "async-done")


@dataclasses.dataclass(frozen=True)
class Shape:
    """The type of one array.

    Attributes:
        dtype: as HLO writes it, such as bf16.
        sizes: of its axes.
        space: the memory it lies in; 0 is the device's main one, 1 on TPUs that of a core.
    """

    dtype: str
    sizes: tuple[int, ...]
    space: int = dataclasses.field(default=0, compare=False)

    @property
    def bytes(self) -> int:
        """The array's size, without padding."""
        return math.ceil(math.prod(self.sizes) * _bits(self.dtype) / 8)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
        name: unique in the program.
        opcode: such as all-reduce.
        shapes: of the result; several if it is a tuple.
        operands: the names of its arguments.
        attributes: the rest of the line.
    """

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    attributes: str


@dataclasses.dataclass(frozen=True)
class Computation:
    """A named list of instructions.

    Attributes:
        name: unique in the program.
        instructions: by name, in order, each after those that it uses.
    """

    name: str
    instructions: dict[str, Instruction]

    @property
    def root(self) -> str:
        """The name of the instruction whose result is the computation's; it is printed last."""
        return next(reversed(self.instructions))

    def parameters(self) -> list[Instruction]:
        """Its arguments; their attributes are their places."""
        return [one for one in self.instructions.values() if one.opcode == "parameter"]

    def operand_shapes(self, instruction: Instruction) -> list[Shape]:
        """The shapes of all arrays that are passed to one of its instructions."""
        return [shape for name in instruction.operands for shape in self.instructions[name].shapes]


class Program:
    """A compiled program.

    Attributes:
        computations: by name.
        entry: the name of the one that is called from outside.
        fused: the names of those that a fusion computes.
    """

    def __init__(self, text: str):
        """Reads what `jax.stages.Compiled.as_text` returned."""
        self.computations: dict[str, Computation] = {}
        self.entry = ""
        current: dict[str, Instruction] = {}
        for line in text.splitlines():
            if header := _COMPUTATION.match(line):
                current = {}
                self.computations[header[2]] = Computation(header[2], current)
                self.entry = header[2] if header[1] else self.entry
            elif found := _INSTRUCTION.match(line):
                operands, attributes = _split_operands(found[4])
                if found[3] in ("parameter", "constant"):
                    # What stands in the parentheses is a number.
                    attributes, operands = operands, ""
                shapes = tuple(map(_shape, _SHAPE.findall(found[2])))
                current[found[1]] = Instruction(found[1], found[3], shapes, tuple(_NAME.findall(operands)), attributes)
        self.fused = {
            called
            for computation in self.computations.values()
            for instruction in computation.instructions.values()
            if instruction.opcode == "fusion"
            for called in _called(instruction)
        }
        self._times = self._count_executions()

    def executions(self) -> Iterator[tuple[Computation, int]]:
        """Yields each computation that a step runs, and how often."""
        for name, times in self._times.items():
            yield self.computations[name], times

    def called(self, fusion: Instruction) -> Computation:
        """What a fusion computes."""
        return self.computations[_called(fusion)[0]]

    def trip_count(self, loop: Instruction) -> int:
        """How often the body of a while loop runs.

        As the compiler noted it, or else until its counter, which begins at 0, reaches the number that the condition
        compares it with. Not every counter moves by 1: products that run beside their communication take two parts of
        it at once.

        Raises:
            ValueError: it is not to be seen.
        """
        if noted := _TRIP_COUNT.search(loop.attributes):
            return int(noted[1])
        condition, body = (
            self.computations[re.search(rf"{role}=%?([\w.\-]+)", loop.attributes)[1]] for role in ("condition", "body")
        )
        bounds = _integers(self._inlined(condition))
        counters = {
            int(re.search(r"index=(\d+)", one.attributes)[1])
            for one in condition.instructions.values()
            if one.opcode == "get-tuple-element"
        }
        steps: set[int] = set()
        for counter in counters:
            moved = body.instructions[body.instructions[body.root].operands[counter]]
            steps |= _integers(body.instructions[name] for name in moved.operands)
            steps |= _integers(one for called in _called(moved) for one in self._inlined(self.computations[called]))
        if len(bounds) != 1 or len(steps) != 1:
            raise ValueError(f"cannot tell how often the loop {loop.name} runs: to {bounds} in steps of {steps}")
        return math.ceil(bounds.pop() / steps.pop())

    def _inlined(self, computation: Computation) -> Iterator[Instruction]:
        for instruction in computation.instructions.values():
            yield instruction
            for called in _called(instruction):
                yield from self._inlined(self.computations[called])

    def _count_executions(self) -> dict[str, int]:
        # A computation is printed before those that call it: from the end, each has its count when it is met.
        times: collections.Counter[str] = collections.Counter({self.entry: 1})
        for name in reversed(self.computations):
            for instruction in self.computations[name].instructions.values() if times[name] else ():
                repeats = self.trip_count(instruction) if instruction.opcode == "while" else 1
                for called in _called(instruction):
                    times[called] += times[name] * repeats
        return {name: count for name, count in times.items() if count}


def _integers(instructions: Iterable[Instruction]) -> set[int]:
    """The whole numbers among the constants."""
    return {
        int(one.attributes)
        for one in instructions
        if one.opcode == "constant" and re.fullmatch(r"-?\d+", one.attributes)
    }


def _called(instruction: Instruction) -> Sequence[str]:
    if instruction.opcode.startswith(("all-reduce", "reduce-scatter")) or instruction.opcode in _NOT_CALLS:
        return ()
    found = _CALLED.findall(instruction.attributes)
    if branches := _BRANCHES.search(instruction.attributes):
        found += re.findall(r"[\w.\-]+", branches[1])
    return found


def _split_operands(text: str) -> tuple[str, str]:
    """Cuts what follows an opening parenthesis at the closing one."""
    depth = 1
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[:place], text[place + 1 :]
    return text, ""


def _shape(found: tuple[str, str, str]) -> Shape:
    dtype, sizes, space = found
    return Shape(dtype, tuple(int(size) for size in sizes.split(",") if size), int(space or 0))


def _bits(dtype: str) -> int:
    if dtype == "pred":
        return 8
    digits = re.search(r"\d+", dtype)
    return int(digits[0]) if digits else 0
