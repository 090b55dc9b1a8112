"""What a plan looks like: the compiled steps of a run's phases as one table, and as values for programs."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from bert_jax.parallel.chips import GIBIBYTE
from bert_jax.parallel.hlo_collectives import summarize
from launch.planned_step import Case, Compiled

_LABEL = 48
_DAY = 24 * 3600

ASSUMPTIONS = (
    "step time is a bound, not a forecast: peak arithmetic, full bandwidth, no latency, nothing but the step",
    "FLOPs of the compiler: matrix products, the body of every loop times its trip count (its own analysis counts it"
    " once)",
    "memory traffic: what every compiled instruction reads and writes outside the cores' own memory, loops likewise",
    "collectives: rings over every dimension of the torus within their group; between slices, each chip's share",
    "gradients are float32 and lie as the parameters do; activations are all other temporary memory at the peak",
)


def total_seconds(planned: Sequence[tuple[Case, Compiled]], exposed: bool = True) -> float:
    """The time of all phases' steps, with communication after computation, or all of it behind."""
    return sum(
        (compiled.roofline.exposed if exposed else compiled.roofline.hidden) * case.phase.steps
        for case, compiled in planned
    )


def format_plan(planned: Sequence[tuple[Case, Compiled]]) -> list[str]:
    """Returns the lines of the table, one column a phase."""
    case, first = planned[0]
    topology, chip = case.topology, case.topology.chip
    memory = chip.memory // chip.devices
    layout = f"{topology}: {topology.num_chips} chips"
    if chip.devices > 1:
        layout += f", {topology.num_devices} devices (two a chip)"
    lines = [
        f"{layout}; {memory / GIBIBYTE:.1f} GiB and {first.peak_flops / 1e12:g} TFLOP/s (bfloat16) a device",
        *first.layout,
        "",
    ]

    def row(label: str, cells: Iterator[str]) -> None:
        lines.append(f"{label:<{_LABEL}}" + "".join(f"{cell:>18}" for cell in cells))

    def over(label: str, of: Any) -> None:
        row(label, (of(case, compiled) for case, compiled in planned))

    over("phase", lambda case, _: str(case.number))
    over("tokens of a row", lambda case, _: f"{case.phase.seq_len:,}")
    over("rows of a step", lambda case, _: f"{case.phase.batch_size:,}")
    over("accumulation steps", lambda case, _: f"{case.phase.accumulation_steps:,}")
    over("steps", lambda case, _: f"{case.phase.steps:,}")
    over("parameters", lambda _, compiled: f"{compiled.parameters:,}")
    lines.append("bytes of a device")
    for kind in first.bytes_of:
        over(f"  {kind}", lambda _, compiled, kind=kind: _mebibytes(compiled.bytes_of[kind]))
    over("  at the peak", lambda _, compiled: _mebibytes(compiled.bytes))
    over("  share of its memory", lambda _, compiled: f"{compiled.bytes / memory:.1%}")
    lines.append("TFLOP of a step, all devices")
    over("  by formula", lambda _, compiled: f"{compiled.formula_flops / 1e12:,.1f}")
    over("  by the compiler", lambda case, compiled: f"{compiled.flops * case.topology.num_devices / 1e12:,.1f}")
    lines.append("collectives of a step: MB sent by a device (number)")
    totals = [summarize(compiled.collectives) for _, compiled in planned]
    for kind, axes in dict.fromkeys(key for total in totals for key in total):
        cells = (total.get((kind, axes), (0, 0, 0.0)) for total in totals)
        row(f"  {kind} over {axes}", (f"{sent / 1e6:,.1f} ({times})" for times, _, sent in cells))
    lines.append("milliseconds of a step, at best")
    for part in ("arithmetic", "memory", "links", "network"):
        over(f"  {part}", lambda _, compiled, part=part: _milliseconds(getattr(compiled.roofline, part)))
    over("  communication hidden", lambda _, compiled: _milliseconds(compiled.roofline.hidden))
    over("  communication not hidden", lambda _, compiled: _milliseconds(compiled.roofline.exposed))
    over("MFU, at most", lambda case, compiled: _utilization(case, compiled))
    over("days, at least", lambda case, compiled: _days(case, compiled))
    seconds = [total_seconds(planned, exposed) for exposed in (False, True)]
    hours = [topology.num_chips * one / 3600 for one in seconds]
    lines += [
        "",
        f"in all: {_amount(seconds[0] / _DAY)} to {_amount(seconds[1] / _DAY)} days,"
        f" {_amount(hours[0])} to {_amount(hours[1])} chip-hours (communication hidden, and not hidden)",
        *(f"  {assumption}" for assumption in ASSUMPTIONS),
    ]
    return lines


def plan_values(planned: Sequence[tuple[Case, Compiled]]) -> dict[str, Any]:
    """The same as JSON values."""
    case, first = planned[0]
    seconds = [total_seconds(planned, exposed) for exposed in (False, True)]
    return {
        "topology": str(case.topology),
        "chips": case.topology.num_chips,
        "devices": case.topology.num_devices,
        "mesh": dict(zip(("data", "fsdp", "tensor"), case.mesh.sizes, strict=True)),
        "parameters": first.parameters,
        "memory_bytes_of_device": case.topology.chip.memory // case.topology.chip.devices,
        "layout": first.layout,
        "phases": [_phase_values(case, compiled) for case, compiled in planned],
        "days": [one / _DAY for one in seconds],
        "chip_hours": [case.topology.num_chips * one / 3600 for one in seconds],
        "assumptions": list(ASSUMPTIONS),
    }


def _phase_values(case: Case, compiled: Compiled) -> dict[str, Any]:
    return {
        **dataclasses.asdict(case.phase),
        "remat": case.recipe.execution.remat,
        "bytes_of_device": {**compiled.bytes_of, "peak": compiled.bytes},
        "flops_by_formula": compiled.formula_flops,
        "flops_by_compiler_of_device": compiled.flops,
        "flops_by_compiler_loops_once": compiled.compiler_flops,
        "matrix_flops_loops_once": compiled.flops_once,
        "memory_bytes_moved_by_device": compiled.memory_bytes,
        "collectives": [
            {"kind": kind, "axes": axes, "times": times, "bytes": size, "sent_bytes_of_device": sent}
            for (kind, axes), (times, size, sent) in summarize(compiled.collectives).items()
        ],
        "seconds": {
            **dataclasses.asdict(compiled.roofline),
            "communication_hidden": compiled.roofline.hidden,
            "communication_exposed": compiled.roofline.exposed,
        },
        "mfu": [
            compiled.utilization(seconds, case.topology.num_devices)
            for seconds in (compiled.roofline.exposed, compiled.roofline.hidden)
        ],
        "compile_seconds": compiled.compile_seconds,
    }


def _mebibytes(number: int) -> str:
    return f"{number / 2**20:,.1f} MiB"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:,.2f}"


def _utilization(case: Case, compiled: Compiled) -> str:
    devices = case.topology.num_devices
    low, high = (compiled.utilization(s, devices) for s in (compiled.roofline.exposed, compiled.roofline.hidden))
    return f"{low:.0%} to {high:.0%}"


def _days(case: Case, compiled: Compiled) -> str:
    low, high = (s * case.phase.steps / _DAY for s in (compiled.roofline.hidden, compiled.roofline.exposed))
    return f"{_amount(low)} to {_amount(high)}"


def _amount(number: float) -> str:
    """Three digits of what may be large or small."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
