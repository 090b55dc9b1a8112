"""The file of --tasks: which tasks one run learns, each with the flags that it would have alone.

    {"sst2": {"task": "classification", "train": "sst2.tsv", "dev": "sst2_dev.tsv"},
     "stsb": {"labels": "float", "train": "stsb.tsv", "dev": "stsb_dev.tsv", "weight": 0.1}}

Paths are relative to the working directory, as on the command line.
"""

import contextlib
import dataclasses
import difflib
import pathlib
from collections.abc import Iterator
from typing import Any

from absl import flags

from bert_jax.errors import UserError
from bert_jax.text.json_files import expect_type, read_json_object, show_json
from launch.finetuning_files import define_file_flags

# How much the loss of a task counts; beside the names of flags.
_WEIGHT = "weight"
_EXAMPLE = '{"name": {"task": "classification", "train": "train.csv", "dev": "dev.csv"}, ...}'
# Parameters below such names, and below names with such a part, are treated in a way of their own wherever they lie.
_NAMES_OF_PARAMETERS, _PARTS_OF_NAMES = ("layers", "layer_mixture"), ("layer_norm", "word_embeddings")


@dataclasses.dataclass(frozen=True)
class TaskOfFile:
    """A task of the file.

    Attributes:
        name: of the task in the file.
        values: the flags of `define_file_flags`, with what the file gives.
        weight: how much its loss counts.
        path: of the file, for messages.
    """

    name: str
    values: flags.FlagValues
    weight: float
    path: pathlib.Path

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Lets a UserError say of which task it is."""
        try:
            yield
        except UserError as error:
            raise UserError(f"{self.path}: {self.name}: {error}") from error


def check_alone(values: flags.FlagValues) -> None:
    """Raises a UserError if a flag is given beside --tasks that the file has for each task."""
    of_tasks = _file_flags()
    for name in of_tasks:
        if values[name].present:
            raise UserError(
                f"--{name} says something of one task: leave it out, and give each task in {values.tasks} its own"
            )


def read_tasks(path: pathlib.Path) -> list[TaskOfFile]:
    """Reads the file; a UserError names it, the task and the key where it is not as it should be."""
    if not path.is_file():
        raise UserError(f"--tasks={path}: no such file")
    tasks = read_json_object(path, f"write {_EXAMPLE}", unique_names=True)
    if not tasks:
        raise UserError(f"{path}: must be a JSON object of at least one task: write {_EXAMPLE}")
    return [_read_task(path, name, keys) for name, keys in tasks.items()]


def _read_task(path: pathlib.Path, name: str, keys: Any) -> TaskOfFile:
    where = f"{path}: {name}"
    if not (name.isidentifier() and name.isascii()):
        raise UserError(f"{path}: a task cannot be called {show_json(name)}: take letters, digits and _, such as sst2")
    if name in _NAMES_OF_PARAMETERS or any(part in name for part in _PARTS_OF_NAMES):
        raise UserError(
            f"{path}: a task cannot be called {show_json(name)}, as parameters of the model are: take another name"
        )
    expect_type(keys, dict, where, f"write {_EXAMPLE[9:-6]}")
    weight = expect_type(keys.get(_WEIGHT, 1.0), float, f"{where}: {_WEIGHT}", "give a number above 0")
    if weight <= 0:
        raise UserError(f"{where}: {_WEIGHT} must be a number above 0, not {weight!r}")
    values = _file_flags()
    known = [*values, _WEIGHT]
    arguments = []
    for key, value in keys.items():
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(known))}"
            raise UserError(f"{where}: unknown key {show_json(key)}: {hint}")
        if key == _WEIGHT or value is None:
            continue
        if key == "labels" and isinstance(value, list) and all(isinstance(label, str) for label in value):
            value = ",".join(value)
        expect_type(value, str | int, f"{where}: {key}", "give it as on the command line")
        arguments.append(f"--{key}={value}")
    try:
        values([name, *arguments])
    except flags.Error as error:
        raise UserError(f"{where}: {' '.join(str(error).split()):.400}") from error
    for key in ("train", "dev"):
        if not values[key].value:
            raise UserError(f"{where}: {key} is missing: a file of examples")
    return TaskOfFile(name, values, float(weight), path)


def _file_flags() -> flags.FlagValues:
    values = flags.FlagValues()
    define_file_flags(values)
    return values
