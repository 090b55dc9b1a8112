"""Checkpoints opened for use rather than for training; see checkpoints.py for how they are written.

Finding one and reading what it says of itself imports no JAX, so that a user's mistake shows at once.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from bert_jax.errors import UserError
from bert_jax.training.best import BestBy

DIRECTORY = "checkpoints"
STATE, RUN, FILES = "state", "run", "files"
_RUN_FILE = "metadata"  # what orbax's JsonCheckpointHandler calls its file


def read_run(checkpoint: pathlib.Path) -> dict[str, Any]:
    """Reads the JSON that says what a checkpoint is."""
    return json.loads((checkpoint / RUN / _RUN_FILE).read_text())


def check_checksums(tree: Any, checksums: Mapping[str, int], prefix: str = "") -> None:
    """Raises a ValueError that names an array which is not as it was saved."""
    from bert_jax.training.checksums import tree_checksums

    found, _ = tree_checksums(tree)
    for name, checksum in found.items():
        if checksums.get(prefix + name) != checksum:
            raise ValueError(f"{prefix}{name} is not as it was saved: its checksum differs")


def leaves_by_path(tree: Any) -> dict[str, Any]:
    """Flattens a nested dict of arrays; the keys on the way to each, joined by slashes."""
    import jax

    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


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
        """Reads the parameters alone, not the optimizer's state: those that were evaluated.

        Of a run with an average of the parameters, that is the average.

        Args:
            abstract_parameters: shapes, dtypes and shardings; as saved, on the first device, if None.

        Raises:
            UserError: the checkpoint is damaged.
        """
        try:
            return self._load_parameters(abstract_parameters)
        except Exception as error:  # orbax and tensorstore raise whatever the damage leads them to
            raise UserError(f"{self.path} is damaged: {' '.join(str(error).split())[:200]}; use another one") from error

    def _load_parameters(self, abstract_parameters: Any | None) -> Any:
        import jax
        import orbax.checkpoint as ocp

        name = "ema" if any(path.startswith("ema/") for path in self.run["checksums"]) else "params"
        with ocp.PyTreeCheckpointer() as checkpointer:
            metadata = checkpointer.metadata(self.path / STATE).item_metadata.tree[name]
            if abstract_parameters is None:
                device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
                abstract_parameters = jax.tree.map(
                    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), metadata
                )
            item = {name: abstract_parameters}
            arguments = ocp.args.PyTreeRestore(
                item, restore_args=ocp.checkpoint_utils.construct_restore_args(item), partial_restore=True
            )
            parameters = checkpointer.restore(self.path / STATE, arguments)[name]
        # One by one: what checksums of all of them take while they are computed is more than the model itself.
        for path, leaf in leaves_by_path(parameters).items():
            check_checksums({path: leaf}, self.run["checksums"], f"{name}/")
        return parameters


def holds_checkpoint(path: pathlib.Path) -> bool:
    """Whether a folder is a finished checkpoint, or a run's with at least one."""
    return (path / STATE).is_dir() or bool(_steps(path))


def _steps(path: pathlib.Path) -> list[int]:
    """The steps of a run's finished checkpoints, the newest first."""
    entries = (path / DIRECTORY).glob("*")
    return sorted((int(entry.name) for entry in entries if entry.name.isdigit() and entry.is_dir()), reverse=True)


def open_model(path: str | pathlib.Path, step: str = "latest") -> SavedModel:
    """Opens a run's folder, or one of its checkpoints' folders.

    Args:
        path: the run's folder (--workdir), or RUN/checkpoints/STEP, wherever it was copied to.
        step: "latest", "best" (lowest validation loss, or the run's own metric) or a number; for a run's folder.
    """
    path = pathlib.Path(path).absolute()
    if not path.is_dir():
        raise UserError(f"no model at {path}: no such directory")
    if (path / STATE).is_dir():
        return _open_checkpoint(path)
    candidates = _steps(path)
    if not candidates:
        raise UserError(f"no model at {path}: it holds no finished checkpoint; give the --workdir of a training run")
    if step == "latest":
        return _open_checkpoint(path / DIRECTORY / str(candidates[0]))
    if step == "best":
        opened = [_open_checkpoint(path / DIRECTORY / str(candidate)) for candidate in candidates]
        evaluated = [model for model in opened if model.run.get("validation")]
        if not evaluated:
            raise UserError(f"{path} has no checkpoint with a validation loss: use the latest")
        # Of equals the first, as when a run decides which checkpoint to keep and when to stop.
        return min(evaluated, key=lambda model: (BestBy.of_run(model.run).badness(model.run["validation"]), model.step))
    if step in map(str, candidates):
        return _open_checkpoint(path / DIRECTORY / step)
    raise UserError(f"{path} has no checkpoint of step {step}: it has {', '.join(map(str, reversed(candidates)))}")


def _open_checkpoint(path: pathlib.Path) -> SavedModel:
    try:
        run = read_run(path)
        return SavedModel(step=run["step"], run=run, files=path / FILES, path=path)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{path} is not a readable checkpoint: {' '.join(str(error).split())[:200]}") from error
