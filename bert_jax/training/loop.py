"""The training loop, the same for every task: steps, log, evaluation, checkpoints, stopping.

Steps are dispatched without waiting for their results; metrics are fetched a few steps later. Two orders must not be
changed: the metrics up to a step are fetched, found finite and on disk before its checkpoint is begun; and the
validation line of a step is on disk before its checkpoint, since the log of a resumed run is cut after the checkpoint's
step.
"""

import collections
import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from bert_jax.errors import DataError, TrainingError
from bert_jax.training.best import EarlyStopping, LossGoal
from bert_jax.training.checkpoints import CheckpointStore
from bert_jax.training.goodput import CHECKPOINTING, DATA, EVALUATING, SPLIT, STEPPING, Goodput
from bert_jax.training.interruption import StopRequest
from bert_jax.training.metric_writers import MetricWriter
from bert_jax.training.train_state import TrainState

# How long the training steps so far took, without evaluations and saves: in validation lines and in checkpoints.
TRAIN_SECONDS = "train_seconds"
# What a checkpoint keeps of the evaluations without progress, and that its run is over before its last step.
EARLY_STOPPING, STOPPED_EARLY = "early_stopping", "stopped_early"

# Steps that may be under way while metrics are not yet fetched: enough to hide the fetch, few enough to bound memory.
_IN_FLIGHT = 2
# The bar is redrawn this often on a terminal, and printed this often into a file.
_TERMINAL_INTERVAL, _FILE_INTERVAL = 0.2, 20.0


@dataclasses.dataclass(frozen=True)
class CompiledPhase:
    """A stretch of steps of one shape, ready to run.

    Attributes:
        first_step: of the run, from 0.
        steps: length.
        step: (state, batch) -> (state, metrics as one float32 vector).
        metric_names: of that vector; from a step, counted from 0, to them where steps do not all have the same.
        batches: given a step of the run within the phase, iterates over device batches from there on.
        evaluate: parameters to metrics of the validation split, "loss" among them; None if there is none.
        describe_batch: says which rows a step's batch holds, for error messages.
        arithmetic_seconds: that a step would take if the devices did its arithmetic at their peak; None if that is not
            known.
    """

    first_step: int
    steps: int
    step: Callable[[TrainState, Any], tuple[TrainState, jax.Array]]
    metric_names: Sequence[str] | Callable[[int], Sequence[str]]
    batches: Callable[[int], Iterator[Any]]
    evaluate: Callable[[Any], dict[str, float]] | None
    describe_batch: Callable[[int], str]
    arithmetic_seconds: float | None = None


@dataclasses.dataclass(frozen=True)
class Cadence:
    """How often things happen, in steps; 0 for never."""

    log_every: int
    eval_every: int
    checkpoint_every: int


@dataclasses.dataclass(frozen=True)
class Profile:
    """A window of steps to trace: the first (from 0), their number, and the folder for the trace."""

    first_step: int
    steps: int
    directory: str


class _Reporter:
    """Fetches metrics late, checks them, writes them, and shows them on the bar."""

    def __init__(
        self,
        writer: MetricWriter,
        log_every: int,
        first_step: int,
        total_steps: int,
        train_seconds: float,
        goodput: Goodput,
    ):
        self.train_seconds = train_seconds
        self._goodput = goodput
        self._writer = writer
        self._log_every = log_every
        self._pending: collections.deque[tuple[int, CompiledPhase, jax.Array]] = collections.deque()
        self._fetched_at = time.perf_counter()
        interval = _TERMINAL_INTERVAL if sys.stderr.isatty() else _FILE_INTERVAL
        self._bar = tqdm(
            total=total_steps,
            initial=first_step,
            unit="step",
            mininterval=interval,
            dynamic_ncols=True,
            desc="train",
            # One bar a run.
            disable=jax.process_index() != 0,
        )

    def add(self, step: int, phase: CompiledPhase, metrics: jax.Array) -> None:
        """Takes the metrics of an update under way, and fetches those of an older one.

        Where programs run in the thread that calls them, the update is done by now, and its own metrics are fetched: a
        few steps later, several would be there at once, and seem to have taken no time.
        """
        self._pending.append((step, phase, metrics))
        while len(self._pending) > _IN_FLIGHT or (self._pending and not self.is_busy()):
            self._fetch()

    def is_busy(self) -> bool:
        """Whether the devices are still at work on the last step that was added."""
        return bool(self._pending) and not self._pending[-1][2].is_ready()

    def flush(self) -> None:
        """Fetches all metrics and brings the log to the disk."""
        while self._pending:
            self._fetch()
        self._writer.sync()

    def restart_clock(self) -> None:
        """Leaves what happened since the last fetch (an evaluation, a save) out of the next line's speed."""
        self._fetched_at = time.perf_counter()

    def close(self) -> None:
        self._bar.close()

    def say(self, line: str) -> None:
        """Prints a line above the bar."""
        tqdm.write(line)

    def _fetch(self) -> None:
        step, phase, vector = self._pending.popleft()
        names = phase.metric_names(step - 1) if callable(phase.metric_names) else phase.metric_names
        values = dict(zip(names, np.asarray(vector).tolist(), strict=True))
        now = time.perf_counter()
        seconds = now - self._fetched_at
        self._fetched_at = now
        self.train_seconds += seconds
        values["tokens_per_second"] = values.pop("tokens") / seconds
        mfu = self._goodput.add_step(seconds, phase.arithmetic_seconds)
        if mfu is not None:
            values["mfu"] = mfu
        if not np.isfinite(values["loss"]) or not np.isfinite(values["grad_norm"]):
            self._writer.sync()
            raise TrainingError(
                f"the loss is {values['loss']} and the gradients' norm {values['grad_norm']} at step {step}"
                f" ({phase.describe_batch(step - 1)}): stopped; checkpoints before it are kept. Resume from them with"
                " other data order (a new --workdir, --init_from), or lower the learning rate"
            )
        if step % self._log_every == 0:
            self._writer.write(step, "train", values)
        self._bar.set_postfix_str(
            f"loss {values['loss']:.3f}, {values['tokens_per_second'] / 1e3:.1f}k tokens/s", refresh=False
        )
        self._bar.update()


def train(
    *,
    state: TrainState,
    phases: Sequence[CompiledPhase],
    cadence: Cadence,
    checkpoints: CheckpointStore,
    checkpoint_run: Mapping[str, Any],
    checkpoint_files: Mapping[str, bytes],
    writer: MetricWriter,
    stop: StopRequest,
    train_seconds: float = 0.0,
    profile: Profile | None = None,
    goodput: Goodput | None = None,
    early_stopping: EarlyStopping | None = None,
    goal: LossGoal | None = None,
) -> tuple[TrainState, dict[str, float] | None]:
    """Trains from the state's step to the end of the last phase, or until asked to stop.

    Args:
        state: donated, step by step.
        phases: in order, from step 0 of the run.
        cadence: of log, evaluation and checkpoints.
        checkpoints: where states go.
        checkpoint_run: JSON values saved with each.
        checkpoint_files: files saved with each.
        writer: of the log.
        stop: looked at after every step.
        train_seconds: spent in training steps up to the state's step, by the runs before this one.
        profile: steps to trace.
        goodput: counts where the time goes; its times are logged and saved with each checkpoint.
        early_stopping: ends the run before its last step, and notes that in the checkpoint.
        goal: does so too.

    Returns:
        The last state, and the metrics of the evaluation at its step, or None if there was none.

    Raises:
        TrainingError: a loss that is not finite.
        DataError: that of the batches, once the state before it is saved.
    """
    step = int(state.step)
    total_steps = sum(phase.steps for phase in phases)
    goodput = goodput or Goodput()
    reporter = _Reporter(writer, cadence.log_every, step, total_steps, train_seconds, goodput)
    best = checkpoints.best()
    is_over = False
    saved_step = step if step in checkpoints.steps() else None
    validation = None

    def save(judged: Mapping[str, float] | None) -> None:
        with goodput.measure(CHECKPOINTING):
            writer.write(step, SPLIT, goodput.metrics())
            writer.sync()
            record = {**checkpoint_run, TRAIN_SECONDS: reporter.train_seconds, SPLIT: goodput.to_json()}
            if early_stopping:
                record[EARLY_STOPPING] = early_stopping.to_json()
            if early_stopping or goal:
                record[STOPPED_EARLY] = is_over
            checkpoints.save(step, state, record, checkpoint_files, judged)

    def next_batch(batches: Iterator[Any]) -> Any:
        with goodput.measure(DATA):
            try:
                batch = next(batches)
            except DataError:
                # The steps so far are sound, and so is their state. Other processes, whose rows may be whole, would
                # have to save it too. Damaged rows of an evaluation save nothing: a run that went on from there would
                # never make that evaluation.
                if jax.process_count() == 1 and saved_step != step:
                    reporter.flush()
                    save(None)
                    checkpoints.wait()
                raise
            # The devices have not waited for what came while they were at work.
            if reporter.is_busy():
                goodput.reclassify(STEPPING)
        return batch

    with contextlib.ExitStack() as cleanup:
        cleanup.callback(reporter.close)
        cleanup.enter_context(goodput.measure(STEPPING))
        tracing = contextlib.ExitStack()
        cleanup.enter_context(tracing)
        for phase in phases:
            phase_end = phase.first_step + phase.steps
            if step >= phase_end:
                continue
            batches = phase.batches(step)
            while step < phase_end and not is_over and not stop.due(step):
                if profile and step == profile.first_step:
                    tracing.enter_context(jax.profiler.trace(profile.directory))
                state, metrics = phase.step(state, next_batch(batches))
                step += 1
                reporter.add(step, phase, metrics)
                if profile and step == profile.first_step + profile.steps:
                    reporter.flush()
                    tracing.close()
                    reporter.say(f"profile of {profile.steps} steps: {profile.directory}")

                is_last = step == total_steps
                validation = None
                if phase.evaluate and (is_last or _due(step, cadence.eval_every)):
                    reporter.flush()
                    with goodput.measure(EVALUATING):
                        validation = phase.evaluate(state.evaluated_params)
                    writer.write(step, "validation", {**validation, TRAIN_SECONDS: reporter.train_seconds})
                    # Baselines stay the same; they are in the log, and beside the last evaluation.
                    found = {name: value for name, value in validation.items() if not name.endswith("_baseline")}
                    reporter.say(f"step {step}: " + ", ".join(f"{name} {value:.4f}" for name, value in found.items()))
                    reporter.restart_clock()
                # Phases have validation rows of their own, whose losses do not compare: the last phase's decide.
                judged = validation if phase is phases[-1] else None
                badness = checkpoints.best_by.badness(judged) if judged is not None else None
                is_best = badness is not None and (best is None or badness < best)
                is_over = early_stopping is not None and badness is not None and early_stopping.add(badness)
                is_over = is_over or (goal is not None and judged is not None and goal.is_reached(judged))
                if is_last or is_over or is_best or _due(step, cadence.checkpoint_every):
                    reporter.flush()
                    save(judged)
                    saved_step = step
                    best = badness if is_best else best
                    reporter.restart_clock()
        reporter.flush()
        if saved_step != step:
            save(None)
        with goodput.measure(CHECKPOINTING):
            checkpoints.wait()
    return state, validation


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
