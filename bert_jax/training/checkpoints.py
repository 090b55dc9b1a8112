"""Checkpoints: the state by orbax, and beside it all that another machine needs to use it.

A run's folder holds checkpoints/STEP/, each with three items: `state`, the arrays; `run`, JSON that says what they are
(the architecture, what must match on resuming, the metrics, checksums of the arrays); and `files`, the tokenizer and
the configuration as they were. Saving is asynchronous, and an unfinished save is never taken for a checkpoint.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NoReturn

import jax
import orbax.checkpoint as ocp
from etils import epath

from bert_jax.durable_files import (
    REMOVED,
    UNFINISHED,
    hidden_sibling,
    make_folder,
    publish,
    remove_folder,
    sync_folder,
)
from bert_jax.errors import TrainingError, UserError
from bert_jax.parallel.processes import await_all
from bert_jax.training.best import BestBy
from bert_jax.training.checksums import tree_checksums
from bert_jax.training.event_loops import patient_event_loops
from bert_jax.training.failed_reads import one_line, passing_reason, read_again, system_error, unreadable
from bert_jax.training.saved_models import (
    DIRECTORY,
    FILES,
    RUN,
    STATE,
    DamagedCheckpoint,
    SavedModel,
    check_checksums,
    finished_steps,
    is_complete,
    leaves_by_path,
    open_model,
    read_run,
    read_whole,
    with_digest,
)
from bert_jax.training.train_state import TrainState

__all__ = ["DIRECTORY", "CheckpointStore", "SavedModel", "open_model", "write_model"]

DAMAGED_DIRECTORY = "damaged_checkpoints"
# Names in a run's checkpoints/ of what was being written, by us or by orbax, or removed.
_UNFINISHED = re.compile(rf"\.({UNFINISHED}|{REMOVED}|orbax-checkpoint-tmp)")


class FilesHandler(ocp.CheckpointHandler):
    """Lets orbax save small files, given as bytes by their relative path, as one item of a checkpoint."""

    def save(self, directory: epath.Path, args: "FilesSave") -> None:
        """Writes the files below `directory`, from the first process only."""
        if jax.process_index() != 0:
            return
        for name, content in args.files.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def restore(self, directory: epath.Path, args: Any = None) -> epath.Path:
        """Returns where the files are."""
        del args
        return directory


@ocp.args.register_with_handler(FilesHandler, for_save=True)
@dataclasses.dataclass
class FilesSave(ocp.args.CheckpointArgs):
    """The files to save: content by relative path."""

    files: Mapping[str, bytes]


def _handler_registry() -> ocp.handlers.DefaultCheckpointHandlerRegistry:
    """Which of orbax's handlers, and ours, takes each item of a checkpoint."""
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    for name, save, restore, handler in (
        (STATE, ocp.args.StandardSave, ocp.args.StandardRestore, ocp.StandardCheckpointHandler()),
        (RUN, ocp.args.JsonSave, ocp.args.JsonRestore, ocp.JsonCheckpointHandler()),
    ):
        registry.add(name, save, handler)
        registry.add(name, restore, handler)
    registry.add(FILES, FilesSave, FilesHandler())
    return registry


class CheckpointStore:
    """The checkpoints of one run.

    Keeps the last few, and the best of those that were evaluated. A checkpoint has its name, the step, once all of it
    is on disk; only then those that it supersedes are removed.

    Attributes:
        best_by: says which is the best.
    """

    def __init__(self, workdir: str | pathlib.Path, keep: int, best_by: BestBy | None = None):
        """Opens the store of a run's folder and removes what ended processes left unfinished.

        Args:
            workdir: the run's folder.
            keep: how many of the last are kept.
            best_by: says which is the best; the lowest validation loss if None.

        Raises:
            UserError: the folder cannot be written.
            TrainingError: what is there cannot be read just now.
        """
        self._workdir = pathlib.Path(workdir).absolute()
        self._directory = self._workdir / DIRECTORY
        self._keep = keep
        self.best_by = best_by or BestBy()
        self._is_main = jax.process_index() == 0
        handler = ocp.CompositeCheckpointHandler(handler_registry=_handler_registry())
        self._checkpointer = ocp.AsyncCheckpointer(handler)
        self._finisher = concurrent.futures.ThreadPoolExecutor(1)
        self._finishing: concurrent.futures.Future[None] | None = None
        with self._writing():
            make_folder(self._directory)
            if self._is_main:
                self._clear()
        self._badness: dict[int, float] = {}
        for step in self.steps():
            # The machine must be able to read all records: the best is removed by one that takes another for it.
            with contextlib.suppress(DamagedCheckpoint, LookupError, TypeError, ValueError):
                self._badness[step] = self.best_by.badness(self.record(step)["validation"])

    def _clear(self) -> None:
        """Removes what was being written or removed when its process ended."""
        for entry in self._directory.iterdir():
            if entry.is_dir() and _UNFINISHED.search(entry.name):
                shutil.rmtree(entry)

    def steps(self) -> list[int]:
        """The steps that have a finished checkpoint, in order."""
        return finished_steps(self._workdir)

    def best(self) -> float | None:
        """The badness (see `BestBy`) of the best checkpoint among those that were evaluated."""
        return min((self._badness[step] for step in self.steps() if step in self._badness), default=None)

    def record(self, step: int) -> dict[str, Any]:
        """The JSON values saved with a checkpoint; empty where there is none."""
        path = self._path(step)
        return read_again(lambda: read_run(path), f"checkpoint {step}") if path.is_dir() else {}

    def _path(self, step: int) -> pathlib.Path:
        return self._directory / str(step)

    def save(
        self,
        step: int,
        state: Any,
        run: Mapping[str, Any],
        files: Mapping[str, bytes],
        validation: Mapping[str, float] | None,
    ) -> None:
        """Begins to save; returns as soon as the state may be changed.

        Args:
            step: updates made so far.
            state: a pytree of arrays.
            run: JSON values.
            files: content by relative path.
            validation: metrics of the validation split at this step, if it was evaluated.

        Raises:
            TrainingError: the state holds a number that is not finite.
            UserError: this save or the one before it could not be written.
        """
        # An update can overflow although its loss and gradients did not; such a state would only be found out one step
        # later, when it has taken the place of a good one.
        checksums, is_finite = tree_checksums(state)
        if not is_finite:
            raise TrainingError(
                f"the update of step {step} left parameters or moments that are not finite: stopped; checkpoints"
                " before it are kept. Lower the learning rate and begin a new --workdir (--init_from takes their"
                " weights)"
            )
        record = {
            **run,
            **self.best_by.to_json(),
            "step": step,
            "validation": dict(validation) if validation else None,
            "checksums": checksums,
        }
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(_stored(state)),
            run=ocp.args.JsonSave(with_digest(record)),
            files=FilesSave(files),
        )
        self.wait()
        if validation:
            self._badness[step] = self.best_by.badness(validation)
        unfinished = hidden_sibling(self._path(step), UNFINISHED)
        with contextlib.ExitStack() as held, self._writing():
            held.enter_context(patient_event_loops())
            self._checkpointer.save(epath.Path(unfinished), items)
            self._finishing = self._finisher.submit(self._finish, unfinished, step, held.pop_all())

    def _finish(self, unfinished: pathlib.Path, step: int, held: contextlib.ExitStack) -> None:
        """Waits until all is written, brings it to the disk, gives it its name, and removes what it supersedes."""
        with held:
            self._checkpointer.wait_until_finished()
        if self._is_main:
            publish(unfinished, self._path(step))
            self._prune()
        # All processes see the same checkpoints, and so the same best, once they have waited.
        await_all(f"checkpoint {step} has its name")

    def wait(self) -> None:
        """Waits until the last save is finished; raises a UserError if it could not be written."""
        finishing, self._finishing = self._finishing, None
        if finishing:
            with self._writing():
                finishing.result()

    def _prune(self) -> None:
        """Removes the checkpoints that are neither among the last few nor the best."""
        steps = self.steps()
        evaluated = [step for step in steps if step in self._badness]
        best = [min(evaluated, key=self._badness.__getitem__)] if evaluated else []
        for step in steps:
            if step not in [*steps[-self._keep :], *best]:
                remove_folder(self._path(step))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Says in the user's terms why a checkpoint cannot be written."""
        try:
            yield
        except (OSError, ValueError) as error:
            code = system_error(error)
            if code is None:
                raise
            raise UserError(
                f"cannot write to {self._directory}: {os.strerror(code)}; make room there, or give another --workdir"
            ) from error

    def restore_latest(self, abstract_state: Any) -> tuple[int, Any] | None:
        """Restores the newest checkpoint that is sound; damaged ones are moved aside, and said so.

        Args:
            abstract_state: shapes, dtypes and shardings.

        Returns:
            The step and the state, or None where there is no checkpoint.

        Raises:
            TrainingError: there are checkpoints, and all are damaged, or the machine cannot read one just now; they are
                left where they are. Or one of several processes found the newest damaged, and has moved it aside for
                the next start.
        """
        damaged: dict[int, str] = {}
        for step in reversed(self.steps()):
            try:
                state = self._read(step, abstract_state)
            except TrainingError:
                raise
            except Exception as error:  # orbax and tensorstore raise whatever the damage leads them to
                if jax.process_count() > 1:
                    self._give_up_together(step, error)
                damaged[step] = one_line(error)
                continue
            for other, reason in damaged.items():
                print(f"checkpoint {other} is damaged ({reason}): falling back to the one before", file=sys.stderr)
            if self._is_main:
                self._tidy(damaged)
            await_all("checkpoints are tidied")
            return step, state
        if damaged:
            newest = max(damaged)
            raise TrainingError(
                f"no checkpoint in {self._directory} can be read; the newest, {newest}, fails with: {damaged[newest]};"
                " restore the folder, or start again in a new --workdir"
            )
        return None

    def _tidy(self, damaged: Collection[int]) -> None:
        """Moves aside what is damaged, also of older checkpoints as far as that shows, and removes what is superseded.

        Earlier versions removed checkpoints file by file, and left halves of them when they were killed.
        """
        halves = [step for step in self.steps() if step not in damaged and not is_complete(self._path(step))]
        for step in halves:
            print(f"checkpoint {step} is not complete: moved to {DAMAGED_DIRECTORY}", file=sys.stderr)
        with self._writing():
            self._move_aside([*damaged, *halves])
            self._prune()

    def _give_up_together(self, step: int, error: Exception) -> NoReturn:
        """Raises the error of a checkpoint that one of several processes cannot read.

        The others may find their parts of it whole, and already wait for this process: they cannot fall back together,
        but after a new start they can.
        """
        if isinstance(error, jax.errors.JaxRuntimeError):
            # Not the checkpoint but a process is lost.
            raise error
        if why := passing_reason(error):
            raise unreadable(f"checkpoint {step}", why) from error
        reason = f"checkpoint {step} is damaged ({one_line(error)})"
        # Another process that found the same damage may have moved it aside already.
        if not set(self.steps()) - {step}:
            raise TrainingError(
                f"{reason}, and {self._directory} has no other: restore the folder, or start again in a new --workdir"
            ) from error
        # Several processes may find the same damage.
        with contextlib.suppress(FileNotFoundError):
            self._move_aside([step])
        raise TrainingError(
            f"{reason} and now lies in {DAMAGED_DIRECTORY}: start all processes again, and the run goes on from the"
            " checkpoint before"
        ) from error

    def _read(self, step: int, abstract_state: Any) -> Any:
        if jax.process_count() > 1:
            # One of several does nothing again: the others would not, and each would wait for the other.
            return self._restore(step, abstract_state)
        return read_again(lambda: self._restore(step, abstract_state), f"checkpoint {step}")

    def _restore(self, step: int, abstract_state: Any) -> Any:
        path = self._path(step)
        checksums = read_whole(path)["checksums"]
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(_stored(abstract_state)))
        with patient_event_loops():
            state = self._checkpointer.restore(epath.Path(path), arguments)[STATE]
        if isinstance(abstract_state, TrainState):
            state = abstract_state._replace(**state._asdict())
        check_checksums(state, checksums)
        return state

    def _move_aside(self, steps: Iterable[int]) -> None:
        directory = self._workdir / DAMAGED_DIRECTORY
        for step in steps:
            make_folder(directory)
            target = directory / str(step)
            # Of several processes that find the same damage one has it, and only that one removes an earlier find.
            found = hidden_sibling(target, UNFINISHED)
            os.rename(self._path(step), found)
            if target.exists():
                remove_folder(target)
            os.rename(found, target)
            sync_folder(directory)
            sync_folder(self._directory)
            self._badness.pop(step, None)

    def close(self) -> None:
        """Waits for the last save and lets go of the directory."""
        try:
            self.wait()
        finally:
            self._finisher.shutdown()
            self._checkpointer.close()


def _stored(state: Any) -> Any:
    """Returns of a TrainState the fields that the run has.

    What only other runs have is no part of its checkpoints: they are as they were before there was such a thing.
    """
    if not isinstance(state, TrainState):
        return state
    fields = {name: value for name, value in state._asdict().items() if value is not None}
    return collections.namedtuple("State", fields)(**fields)


def write_model(path: pathlib.Path, parameters: Any, run: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    """Writes a checkpoint without an optimizer's state, laid out as RUN/checkpoints/STEP, for `open_model`.

    Args:
        path: the checkpoint's folder; must not exist.
        parameters: a nested dict of arrays.
        run: JSON values; the architecture, the model's class, its labels, its step.
        files: content by relative path; the tokenizer's under tokenizer/.

    Raises:
        UserError: the parameters hold a number that is not finite, or the folder cannot be written.
    """
    state = {"params": parameters}
    checksums: dict[str, int] = {}
    for name, leaf in leaves_by_path(state).items():
        checksum, is_finite = tree_checksums({name: leaf})
        if not is_finite:
            raise UserError(f"{name.removeprefix('params/')} holds numbers that are not finite: use another model")
        checksums |= checksum
    record = {**run, "checksums": checksums}
    items = ocp.args.Composite(
        **{STATE: ocp.args.PyTreeSave(state), RUN: ocp.args.JsonSave(with_digest(record)), FILES: FilesSave(files)}
    )
    registry = _handler_registry()
    # Trained weights hardly shrink, and compressing them takes three times as long and all of the model's size again.
    registry.add(STATE, ocp.args.PyTreeSave, ocp.PyTreeCheckpointHandler(use_compression=False))
    try:
        handler = ocp.CompositeCheckpointHandler(handler_registry=registry)
        with patient_event_loops(), ocp.Checkpointer(handler) as checkpointer:
            checkpointer.save(epath.Path(path.absolute()), items)
    except (OSError, ValueError) as error:
        code = system_error(error)
        if code is None:
            raise
        raise UserError(
            f"cannot write {path}: {os.strerror(code)}; make room there, or choose another folder"
        ) from error
