"""The train step of one phase, compiled for accelerators that are not there, and what the compiler says of it.

Compiles in a process of its own, `python -m launch.planned_step`: JAX and libtpu read their environment when they are
loaded, and a compiler that crashes takes its process with it.
"""

import dataclasses
import os
import pickle
import re
import subprocess
import sys
import time
from typing import Any

from bert_jax.errors import UserError
from bert_jax.parallel.chips import GIBIBYTE
from bert_jax.parallel.hlo_collectives import Collective
from bert_jax.parallel.mesh_spec import MeshSpec
from bert_jax.parallel.roofline import Roofline
from bert_jax.parallel.topology import Topology
from bert_jax.tasks.pretraining_recipe import Phase, Pretrain

# Two ways in which the TPU's compiler says it; the first names everything, the second temporary memory alone.
_SIZE = r"([\d.]+[KMGT]?)"
_OUT_OF_MEMORY = (
    re.compile(rf"Used {_SIZE} of {_SIZE} hbm"),
    re.compile(rf"temporaries \({_SIZE}\) exceeds available HBM \({_SIZE}\)"),
)


@dataclasses.dataclass(frozen=True)
class Case:
    """What to compile.

    Attributes:
        recipe: of the run; its model has a vocab_size.
        phase: of the run.
        topology: the accelerators.
        mesh: their layout, without a -1.
        dcn: how much of it lies across slices; None for the default.
        number: of the phase, counted from 1.
    """

    recipe: Pretrain
    phase: Phase
    topology: Topology
    mesh: MeshSpec
    dcn: MeshSpec | None = None
    number: int = 1


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What is known of a compiled step; bytes and FLOPs are those of one device.

    Attributes:
        parameters: of the model.
        bytes_of: parameters, optimizer, batch, gradients and activations; their sum is the peak.
        formula_flops: of a step, by `bert_jax.training.flops`, over all devices.
        flops: of the compiled matrix products, every loop's body times its trip count.
        flops_once: the same with every loop's body counted once.
        compiler_flops: the compiler's own count, of everything but loops' bodies once; 0 where it does not say.
        memory_bytes: moved to and from memory.
        peak_flops: a second.
        collectives: of a step.
        roofline: seconds.
        layout: lines about how the parameters lie on the mesh.
        compile_seconds: on this machine.
    """

    parameters: int
    bytes_of: dict[str, int]
    formula_flops: int
    flops: int
    flops_once: int
    compiler_flops: float
    memory_bytes: int
    peak_flops: float
    collectives: list[Collective]
    roofline: Roofline
    layout: list[str]
    compile_seconds: float

    @property
    def bytes(self) -> int:
        """At the peak."""
        return sum(self.bytes_of.values())

    def utilization(self, seconds: float, num_devices: int) -> float:
        """MFU: the formula's FLOPs a second as a share of the devices' peak (Chowdhery et al. 2022, appendix B)."""
        return self.formula_flops / seconds / (self.peak_flops * num_devices)


@dataclasses.dataclass(frozen=True)
class OutOfMemory:
    """The step does not fit.

    Attributes:
        used: what it would need, as the compiler writes it.
        available: what there is.
    """

    used: str
    available: str

    @property
    def excess(self) -> float:
        """How many times what there is."""
        return max(1.0, _number(self.used) / _number(self.available))


def _slice(device: Any) -> int:
    """A device's slice of a TPU, or node of GPUs."""
    return (getattr(device, "slice_index", None) if device.platform == "tpu" else device.process_index) or 0


def read_shortage(message: str) -> OutOfMemory:
    """Reads what the compiler says of a step that does not fit.

    Raises:
        UserError: it does not say how much.
    """
    for form in _OUT_OF_MEMORY:
        if found := form.search(message):
            return OutOfMemory(found[1], found[2])
    raise UserError(f"the step does not fit: {' '.join(message.split())[:300]}")


def _number(size: str) -> float:
    """Reads 15.75G."""
    scale = 1024.0 ** (" KMGT".index(size[-1]) if size[-1].isalpha() else 0)
    return float(size.rstrip("KMGT")) * scale


def compile_case(case: Case) -> Compiled | OutOfMemory:
    """Compiles in a new process.

    Raises:
        UserError: the accelerators are not known, their compiler is not installed, or it failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", __name__],
        input=pickle.dumps(case),
        env={**os.environ, **case.topology.environment},
        capture_output=True,
    )
    if done.returncode == 0:
        outcome = pickle.loads(done.stdout)
        if isinstance(outcome, UserError):
            raise outcome
        return outcome
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    said = next(
        (line for line in reversed(lines) if "Error" in line or "OVERFLOW" in line or "Check failed" in line), ""
    )
    raise UserError(f"--topology={case.topology}: the compiler ended with {done.returncode}: {said[:300]}")


def compile_here(case: Case) -> Compiled | OutOfMemory:
    """Compiles in this process, whose environment must be the topology's."""
    import jax
    import numpy as np

    from bert_jax.data.batches import BatchMaker
    from bert_jax.models.parameters import count_parameters
    from bert_jax.parallel.hlo import Program
    from bert_jax.parallel.hlo_collectives import find_collectives
    from bert_jax.parallel.hlo_flops import matrix_flops
    from bert_jax.parallel.hlo_traffic import memory_bytes
    from bert_jax.parallel.memory import size_text
    from bert_jax.parallel.mesh import abstract_batch, make_mesh
    from bert_jax.parallel.roofline import Placement, estimate
    from bert_jax.parallel.sharding import bytes_per_device, describe, state_shardings, with_shardings
    from bert_jax.tasks.pretraining import PreTraining
    from bert_jax.training.compilation import compile_train_step
    from bert_jax.training.flops import peak_flops, train_flops
    from bert_jax.training.optimizers import build_optimizer
    from bert_jax.training.schedules import build_phased_schedule
    from bert_jax.training.train_state import create_train_state
    from bert_jax.training.train_step import make_train_step

    recipe, phase, chip = case.recipe, case.phase, case.topology.chip
    devices = case.topology.make_devices()
    mesh = make_mesh(case.mesh, case.dcn, devices)

    # ---- The state, the batch and the step, as a run makes them; only their shapes.
    task = PreTraining(recipe.model, next_sentence=recipe.next_sentence, execution=recipe.execution)
    learning_rate = build_phased_schedule(recipe.schedule, recipe.learning_rate, recipe.phases or [phase])
    optimizer = build_optimizer(recipe.optimizer, learning_rate, logical_axes=task.logical_axes())
    shapes = jax.eval_shape(lambda key: create_train_state(task.init(key), optimizer), jax.random.key(recipe.seed))
    state = with_shardings(shapes, state_shardings(mesh, task.logical_axes(), shapes))
    maker = BatchMaker(None, phase.seq_len, 1, True, None, recipe.masking, recipe.seed)
    batch = abstract_batch(mesh, maker.shapes(phase.batch_size))
    step = make_train_step(
        task, optimizer, learning_rate, seed=recipe.seed, accumulation_steps=phase.accumulation_steps
    )

    # ---- What no compiler can make smaller: it would take long, or break.
    available = chip.memory // chip.devices
    in_parameters, in_batch = bytes_per_device(state.params), bytes_per_device(batch)
    if in_batch > available:
        raise UserError(
            f"a batch of {phase.batch_size:,} rows of {phase.seq_len} tokens needs {size_text(in_batch)} of the"
            f" {size_text(available)} of a device: lower it (--rows_per_step), or plan for more chips"
        )
    if (held := bytes_per_device(state) + in_batch) > available:
        return OutOfMemory(f"{held / GIBIBYTE:.2f}G", f"{available / GIBIBYTE:.2f}G")

    # ---- The compiler.
    began = time.perf_counter()
    try:
        compiled, _ = compile_train_step(step, state, batch)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return read_shortage(str(error))
    seconds = time.perf_counter() - began

    # ---- What it made.
    # The GPU's compiler gives no analysis of costs.
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
    # Parameters are float32, and so are their gradients; what is left of the temporary memory is activations.
    gradients = min(in_parameters, memory.temp_size_in_bytes)
    program = Program(compiled.as_text())
    flops, flops_once = matrix_flops(program)
    traffic = memory_bytes(program)
    flat = mesh.devices.ravel()
    placement = Placement(
        np.array([getattr(device, "coords", None) or [0] for device in flat]),
        np.array([_slice(device) for device in flat]),
        case.topology.sizes,
    )
    collectives = find_collectives(program, mesh.shape, placement.slices)
    peak = peak_flops(chip.device_kind)
    predictions = batch["masked_ids"].shape[1]
    made = Compiled(
        parameters=count_parameters(state.params, recipe.model.vocab_size),
        bytes_of={
            "parameters": in_parameters,
            "optimizer": bytes_per_device(state) - in_parameters,
            "batch": in_batch,
            "gradients": gradients,
            "activations": memory.temp_size_in_bytes - gradients,
        },
        formula_flops=train_flops(recipe.model, phase.batch_size, phase.seq_len, predictions, 1),
        flops=flops,
        flops_once=flops_once,
        compiler_flops=cost.get("flops", 0.0),
        memory_bytes=traffic,
        peak_flops=peak,
        collectives=collectives,
        roofline=estimate(chip, placement, peak, flops, traffic, collectives),
        layout=describe(mesh, task.logical_axes(), state.params),
        compile_seconds=seconds,
    )
    if made.bytes > available:
        # The TPU's compiler has refused this already; the GPU's leaves it to the run.
        return OutOfMemory(f"{made.bytes / GIBIBYTE:.2f}G", f"{available / GIBIBYTE:.2f}G")
    return made


def _serve() -> None:
    """Answers one case on standard input."""
    # Standard output carries the answer alone, whatever libraries print.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    case = pickle.load(sys.stdin.buffer)
    outcome: Any
    try:
        outcome = compile_here(case)
    except UserError as error:
        outcome = error
    pickle.dump(outcome, answers)
    answers.flush()
    # libtpu's threads may hang or crash when they are taken down.
    os._exit(0)


if __name__ == "__main__":
    # Pickled objects name their classes' module, which must not be __main__.
    from launch import planned_step

    planned_step._serve()
