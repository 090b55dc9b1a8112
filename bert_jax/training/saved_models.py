"""Checkpoints opened for use rather than for training; see checkpoints.py for how they are written.

Finding one and reading what it says of itself imports no JAX, so that a user's mistake shows at once.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from bert_jax.errors import TrainingError, UserError
from bert_jax.text.json_files import JsonError, parse_json
from bert_jax.training.best import BestBy
from bert_jax.training.event_loops import patient_event_loops
from bert_jax.training.failed_reads import one_line, passing_reason, read_again

DIRECTORY = "checkpoints"
STATE, RUN, FILES = "state", "run", "files"
_RUN_FILE = "metadata"  # what orbax's JsonCheckpointHandler calls its file
# The record's own checksum in it.
_DIGEST = "record_sha256"
# Which checkpoint of a run, beside the number of a step.
LATEST, BEST, BEST_OR_LATEST = "latest", "best", "best or latest"
_REMEDY = "use another one"


class DamagedCheckpoint(ValueError):
    """A folder that cannot be a checkpoint as it was saved."""


def read_run(checkpoint: pathlib.Path) -> dict[str, Any]:
    """Reads the JSON that says what a checkpoint is.

    Raises:
        DamagedCheckpoint: it is not there, or it is not what was written.
        OSError: the machine could not read it.
    """
    path = checkpoint / RUN / _RUN_FILE
    if path.exists() and not path.is_file():
        raise DamagedCheckpoint(f"{RUN}/{_RUN_FILE} is not a file")
    try:
        record = parse_json(path.read_bytes())
    except OSError as error:
        if passing_reason(error):
            raise
        raise DamagedCheckpoint(f"{RUN}/{_RUN_FILE} is missing") from error
    except JsonError as error:
        raise DamagedCheckpoint(f"{RUN}/{_RUN_FILE} is not JSON: {error}") from error
    reason = _wrong_in(record)
    if reason:
        raise DamagedCheckpoint(f"{RUN}/{_RUN_FILE} {reason}")
    return record


def with_digest(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a checkpoint's record with the sha256 of all else that it says, by which `read_run` knows it again."""
    return {**record, _DIGEST: _digest(record)}


def _digest(record: Mapping[str, Any]) -> str:
    # As it comes back from JSON: tuples have become lists, and names strings.
    saved = {name: value for name, value in json.loads(json.dumps(record)).items() if name != _DIGEST}
    return hashlib.sha256(json.dumps(saved, sort_keys=True).encode()).hexdigest()


def _wrong_in(record: Any) -> str | None:
    """Says what a checkpoint's record lacks of all that every reader relies on; None if that is there."""
    if not isinstance(record, dict):
        return "is not a JSON object"
    # Checkpoints of before 2026-11-28 have none.
    if record.get(_DIGEST) not in (None, _digest(record)):
        return "is not as it was saved: its checksum differs"
    for name, kind in (("step", int), ("checksums", dict), ("validation", dict | None)):
        if name not in record or not isinstance(record[name], kind) or isinstance(record[name], bool):
            return f"does not say its {name}"
    if record["validation"]:
        try:
            BestBy.of_run(record).badness(record["validation"])
        except (LookupError, TypeError, ValueError, OverflowError):
            return "does not say how good it is by the metric that decides"
    return None


def read_whole(checkpoint: pathlib.Path) -> dict[str, Any]:
    """Returns what `read_run` does, of a checkpoint that has all its parts and its own name; raises as it does."""
    if not checkpoint.is_dir():
        raise DamagedCheckpoint("it is not a folder")
    record = read_run(checkpoint)
    if checkpoint.parent.name == DIRECTORY and checkpoint.name != str(record["step"]):
        raise DamagedCheckpoint(f"it holds step {record['step']}, and is not the one that was saved under this name")
    for item in (STATE, FILES):
        if not (checkpoint / item).is_dir():
            raise DamagedCheckpoint(f"{item} is missing")
    return record


def is_complete(checkpoint: pathlib.Path) -> bool:
    """Whether a checkpoint's folder has all its parts, as far as that shows without reading arrays.

    Raises:
        TrainingError: the machine cannot read it just now.
    """
    try:
        read_again(lambda: read_whole(checkpoint), str(checkpoint))
    except DamagedCheckpoint:
        return False
    return True


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
        chosen_as: says which of its run's checkpoints it is, such as "the best by loss"; empty where it was named.
        skipped: the checkpoints that could not be read when it was chosen: why, by step.
    """

    step: int
    run: Mapping[str, Any]
    files: pathlib.Path
    path: pathlib.Path
    chosen_as: str = ""
    skipped: Mapping[int, str] = dataclasses.field(default_factory=dict)

    def load_parameters(self, abstract_parameters: Any | None = None) -> Any:
        """Reads the parameters alone, not the optimizer's state: those that were evaluated.

        Of a run with an average of the parameters, that is the average.

        Args:
            abstract_parameters: shapes, dtypes and shardings; as saved, on the first device of this process, if None.

        Raises:
            UserError: the checkpoint is damaged.
            TrainingError: the machine cannot read it just now.
        """
        try:
            return read_again(lambda: self._load_parameters(abstract_parameters), str(self.path))
        except TrainingError:
            raise
        except Exception as error:  # orbax and tensorstore raise whatever the damage leads them to
            raise UserError(f"{self.path} is damaged: {one_line(error)}; use another one") from error

    def _load_parameters(self, abstract_parameters: Any | None) -> Any:
        import jax
        import orbax.checkpoint as ocp

        name = "ema" if any(path.startswith("ema/") for path in self.run["checksums"]) else "params"
        with patient_event_loops(), ocp.PyTreeCheckpointer() as checkpointer:
            metadata = checkpointer.metadata(self.path / STATE).item_metadata
            if metadata is None:
                raise ValueError(f"what {STATE} says of its arrays cannot be read")
            metadata = metadata.tree[name]
            if abstract_parameters is None:
                device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
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
    return (path / STATE).is_dir() or bool(finished_steps(path))


def finished_steps(workdir: pathlib.Path) -> list[int]:
    """The steps that a run has finished checkpoints of, in order; some may be damaged, or be no folders.

    Raises:
        TrainingError: the machine cannot list them just now.
    """

    def listed() -> list[int]:
        try:
            with os.scandir(workdir / DIRECTORY) as entries:
                return sorted(int(entry.name) for entry in entries if _is_step(entry.name))
        except (FileNotFoundError, NotADirectoryError):
            return []

    return read_again(listed, str(workdir / DIRECTORY))


def _is_step(name: str) -> bool:
    return name.isascii() and name.isdecimal() and len(name) < 20


def open_model(path: str | pathlib.Path, step: str = LATEST) -> SavedModel:
    """Opens a run's folder, or one of its checkpoints' folders.

    Among several checkpoints only those are chosen from whose record can be read.

    Args:
        path: the run's folder (--workdir), or RUN/checkpoints/STEP, wherever it was copied to.
        step: for a run's folder, LATEST; BEST, that of the lowest validation loss or the best by the run's own metric;
            BEST_OR_LATEST, the latest where none was ever evaluated; or a number.

    Raises:
        UserError: there is no such checkpoint, or none that can be read, or no telling which is the best.
        TrainingError: the machine cannot read it just now.
    """
    path = pathlib.Path(path).absolute()
    if not path.is_dir():
        raise UserError(f"no model at {path}: no such directory")
    if (path / STATE).is_dir():
        if step not in (LATEST, BEST_OR_LATEST):
            raise UserError(f"{path} is a single checkpoint: another ({step}) can be chosen of a run's folder only")
        return _open_named(path)
    steps = finished_steps(path)
    if not steps:
        raise UserError(f"no model at {path}: it holds no finished checkpoint; give the --workdir of a training run")
    if step not in (LATEST, BEST, BEST_OR_LATEST):
        if step not in map(str, steps):
            raise UserError(f"{path} has no checkpoint of step {step}: it has {', '.join(map(str, steps))}")
        return _open_named(path / DIRECTORY / step)
    return _choose(path, steps, step)


def _choose(path: pathlib.Path, steps: Sequence[int], wanted: str) -> SavedModel:
    """Opens the latest or the best of a run's checkpoints."""
    readable: list[SavedModel] = []
    skipped: dict[int, str] = {}
    for step in reversed(steps):
        try:
            readable.append(_open(path / DIRECTORY / str(step)))
        except DamagedCheckpoint as error:
            skipped[step] = str(error)
        if wanted == LATEST and readable:
            break
    if not readable:
        newest = steps[-1]
        raise UserError(f"{path / DIRECTORY / str(newest)} is not a readable checkpoint: {skipped[newest]}; {_REMEDY}")
    evaluated = [model for model in readable if model.run["validation"]]
    if wanted != LATEST and evaluated:
        # Of equals the first, as when a run decides which checkpoint to keep and when to stop.
        best = min(evaluated, key=_badness)
        return dataclasses.replace(best, chosen_as=f"the best by {BestBy.of_run(best.run).metric}", skipped=skipped)
    if wanted != LATEST and skipped:
        raise UserError(
            f"{path}: no checkpoint that can be read was evaluated, and {_listed(skipped)} cannot be read: there is no"
            f" telling which is the best; name one of {', '.join(str(model.step) for model in readable)}"
        )
    if wanted == BEST:
        raise UserError(f"{path} has no checkpoint with a validation loss: use the latest")
    chosen_as = "the latest" if wanted == LATEST else "the latest, as none was evaluated"
    return dataclasses.replace(readable[0], chosen_as=chosen_as, skipped=skipped)


def _badness(model: SavedModel) -> tuple[float, int]:
    return BestBy.of_run(model.run).badness(model.run["validation"]), model.step


def _listed(skipped: Mapping[int, str]) -> str:
    return ", ".join(map(str, sorted(skipped)))


def _open_named(path: pathlib.Path) -> SavedModel:
    try:
        return _open(path)
    except DamagedCheckpoint as error:
        raise UserError(f"{path} is not a readable checkpoint: {error}; {_REMEDY}") from error


def _open(path: pathlib.Path) -> SavedModel:
    run = read_again(lambda: read_whole(path), str(path))
    return SavedModel(step=run["step"], run=run, files=path / FILES, path=path)
