"""Whether a run's folder belongs to the run that is asked for: what must match is kept there, and compared."""

import json
import os
import pathlib
import time
from collections.abc import Mapping
from typing import Any

from bert_jax.durable_files import write_file
from bert_jax.errors import UserError
from bert_jax.text.json_files import read_json_object

IDENTITY_FILE = "run.json"
_SHOWN = 80


def read_identity(workdir: str | os.PathLike[str], file_name: str = IDENTITY_FILE) -> dict[str, Any] | None:
    """Returns what the folder's run is, or None if no run began there."""
    path = pathlib.Path(workdir) / file_name
    if not os.path.lexists(path):
        return None
    return read_json_object(path, "restore it, or use another --workdir")


def write_identity(
    workdir: str | os.PathLike[str], identity: Mapping[str, Any], file_name: str = IDENTITY_FILE
) -> None:
    """Notes what run this folder holds, in one piece or not at all; it is on disk when this returns."""
    path = pathlib.Path(workdir) / file_name
    try:
        write_file(path, (json.dumps(identity, indent=1) + "\n").encode())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def is_noted(workdir: str | os.PathLike[str], identity: Mapping[str, Any]) -> bool:
    """Whether the folder says that it holds this run."""
    try:
        return read_identity(workdir) == json.loads(json.dumps(identity))
    except UserError:
        return False


def await_identity(workdir: str | os.PathLike[str], identity: Mapping[str, Any], seconds: float = 60.0) -> None:
    """Returns once the folder shows the run that another process notes there; network file systems take a while.

    Raises:
        UserError: it does not within so many seconds.
    """
    deadline = time.monotonic() + seconds
    while not is_noted(workdir, identity):
        if time.monotonic() > deadline:
            raise UserError(
                f"--workdir={workdir} does not hold here what process 0 wrote there: give a folder that all processes"
                " share"
            )
        time.sleep(0.1)


def check_identity(
    workdir: str | os.PathLike[str],
    saved: Mapping[str, Any],
    wanted: Mapping[str, Any],
    *,
    last_steps: str,
    schedule_depends_on_steps: bool,
    allow_schedule_change: bool,
) -> None:
    """Raises a UserError that names the first difference between a folder's run and the one asked for.

    Args:
        workdir: the folder.
        saved: what its run is.
        wanted: what is asked for.
        last_steps: the name under which the run's length stands, which may grow.
        schedule_depends_on_steps: whether another length means other learning rates.
        allow_schedule_change: whether that is accepted.
    """
    # As JSON has it: tuples have become lists.
    wanted = json.loads(json.dumps(wanted))
    for name in [*wanted, *(name for name in saved if name not in wanted)]:
        old, new = saved.get(name), wanted.get(name)
        if old == new:
            continue
        if name == last_steps and isinstance(old, int) and isinstance(new, int):
            if allow_schedule_change or (new > old and not schedule_depends_on_steps):
                continue
            raise UserError(
                f"{name} is {new}, but the run in {workdir} was planned for {old}, which its learning rate depends on:"
                f" set it back, or pass --allow_schedule_change, or use another --workdir"
                if new > old
                else f"{name} is {new}, but the run in {workdir} was planned for {old}: set it back, or pass"
                " --allow_schedule_change, or use another --workdir"
            )
        if allow_schedule_change and name.startswith("Schedule."):
            continue
        raise UserError(
            f"{name} is {_show(new)}, but the run in {workdir} has {_show(old)}: set it back, or use another --workdir"
        )


def _show(value: Any) -> str:
    # The beginning of a fingerprint is enough; lists need more to say anything.
    if isinstance(value, str) and len(value) > 24:
        return f"{value[:12]}..."
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
