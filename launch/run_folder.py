"""The folder of a run: new, or of this very run.

A folder that holds something else is never written to.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from absl import flags

from bert_jax.durable_files import make_folder
from bert_jax.errors import UserError
from bert_jax.numerics import Numerics
from bert_jax.text.json_files import expect_type
from bert_jax.training.failed_reads import passing_reason
from bert_jax.training.run_identity import IDENTITY_FILE, check_identity, read_identity
from bert_jax.training.saved_models import holds_checkpoint, open_model
from launch.dry_run import check_directory
from launch.mesh_flags import parse_mesh_flags

# What --init_from says for a random start, in launchers that need it to be said.
NO_MODEL = "none"


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """A run's folder, new or of this very run.

    Attributes:
        path: the folder.
        saved: what the run in it is; None if it is new, or has no checkpoint yet.
        identity: what the run is that was asked for.
    """

    path: pathlib.Path
    saved: Mapping[str, Any] | None
    identity: Mapping[str, Any]

    @contextlib.contextmanager
    def made(self) -> Iterator[None]:
        """Makes the folder if it is not there, and takes it away again if then the run could not begin."""
        is_new = not self.path.exists()
        make_directory("workdir", self.path)
        try:
            yield
        finally:
            if is_new:
                # One that holds anything is kept.
                with contextlib.suppress(OSError):
                    self.path.rmdir()

    @property
    def init_from(self) -> str | None:
        """Whose weights the run begins with."""
        return self.identity["init_from"]

    @property
    def numerics(self) -> Numerics:
        """With what the run was begun, or is."""
        return Numerics.of_run(self.identity)


def workdir_of(values: flags.FlagValues) -> pathlib.Path:
    """Returns --workdir, and checks the other flags of a run as far as that needs nothing else."""
    if not values.workdir:
        raise UserError("--workdir is missing: the folder of the run")
    if "://" in values.workdir:
        raise UserError(
            f"--workdir={values.workdir}: must be a folder that all processes share; mount the bucket (such as with"
            " gcsfuse) and give its path"
        )
    parse_mesh_flags(values)
    for flag in ("workdir", "compilation_cache_dir"):
        if values[flag].value:
            check_directory(flag, pathlib.Path(values[flag].value))
    return pathlib.Path(values.workdir)


def open_folder(
    values: flags.FlagValues,
    identity: Mapping[str, Any],
    check_weights: Callable[[str], None],
    *,
    last_steps: str,
    schedule_depends_on_steps: bool,
) -> RunFolder:
    """Finds out whether --workdir is new or holds this very run, and can be written to; see `RunFolder.made`.

    Args:
        values: the flags.
        identity: what must match; `init_from` is added, and the numerics that the run was begun with.
        check_weights: raises a UserError if a new run cannot begin with the weights of this model.
        last_steps: the name in the identity of the run's length, which may grow.
        schedule_depends_on_steps: whether another length means other learning rates.

    Raises:
        UserError: it holds something else, or cannot be written.
    """
    workdir = workdir_of(values)
    saved = run_in(workdir)
    has_checkpoint = holds_checkpoint(workdir)
    if saved is None and holds_anything(workdir):
        raise UserError(f"--workdir={workdir} holds files, but no run: give an empty or a new folder")
    # Without a checkpoint there is nothing that another batch size, or another model to begin with, could spoil.
    begun = saved if has_checkpoint else None
    init_from = _source_of_weights(values.init_from, workdir, begun, check_weights)
    # As it comes back from the folder: tuples have become lists.
    begun_with = Numerics.of_run(begun, workdir).identity()
    folder = RunFolder(workdir, begun, json.loads(json.dumps({**identity, "init_from": init_from, **begun_with})))
    if begun:
        check_identity(
            workdir,
            begun,
            folder.identity,
            last_steps=last_steps,
            schedule_depends_on_steps=schedule_depends_on_steps,
            allow_schedule_change=values.allow_schedule_change,
        )
    elif saved:
        print(f"the run in {workdir} has no checkpoint yet: it begins again{_changes(saved, folder.identity)}")
    return folder


def holds_anything(folder: pathlib.Path) -> bool:
    """Whether a folder holds anything but hidden files, which systems make, and which a killed process may leave."""
    return folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir())


def run_in(workdir: pathlib.Path) -> Mapping[str, Any] | None:
    """Returns what the run in a folder is, from one of its checkpoints if need be; None if none began there."""
    try:
        saved, problem = read_identity(workdir), "is missing"
    except UserError as error:
        saved, problem = None, "is damaged"
        if passing_reason(error) or not holds_checkpoint(workdir):
            raise
    if saved is None and holds_checkpoint(workdir):
        model = open_model(workdir)
        saved = model.run.get("identity")
        if not isinstance(saved, dict):
            raise UserError(f"{workdir / IDENTITY_FILE} {problem}, and no checkpoint says what the run is: restore it")
        print(f"{workdir / IDENTITY_FILE} {problem}: checkpoint {model.step} says what the run is")
    return saved


def _changes(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Says what of a run is not as it was when it first began."""
    names = [name for name in wanted if name in saved and saved[name] != wanted[name]]
    return f", with another {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}" if names else ""


def model_to_describe(init_from: str | None, workdir: pathlib.Path) -> str | None:
    """Returns the model whose architecture and tokenizer a run has: that of --init_from, or a run's own checkpoint.

    A checkpoint is complete in itself: its run goes on where the model that it began with was moved or deleted.

    Args:
        init_from: the flag.
        workdir: the run's folder.
    """
    is_elsewhere = init_from is None or (init_from != NO_MODEL and not _is_there(init_from))
    if is_elsewhere and holds_checkpoint(workdir):
        return str(workdir)
    return init_from


def source_in(identity: Mapping[str, Any], path: pathlib.Path) -> str | None:
    """Returns what a run noted of the model that it began with; `path` is the file that says it, for messages."""
    return expect_type(identity.get("init_from"), str | None, f"{path}: init_from", "restore it")


def noted_source(saved: str | None, given: str | None) -> str | None:
    """Returns what a run notes of the model that it began with, if that may be the one that is given; else that one.

    Args:
        saved: the path that the run noted; None for a random start.
        given: the absolute path that is given; None for a random start.
    """
    return saved if _is_same_source(saved, given) else given


def _is_same_source(saved: str | None, given: str | None) -> bool:
    """Whether a model that is given may be the one that a run began with; arguments as of `noted_source`.

    A model may have moved, or be reached by another path: what is no longer where it was may be elsewhere.
    """
    if saved == given:
        return True
    if saved is None or given is None:
        return False
    return not _is_there(saved) or os.path.realpath(saved) == os.path.realpath(given)


def _is_there(model: str) -> bool:
    """Whether there is anything at a model's path, which may be the prefix of Google's files."""
    return os.path.exists(model) or os.path.exists(f"{model}.index")


def _source_of_weights(
    given: str | None, workdir: pathlib.Path, begun: Mapping[str, Any] | None, check: Callable[[str], None]
) -> str | None:
    """Returns whose weights the run begins with; a run that has a checkpoint goes on with the flag or without it."""
    source = str(pathlib.Path(given).absolute()) if given else None
    if begun is None:
        if source:
            try:
                check(source)
            except UserError as error:
                raise UserError(f"--init_from={given}: {error}") from error
        return source
    saved = source_in(begun, workdir / IDENTITY_FILE)
    if source is not None and not _is_same_source(saved, source):
        raise UserError(
            f"--init_from is for new runs, and {workdir} holds one that began with {saved or 'random weights'}, not"
            f" {given}: leave it out, or use another --workdir"
        )
    if source not in (None, saved):
        print(f"--init_from={given} is not read: the run in {workdir} goes on from its own checkpoint")
    return saved


def make_directory(flag: str, path: pathlib.Path) -> None:
    """Makes the directory that a flag names, unless it is there; a UserError if it cannot be written to."""
    try:
        make_folder(path)
    except OSError as error:
        raise UserError(f"cannot make --{flag}={path}: {error.strerror or error}; give another") from error
    if not os.access(path, os.W_OK):
        raise UserError(f"cannot write to --{flag}={path}: no permission; give another")
