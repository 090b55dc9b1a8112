"""What every launcher that trains has in common, from the meeting of the processes to the last checkpoint.

In order: the folder is found to be new or of this very run (`run_folder`); the processes meet and agree; the state is
restored, or made; every shape is compiled; the loop runs. A launcher says what it trains as a `Training`.
"""

import contextlib
import dataclasses
import importlib.metadata
import pathlib
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

import bert_jax
from bert_jax.errors import UserError
from bert_jax.parallel.processes import agree_on, await_all, ending_with_the_others, is_main, process_group
from bert_jax.parallel.shared_folder import agree_on_folder
from bert_jax.training.best import BestBy, LossGoal
from bert_jax.training.goodput import COMPILING, SPLIT, Goodput
from bert_jax.training.run_identity import await_identity, is_noted, write_identity
from bert_jax.training.run_lock import lock_run
from bert_jax.training.saved_models import holds_checkpoint
from launch.dry_run import report
from launch.mesh_flags import define_mesh_flags, define_partitioner_flag
from launch.process_flags import define_process_flags, flags_to_agree_on, start_processes_from_flags
from launch.run_folder import RunFolder, make_directory

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from bert_jax.training.loop import Cadence, CompiledPhase, Profile
    from bert_jax.training.task import Task

CURVES_FILE = "curves.png"
# The remedies if something does not fit into memory.
_SMALLER_STATE = "use a smaller model, or cut it over more devices (--mesh=fsdp:-1)"
_SMALLER_BATCH = "lower the batch size, or spread it over more devices"
_SMALLER_STEP = (
    "cut the batch into more micro-batches (accumulation_steps), set Execution.remat='full', lower the batch size, or"
    " use more devices"
)


def define_training_flags(values: flags.FlagValues) -> None:
    """Adds the flags of all launchers that train."""
    here = {"flag_values": values}
    flags.DEFINE_string("workdir", None, "Folder of the run: log, curves, checkpoints.", **here)
    flags.DEFINE_string("init_from", None, "Begin a new run from the weights of this model, of any kind.", **here)
    flags.DEFINE_bool(
        "allow_schedule_change", False, "Resume although the learning rate's course is not the same.", **here
    )
    flags.DEFINE_string("compilation_cache_dir", None, "Folder that shortens the next start.", **here)
    flags.DEFINE_bool(
        "dry_run", False, "Do everything before the first step, print it, and leave --workdir as it is.", **here
    )
    flags.DEFINE_float(
        "peak_tflops",
        None,
        "Peak TFLOP/s of one device, for the MFU; needed where the device is not known.",
        lower_bound=1e-3,
        **here,
    )
    define_mesh_flags(values)
    define_partitioner_flag(values)
    define_process_flags(values)


@contextlib.contextmanager
def joined_processes(values: flags.FlagValues, folder: RunFolder, operative_config: str):
    """Meets the other processes, if there are any; from here on, one that fails ends all.

    Then JAX may be imported. Makes the folder, and holds the lock on it.
    """
    start_processes_from_flags(values)
    agree_on(
        "start",
        {
            **flags_to_agree_on(values),
            "the gin configuration": operative_config,
            **folder.identity,
            "the run that --workdir holds": folder.saved,
            "the versions of bert_jax and jax": [bert_jax.__version__, importlib.metadata.version("jax")],
        },
    )
    with ending_with_the_others(), contextlib.ExitStack() as held:
        if not values.dry_run:
            held.enter_context(folder.made())
            agree_on_folder("--workdir", folder.path)
            if is_main():
                held.enter_context(lock_run(folder.path))
                if holds_checkpoint(folder.path) != bool(folder.saved):
                    raise UserError(
                        f"--workdir={folder.path}: another process has just saved or removed its first checkpoint"
                        " there: start again"
                    )
        if values.compilation_cache_dir:
            make_directory("compilation_cache_dir", pathlib.Path(values.compilation_cache_dir))
            import jax

            jax.config.update("jax_compilation_cache_dir", values.compilation_cache_dir)
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
        yield


@dataclasses.dataclass(frozen=True)
class Training:
    """What is trained, all choices made.

    Attributes:
        task: the task.
        optimizer: an optax.GradientTransformation that scales by the learning rate itself.
        vocab_size: of the model, for counting parameters.
        seed: of the initial values.
        total_steps: of the run.
        cadence: of log, evaluation and checkpoints.
        keep_checkpoints: how many of the last.
        load_weights: from new parameters to those to begin with, and lines about them, for a run with --init_from.
        compile_phases: from the state's shapes to the programs; the phases.
        record: JSON values saved with each checkpoint.
        files: files saved with each checkpoint.
        profile: steps to trace.
        best_by: says which checkpoint is the best; the lowest validation loss if None.
        patience: evaluations without a better one after which the run ends; None for never.
        min_delta: by how much better counts.
        with_ema: whether the state has an average of the parameters, which is evaluated instead of them.
        goal: after the evaluation that reaches it, the run ends; None for none.
        batch: shapes and shardings of the largest batch of a step; None to find out when it is made.
    """

    task: "Task"
    optimizer: Any
    vocab_size: int
    seed: int
    total_steps: int
    cadence: "Cadence"
    keep_checkpoints: int
    load_weights: Callable[[Any], tuple[Any, Sequence[str]]]
    compile_phases: Callable[[Any], Sequence["CompiledPhase"]]
    record: Mapping[str, Any]
    files: Mapping[str, bytes]
    profile: "Profile | None" = None
    best_by: BestBy | None = None
    patience: int | None = None
    min_delta: float = 0.0
    with_ema: bool = False
    goal: LossGoal | None = None
    batch: Any = None


@dataclasses.dataclass(frozen=True)
class Trained:
    """How a session ended.

    Attributes:
        exit_code: of the launcher.
        validation: metrics at the last step; None where there are none, or nothing was trained.
        stop_signal: that asked it to end, even if its last step was done by then; None if nobody did.
    """

    exit_code: int
    validation: Mapping[str, float] | None = None
    stop_signal: signal.Signals | None = None


def _from_the_first_together(batches: Callable[[int], Iterator[Any]]) -> Callable[[int], Iterator[Any]]:
    """Returns the same batches, of which no process gets the first before all have it; see `await_all`."""

    def from_step(step: int) -> Iterator[Any]:
        for number, batch in enumerate(batches(step)):
            if number == 0:
                await_all(f"step {step}")
            yield batch

    return from_step


def train_session(
    values: flags.FlagValues, folder: RunFolder, mesh: "Mesh", training: Training, goodput: Goodput
) -> Trained:
    """Makes or restores the state, compiles, and trains to the end or until asked to stop; prints what happens."""
    import jax
    import numpy as np

    from bert_jax.models.parameters import count_parameters
    from bert_jax.parallel.memory import Need, check_memory, check_step
    from bert_jax.parallel.sharding import describe, state_shardings, with_shardings
    from bert_jax.parallel.stop_agreement import StopAgreement
    from bert_jax.training.best import EarlyStopping
    from bert_jax.training.checkpoints import CheckpointStore
    from bert_jax.training.curves import draw_curves
    from bert_jax.training.interruption import listen_for_stop
    from bert_jax.training.loop import EARLY_STOPPING, STOPPED_EARLY, TRAIN_SECONDS, train
    from bert_jax.training.metric_writers import METRICS_FILE, MetricWriter, NoWriter
    from bert_jax.training.train_state import create_train_state

    workdir, task, total_steps = folder.path, training.task, training.total_steps

    # ---- The state: restored, or new, or new from another model's weights.
    def create(key: jax.Array):
        return create_train_state(task.init(key), training.optimizer, with_ema=training.with_ema)

    abstract_state = jax.eval_shape(create, jax.random.key(training.seed))
    shardings = state_shardings(mesh, task.logical_axes(), abstract_state)
    abstract_state = with_shardings(abstract_state, shardings)
    check_memory(
        [
            Need("parameters", abstract_state.params, _SMALLER_STATE),
            Need("optimizer state", abstract_state.opt_state, _SMALLER_STATE),
            Need("average of the parameters", abstract_state.ema, _SMALLER_STATE),
            Need("a batch", training.batch, _SMALLER_BATCH),
        ]
    )
    parameters = count_parameters(abstract_state.params, training.vocab_size)
    print(f"{parameters:,} parameters on {jax.device_count()} {jax.devices()[0].platform} device(s)")
    if mesh.size > 1:
        print("\n".join(describe(mesh, task.logical_axes(), abstract_state.params)))

    def placed(leaf: Any, initial: jax.Array):
        if leaf is initial:
            return leaf
        # A device cannot send what it holds to those of another process; each process has all of it on its host.
        return jax.device_put(leaf if jax.process_count() == 1 else np.asarray(leaf), initial.sharding)

    def begin():
        # Each device computes its own part alone: none ever holds all of it.
        state = jax.jit(create, out_shardings=shardings)(jax.random.key(training.seed))
        if not folder.init_from:
            return state
        params, lines = training.load_weights(state.params)
        print("\n".join(lines))
        return state.beginning_with(jax.tree.map(placed, params, state.params))

    def compile_phases():
        with goodput.measure(COMPILING):
            phases = training.compile_phases(abstract_state)
        for phase in phases:
            check_step(phase.step, abstract_state, _SMALLER_STEP)
        return [dataclasses.replace(phase, batches=_from_the_first_together(phase.batches)) for phase in phases]

    if values.dry_run:
        if folder.init_from and not folder.saved:
            begin()
        for line in report(workdir, total_steps, compile_phases):
            print(line)
        return Trained(0)

    # A new run takes its folder only when nothing more can be wrong with what was asked for.
    state = None if folder.saved else begin()
    if is_main() and not is_noted(workdir, folder.identity):
        write_identity(workdir, folder.identity)
    await_identity(workdir, folder.identity)
    checkpoints = CheckpointStore(workdir, training.keep_checkpoints, training.best_by)
    with ending_with_the_others():
        restored = checkpoints.restore_latest(abstract_state)
    if restored:
        start_step, state = restored
        stopped_early = checkpoints.record(start_step).get(STOPPED_EARLY, False)
        if start_step >= total_steps or stopped_early:
            checkpoints.close()
            if is_main() and not (workdir / CURVES_FILE).exists():
                draw_curves(workdir / METRICS_FILE, workdir / CURVES_FILE)
            why = ""
            if stopped_early:
                is_reached = _is_reached(training.goal, checkpoints.record(start_step)["validation"])
                why = f", with {training.goal.describe()}" if is_reached else ", where it no longer became better"
            print(f"the run in {workdir} is complete: {start_step} of {total_steps} steps{why}")
            return Trained(0)
        print(f"resuming from step {start_step}")
    else:
        # Stopped before its first checkpoint, a run begins again.
        start_step, state = 0, state or begin()
    writer = MetricWriter(workdir) if is_main() else NoWriter()
    writer.cut(start_step)
    saved = checkpoints.record(start_step)
    goodput.add(saved.get(SPLIT, {}))
    early_stopping = None
    if training.patience is not None:
        early_stopping = EarlyStopping(training.patience, training.min_delta, saved.get(EARLY_STOPPING))

    # ---- The programs: every shape is compiled before the first step.
    phases = compile_phases()

    # ---- The loop.
    group = process_group()
    agreement = StopAgreement(group) if group else None
    with (
        contextlib.closing(checkpoints),
        contextlib.closing(writer),
        listen_for_stop(agreement) as stop,
        ending_with_the_others(),
    ):
        state, validation = train(
            state=state,
            phases=phases,
            cadence=training.cadence,
            checkpoints=checkpoints,
            checkpoint_run={**training.record, "identity": dict(folder.identity), "total_steps": total_steps},
            checkpoint_files=training.files,
            writer=writer,
            stop=stop,
            train_seconds=saved.get(TRAIN_SECONDS, 0.0),
            profile=training.profile,
            goodput=goodput,
            early_stopping=early_stopping,
            goal=training.goal,
        )
    if is_main():
        draw_curves(workdir / METRICS_FILE, workdir / CURVES_FILE)
    print(goodput.describe())
    step = int(state.step)
    if stop.signal is not None and step < total_steps:
        print(f"stopped by {stop.signal.name} after step {step}: saved; the same command resumes")
        return Trained(stop.exit_code, stop_signal=stop.signal)
    if step < total_steps:
        is_reached = _is_reached(training.goal, validation)
        why = training.goal.describe() if is_reached else f"no better for {training.patience} evaluations"
        print(f"stopped early after step {step} of {total_steps}: {why}")
    print(f"done: {step} steps; log, curves and checkpoints are in {workdir}")
    return Trained(0, validation, stop.signal)


def _is_reached(goal: LossGoal | None, validation: Mapping[str, float] | None) -> bool:
    return goal is not None and validation is not None and goal.is_reached(validation)
