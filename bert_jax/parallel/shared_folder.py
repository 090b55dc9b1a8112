"""Whether all processes of a run have been given the same folder, however its path is called on each machine.

Neither the path nor the device and inode say so where machines mount one network folder in different places: process 0
leaves a file of a random name there, and the others look for it.
"""

import os
import pathlib
import secrets
import time

from bert_jax.errors import UserError
from bert_jax.parallel.processes import process_group, wait_for

# Network file systems may show a new file a little later.
PATIENCE_SECONDS = 30.0
_TOKEN = ".met_here_"
_TOPIC = "bert_jax/shared_folder"
_FOUND = "found"


def agree_on_folder(name: str, path: pathlib.Path, patience: float = PATIENCE_SECONDS) -> None:
    """Raises the same UserError in all processes if a folder is not one and the same; all have to call it.

    Args:
        name: what a user knows the folder by, such as --workdir; once a run.
        path: the folder, as this process was given it; it exists.
        patience: seconds that a process looks for what process 0 has left.
    """
    group = process_group()
    if group is None:
        return
    topic = f"{_TOPIC}/{name}"
    if group.index == 0:
        _lead(group, topic, name, path)
    else:
        token, theirs = wait_for(f"{topic}/token", "process 0").split("/", 1)
        # Where process 0 could not write, there is nothing to look for.
        seen = bool(token) and _appears(path / token, patience)
        answer = _FOUND if seen else f"{path} in process {group.index} is not {theirs} in process 0"
        group.client.key_value_set(f"{topic}/{group.index}", answer)
    verdict = wait_for(f"{topic}/verdict", "process 0")
    if verdict != _FOUND:
        raise UserError(f"{name} {verdict}")


def _lead(group, topic: str, name: str, path: pathlib.Path) -> None:
    """Leaves the token, hears the others and says what follows."""
    token = path / f"{_TOKEN}{secrets.token_hex(8)}"
    verdict = _FOUND
    try:
        # One that was killed while the others looked has left its own.
        for older in path.glob(f"{_TOKEN}*"):
            older.unlink(missing_ok=True)
        token.touch()
    except OSError as error:
        verdict, token = f"cannot be written in process 0: {error.strerror or error}; give another", None
    try:
        group.client.key_value_set(f"{topic}/token", f"{token.name if token else ''}/{path}")
        answers = [wait_for(f"{topic}/{index}", f"process {index}") for index in range(1, group.count)]
    finally:
        if token:
            token.unlink(missing_ok=True)
    elsewhere = [answer for answer in answers if answer != _FOUND]
    if token and elsewhere:
        verdict = f"must be one folder that all processes share: {elsewhere[0]}; give the same to all"
    group.client.key_value_set(f"{topic}/verdict", verdict)


def _appears(path: pathlib.Path, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        # Reading the folder asks a network file system for what is new.
        os.listdir(path.parent)
        time.sleep(0.1)
    return True
