"""Checkpoints: the state by orbax, and beside it all that another machine needs to use it.

A run's folder holds checkpoints/STEP/, each with three items: `state`, the arrays; `run`, JSON that says what they are (the
architecture, what must match on resuming, the metrics); and `files`, the tokenizer and the configuration as they were.
Saving is asynchronous, and an unfinished save is never taken for a checkpoint.
"""

import dataclasses
import pathlib
import shutil
import sys
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import preservation_policy

from bert_jax.errors import TrainingError, UserError

DIRECTORY = "checkpoints"
DAMAGED_DIRECTORY = "damaged_checkpoints"
_STATE, _RUN, _FILES = "state", "run", "files"
# The metric by which the best checkpoint is told, of the validation split.
BEST_METRIC = "loss"


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


class CheckpointStore:
    """The checkpoints of one run.

    Keeps the last few, and the one with the lowest validation loss.
    """

    def __init__(self, workdir: str | pathlib.Path, keep: int):
        """Opens the store of a run's folder and removes unfinished saves."""
        self._workdir = epath.Path(workdir)
        self._directory = epath.Path(pathlib.Path(workdir).absolute() / DIRECTORY)
        self._keep = keep
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        latest = preservation_policy.LatestN(self._keep)
        best = preservation_policy.BestN(
            get_metric_fn=lambda metrics: -metrics[BEST_METRIC], n=1, keep_checkpoints_without_metrics=False
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=preservation_policy.AnyPreservationPolicy([latest, best]),
            cleanup_tmp_directories=True,
        )
        registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
        for name, save, restore, handler in (
            (_STATE, ocp.args.StandardSave, ocp.args.StandardRestore, ocp.StandardCheckpointHandler()),
            (_RUN, ocp.args.JsonSave, ocp.args.JsonRestore, ocp.JsonCheckpointHandler()),
        ):
            registry.add(name, save, handler)
            registry.add(name, restore, handler)
        registry.add(_FILES, FilesSave, FilesHandler())
        return ocp.CheckpointManager(self._directory, options=options, handler_registry=registry)

    def steps(self) -> list[int]:
        """The steps that have a finished checkpoint, in order."""
        return sorted(self._manager.all_steps())

    def best_loss(self) -> float | None:
        """The lowest validation loss among the checkpoints that have one."""
        infos = [self._manager.metrics(step) for step in self.steps()]
        losses = [metrics[BEST_METRIC] for metrics in infos if metrics]
        return min(losses, default=None)

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
        """
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    run=ocp.args.JsonSave({**run, "step": step, "validation": dict(validation) if validation else None}),
                    files=FilesSave(files),
                ),
                metrics=dict(validation) if validation else None,
            )
        except OSError as error:
            raise UserError(f"cannot save a checkpoint to {self._directory}: {error.strerror or error}") from error

    def wait(self) -> None:
        """Waits until the last save is finished."""
        try:
            self._manager.wait_until_finished()
        except OSError as error:
            raise UserError(f"cannot save a checkpoint to {self._directory}: {error.strerror or error}") from error

    def restore_latest(self, abstract_state: Any) -> tuple[int, Any] | None:
        """Restores the newest checkpoint that can be read; damaged ones are moved aside, and said so.

        Args:
            abstract_state: shapes, dtypes and shardings.

        Returns:
            The step and the state, or None where there is no checkpoint.
        """
        for step in reversed(self.steps()):
            try:
                args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state))
                return step, self._manager.restore(step, args=args)[_STATE]
            except Exception as error:  # orbax and tensorstore raise whatever the damage leads them to
                reason = " ".join(str(error).split())[:200]
                print(f"checkpoint {step} is damaged ({reason}): falling back to the one before", file=sys.stderr)
                self._set_aside(step)
        if (self._workdir / DAMAGED_DIRECTORY).exists() and not self.steps():
            raise TrainingError(
                f"no checkpoint in {self._directory} can be read; they lie in {self._workdir / DAMAGED_DIRECTORY}:"
                " start again in a new --workdir"
            )
        return None

    def _set_aside(self, step: int) -> None:
        self._manager.close()
        damaged = pathlib.Path(self._workdir) / DAMAGED_DIRECTORY
        damaged.mkdir(exist_ok=True)
        target = damaged / str(step)
        if target.exists():
            shutil.rmtree(target)
        shutil.move(self._directory / str(step), target)
        self._manager = self._open()

    def close(self) -> None:
        """Waits for the last save and lets go of the directory."""
        self._manager.close()


@dataclasses.dataclass(frozen=True)
class SavedModel:
    """A checkpoint opened for use rather than for training.

    Attributes:
        step: updates made.
        run: the JSON that was saved with it.
        files: the folder of the saved files; the tokenizer is in files/tokenizer.
        path: the checkpoint's folder.
    """

    step: int
    run: Mapping[str, Any]
    files: pathlib.Path
    path: pathlib.Path

    def load_parameters(self, abstract_parameters: Any | None = None) -> Any:
        """Reads the parameters alone, not the optimizer's state.

        Args:
            abstract_parameters: shapes, dtypes and shardings; as saved, on the first device, if None.
        """
        with ocp.PyTreeCheckpointer() as checkpointer:
            metadata = checkpointer.metadata(self.path / _STATE).item_metadata.tree["params"]
            if abstract_parameters is None:
                device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
                abstract_parameters = jax.tree.map(
                    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), metadata
                )
            item = {"params": abstract_parameters}
            arguments = ocp.args.PyTreeRestore(
                item, restore_args=ocp.checkpoint_utils.construct_restore_args(item), partial_restore=True
            )
            return checkpointer.restore(self.path / _STATE, arguments)["params"]


def open_model(path: str | pathlib.Path, step: str = "latest") -> SavedModel:
    """Opens a run's folder, or one of its checkpoints' folders.

    Args:
        path: the run's folder (--workdir), or RUN/checkpoints/STEP, wherever it was copied to.
        step: "latest", "best" (lowest validation loss) or a number; for a run's folder.
    """
    path = pathlib.Path(path).absolute()
    if not path.is_dir():
        raise UserError(f"no model at {path}: no such directory")
    if (path / _STATE).is_dir():
        return _open_checkpoint(path)
    candidates = sorted(
        (int(entry.name) for entry in (path / DIRECTORY).glob("*") if entry.name.isdigit() and entry.is_dir()),
        reverse=True,
    )
    if not candidates:
        raise UserError(f"no model at {path}: it holds no finished checkpoint; give the --workdir of a training run")
    opened = [_open_checkpoint(path / DIRECTORY / str(candidate)) for candidate in candidates]
    if step == "latest":
        return opened[0]
    if step == "best":
        evaluated = [model for model in opened if model.run.get("validation")]
        if not evaluated:
            raise UserError(f"{path} has no checkpoint with a validation loss: use the latest")
        return min(evaluated, key=lambda model: model.run["validation"][BEST_METRIC])
    for model in opened:
        if str(model.step) == step:
            return model
    raise UserError(f"{path} has no checkpoint of step {step}: it has {', '.join(map(str, reversed(candidates)))}")


def _open_checkpoint(path: pathlib.Path) -> SavedModel:
    try:
        with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as checkpointer:
            run = checkpointer.restore(path / _RUN)
        return SavedModel(step=run["step"], run=run, files=path / _FILES, path=path)
    except Exception as error:
        raise UserError(f"{path} is not a readable checkpoint: {' '.join(str(error).split())[:200]}") from error
