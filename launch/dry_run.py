"""What --dry_run finds out: everything before the first step, without touching the run's folder."""

import os
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from bert_jax.errors import UserError
from bert_jax.training.saved_models import holds_checkpoint, open_model

if TYPE_CHECKING:
    from bert_jax.training.loop import CompiledPhase


def check_directory(flag: str, path: pathlib.Path) -> None:
    """Raises a UserError unless a folder is there, or can be made, and can be written to."""
    nearest = next(folder for folder in (path.absolute(), *path.absolute().parents) if os.path.exists(folder))
    if not nearest.is_dir():
        raise UserError(f"cannot make --{flag}={path}: {nearest} is not a directory; give another")
    if not os.access(nearest, os.W_OK):
        raise UserError(f"cannot write to --{flag}={path}: no permission in {nearest}; give another")


def starting_step(workdir: pathlib.Path) -> int:
    """Returns the step that a run in this folder would begin from."""
    return open_model(workdir).step if holds_checkpoint(workdir) else 0


def report(
    workdir: pathlib.Path, total_steps: int, compile_phases: Callable[[], Sequence["CompiledPhase"]]
) -> Iterator[str]:
    """Compiles, reads the first batch, and yields what the run would do, line by line.

    Args:
        workdir: the run's folder, which may not be there yet.
        total_steps: of the run.
        compile_phases: as a run calls it.
    """
    start = starting_step(workdir)
    if start >= total_steps:
        yield f"the run in {workdir} is complete: {start} of {total_steps} steps"
        return
    yield f"the run would {f'resume from step {start}' if start else 'begin'} and end at step {total_steps}"
    phases = compile_phases()
    began = time.perf_counter()
    first = next(phase for phase in phases if start < phase.first_step + phase.steps)
    batch = next(first.batches(start))
    # Of a run of several tasks, a batch of each.
    shapes = [one["input_ids"].shape for one in ([batch] if "input_ids" in batch else batch.values())]
    read = ", ".join(f"{shape[0]} rows of {shape[-1]} tokens" for shape in shapes)
    yield f"first batch: {read}, read in {time.perf_counter() - began:.1f} s"
    for number, phase in enumerate(phases, start=1):
        of_phase = f" of phase {number}" if len(phases) > 1 else ""
        yield f"memory of a step{of_phase}, on each device: {_memory(phase.step)}"
    yield f"dry run: nothing was trained, and nothing was written to {workdir}"


def _memory(step: Any) -> str:
    """Says what a compiled step needs at its peak, as the compiler has planned it, and what a device has."""
    import jax

    from bert_jax.parallel.memory import memory_of, planned_memory, size_text

    planned = planned_memory(step)
    if planned is None:
        return "not known"
    held, within = planned
    limit = memory_of(jax.local_devices()[0])
    needed = f"{size_text(held + within)} (state and batch {size_text(held)}, within the step {size_text(within)})"
    return f"{needed} of {size_text(limit)}" if limit else needed
