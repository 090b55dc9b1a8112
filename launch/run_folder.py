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

from bert_jax.errors import UserError
from bert_jax.numerics import Numerics
from bert_jax.training.run_identity import check_identity, read_identity
from launch.dry_run import check_directory
from launch.mesh_flags import parse_mesh_flags

# What --init_from says for a random start, in launchers that need it to be said.
NO_MODEL = "none"


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """A run's folder, new or of this very run.

    Attributes:
        path: the folder.
        saved: what the run in it is; None if it is new.
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
    saved = read_identity(workdir)
    init_from = _source_of_weights(values.init_from, workdir, saved, check_weights)
    # As it comes back from the folder: tuples have become lists.
    begun_with = Numerics.of_run(saved, workdir).identity()
    folder = RunFolder(workdir, saved, json.loads(json.dumps({**identity, "init_from": init_from, **begun_with})))
    if saved:
        check_identity(
            workdir,
            saved,
            folder.identity,
            last_steps=last_steps,
            schedule_depends_on_steps=schedule_depends_on_steps,
            allow_schedule_change=values.allow_schedule_change,
        )
    elif workdir.is_dir() and any(workdir.iterdir()):
        raise UserError(f"--workdir={workdir} holds files, but no run: give an empty or a new folder")
    check_directory("workdir", workdir)
    if values.compilation_cache_dir:
        check_directory("compilation_cache_dir", pathlib.Path(values.compilation_cache_dir))
    return folder


def _source_of_weights(
    given: str | None, workdir: pathlib.Path, saved: Mapping[str, Any] | None, check: Callable[[str], None]
) -> str | None:
    """Returns whose weights the run begins with; a run that was stopped is resumed with the flag or without it."""
    source = str(pathlib.Path(given).absolute()) if given else None
    if not saved:
        if source:
            try:
                check(source)
            except UserError as error:
                raise UserError(f"--init_from={given}: {error}") from error
        return source
    if source not in (None, saved.get("init_from")):
        raise UserError(f"--init_from is for new runs, and {workdir} holds one: leave it out, or use another --workdir")
    return saved.get("init_from")


def make_directory(flag: str, path: pathlib.Path) -> None:
    """Makes the directory that a flag names, unless it is there; a UserError if it cannot be written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make --{flag}={path}: {error.strerror or error}; give another") from error
    if not os.access(path, os.W_OK):
        raise UserError(f"cannot write to --{flag}={path}: no permission; give another")
