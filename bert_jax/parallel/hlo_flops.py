"""The arithmetic of a compiled program's matrix products, rematerialisation included."""

import itertools
import json
import math
import re
from collections.abc import Sequence

from bert_jax.parallel.hlo import Computation, Instruction, Program, Shape


def matrix_flops(program: Program) -> tuple[int, int]:
    """Counts the operations of matrix products on one device, two per multiply-add.

    Returns:
        Those of a step, and those with the body of every loop counted once, as the compiler's own analysis does.
    """
    total = once = 0
    for computation, times in program.executions():
        for instruction in computation.instructions.values():
            flops = _flops(computation, instruction)
            total += flops * times
            once += flops
    return total, once


def _flops(computation: Computation, instruction: Instruction) -> int:
    if instruction.opcode == "dot":
        return _dot(computation, instruction, _listed(instruction.attributes, "lhs_contracting_dims"))
    if instruction.opcode == "convolution":
        return _convolution(computation, instruction)
    if instruction.opcode == "custom-call" and re.search(
        r'custom_call_target="__(cublas|onednn)\$\S*(gemm|matmul)', instruction.attributes
    ):
        dimensions = re.search(r'"lhs_contracting_dimensions":(\[[^\]]*\])', instruction.attributes)
        return _dot(computation, instruction, [int(axis) for axis in json.loads(dimensions[1])] if dimensions else [])
    return 0


def _dot(computation: Computation, instruction: Instruction, contracted: Sequence[int]) -> int:
    left = computation.operand_shapes(instruction)[0]
    return 2 * math.prod(instruction.shapes[0].sizes) * math.prod(left.sizes[axis] for axis in contracted)


def _convolution(computation: Computation, instruction: Instruction) -> int:
    """On TPUs every matrix product is a convolution; its axes of batch become dilated windows, most of them padding."""
    left, right = computation.operand_shapes(instruction)[:2]
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    window = re.search(r"window=\{([^}]*)\}", instruction.attributes)
    fields = dict(field.split("=") for field in window[1].split()) if window else {}
    result: Shape = instruction.shapes[0]
    products = result.sizes[labels[3].index("b")] * result.sizes[labels[3].index("f")]
    products *= right.sizes[labels[2].index("i")]
    number = sum(letter.isdigit() for letter in labels[1])
    for axis in range(number):
        stride, left_dilation, right_dilation = (
            int(fields[name].split("x")[axis]) if name in fields else 1
            for name in ("stride", "lhs_dilate", "rhs_dilate")
        )
        low = int(fields["pad"].split("x")[axis].split("_")[0]) if "pad" in fields else 0
        spans = (
            left.sizes[labels[1].index(str(axis))],
            right.sizes[labels[2].index(str(axis))],
            result.sizes[labels[3].index(str(axis))],
        )
        products *= _valid_positions(*spans, stride, low, left_dilation, right_dilation)
    if groups := re.search(r"batch_group_count=(\d+)", instruction.attributes):
        products //= int(groups[1])
    return 2 * products


def _valid_positions(
    inputs: int, kernel: int, outputs: int, stride: int, low: int, left_dilation: int, right_dilation: int
) -> int:
    """Pairs of an output and a kernel position that meet an element of the input, not padding or a hole."""
    dilated = (inputs - 1) * left_dilation + 1
    if stride == left_dilation == right_dilation == 1:
        # Long axes, such as the length of a row, without the loop over all pairs.
        return sum(
            max(0, min(outputs - 1, dilated - 1 + low - place) - max(0, low - place) + 1) for place in range(kernel)
        )
    return sum(
        0 <= place < dilated and place % left_dilation == 0
        for output, position in itertools.product(range(outputs), range(kernel))
        for place in [output * stride + position * right_dilation - low]
    )


def _listed(attributes: str, name: str) -> list[int]:
    found = re.search(rf"{name}=\{{([0-9,]*)\}}", attributes)
    return [int(axis) for axis in found[1].split(",") if axis] if found else []
