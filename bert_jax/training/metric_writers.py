"""Where the numbers of a run go: metrics.jsonl for programs, TensorBoard's event files for eyes.

Both survive a crash. `sync` returns when everything written so far is on disk, and on resume `cut` takes back what the
lost steps had written, so that the logs read as those of a run that was never interrupted. A step here is the number of
updates made, so that what belongs to a checkpoint of step s has a step of at most s.
"""

import contextlib
import json
import operator
import os
import pathlib
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from bert_jax.durable_files import UNFINISHED, hidden_sibling, publish, sync_folder
from bert_jax.errors import UserError
from bert_jax.text.json_files import JsonError, parse_json

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_DIRECTORY = "tensorboard"


class MetricWriter:
    """Writes metrics of a run to WORKDIR/metrics.jsonl and WORKDIR/tensorboard. For one process of a run only."""

    def __init__(self, workdir: str | os.PathLike[str]):
        """Opens the logs of a working directory on a local disk, appending to those that are there."""
        workdir = pathlib.Path(workdir)
        self._writers = (JsonLinesWriter(workdir / METRICS_FILE), TensorBoardWriter(workdir / TENSORBOARD_DIRECTORY))

    def write(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        """Writes the values of one step; they are with the operating system when this returns.

        Args:
            step: updates made so far.
            split: "train" or "validation".
            values: Python, numpy or (fetched) JAX scalars by name.

        Raises:
            UserError: the disk is full or the file cannot be written.
        """
        numbers = {name: _python_number(value) for name, value in values.items()}
        for writer in self._writers:
            writer.write(step, split, numbers)

    def sync(self) -> None:
        """Returns once all that was written is on disk."""
        for writer in self._writers:
            writer.sync()

    def cut(self, step: int) -> None:
        """Takes back everything after `step`; to be called on resume, before anything is written."""
        for writer in self._writers:
            writer.cut(step)

    def close(self) -> None:
        """Closes the files."""
        for writer in self._writers:
            writer.close()


class NoWriter:
    """Writes nothing: for the other processes of a run."""

    def write(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        """Drops the values."""

    def sync(self) -> None:
        """Has nothing to wait for."""

    def cut(self, step: int) -> None:
        """Has nothing to take back."""

    def close(self) -> None:
        """Has nothing to close."""


class JsonLinesWriter:
    """One JSON object a line: {"step": 10, "split": "train", "loss": 7.25, ...}.

    Numbers keep every bit: a float32 is written as the double of the same value, which JSON holds exactly. Numbers that
    JSON does not have (NaN, infinity) become null.
    """

    def __init__(self, path: pathlib.Path):
        self._path = path
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._open()
            sync_folder(path.parent)

    def _open(self) -> None:
        # Unbuffered: a line is visible to whoever follows the file as soon as it is written, and a full disk is
        # noticed at once.
        self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115 - closed by `close`

    def write(self, step: int, split: str, values: Mapping[str, int | float]) -> None:
        """Appends one line."""
        if taken := {"step", "split"} & set(values):
            raise ValueError(f"metrics cannot be called {', '.join(sorted(taken))}")
        record = {"step": step, "split": split, **{name: _json_number(value) for name, value in values.items()}}
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        with _writing(self._path):
            if not os.fstat(self._file.fileno()).st_nlink:
                print(f"warning: {self._path} was removed: the log goes on in a new file", file=sys.stderr)
                self._file.close()
                self._open()
                sync_folder(self._path.parent)
            while line:
                line = line[self._file.write(line) :]

    def sync(self) -> None:
        """Returns once all lines are on disk."""
        with _writing(self._path):
            os.fsync(self._file.fileno())

    def cut(self, step: int) -> None:
        """Drops the lines of later steps, and what a crash left unfinished at the end.

        Either the old file or the new one is there at any moment.

        Raises:
            UserError: a line that is not one of metrics stands before one that is to be kept.
        """
        if step and not os.fstat(self._file.fileno()).st_size:
            print(f"warning: {self._path} is gone: the log, and the curves, begin after step {step}", file=sys.stderr)
        self._file.close()
        unfinished = hidden_sibling(self._path, UNFINISHED)
        unreadable = None
        with _writing(self._path):
            with open(self._path, "rb") as lines, open(unfinished, "wb") as kept:
                for number, line in enumerate(lines, start=1):
                    record = parse_line(line)
                    if record is None:
                        unreadable = unreadable or number
                    elif record["step"] <= step:
                        if unreadable:
                            unfinished.unlink()
                            raise UserError(f"{self._path}:{unreadable}: not a line of metrics; remove the line")
                        kept.write(line)
            publish(unfinished, self._path)
            self._open()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class TensorBoardWriter:
    """Event files that TensorBoard reads, one directory (a "run" to TensorBoard) for each split.

    So the same metric of both splits shares a chart. Written with tensorboard's own record writer and messages, as its
    EventFileWriter would import TensorFlow where it is installed.
    """

    def __init__(self, directory: pathlib.Path):
        self._directory = directory
        self._files: dict[str, _EventFile] = {}

    def write(self, step: int, split: str, values: Mapping[str, int | float]) -> None:
        """Adds one event that holds all the values."""
        self._file(split).add(step, values)

    def sync(self) -> None:
        """Returns once all events are on disk."""
        for file in self._files.values():
            file.sync()

    def cut(self, step: int) -> None:
        """Makes TensorBoard forget the events of later steps.

        An event file cannot be shortened under a running TensorBoard; what tells it is a restart at step s + 1 in a
        file that comes after the others.
        """
        written = [path.name for path in self._directory.glob("*/") if any(path.glob("*tfevents*"))]
        for split in sorted(written):
            self._file(split).restart(step + 1)

    def close(self) -> None:
        """Closes the files."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _file(self, split: str) -> "_EventFile":
        if split not in self._files:
            self._files[split] = _EventFile(self._directory / split)
        return self._files[split]


class _EventFile:
    """One new event file; it comes last among those of its directory."""

    def __init__(self, directory: pathlib.Path):
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer import record_writer

        self._event, self._session_log = event_pb2.Event, event_pb2.SessionLog
        self._summary = summary_pb2.Summary
        # TensorBoard reads the files in the order of their names. Numbers keep that of the restarts, even of those that
        # share a second or a wrong clock.
        taken = [path.name for path in directory.glob("events.out.tfevents.*")]
        number = max((int(name.split(".")[3]) for name in taken if name.split(".")[3].isdigit()), default=-1) + 1
        self._path = directory / f"events.out.tfevents.{number:010d}"
        with _writing(self._path):
            directory.mkdir(parents=True, exist_ok=True)
            self._file = open(self._path, "xb")  # noqa: SIM115 - closed by `close`
            sync_folder(directory)
        self._records = record_writer.RecordWriter(self._file)
        # A reader looks for restarts in files of version 2 only.
        self._write(self._event(wall_time=time.time(), file_version="brain.Event:2"))

    def add(self, step: int, values: Mapping[str, int | float]) -> None:
        summary = self._summary(
            value=[self._summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        )
        self._write(self._event(wall_time=time.time(), step=step, summary=summary))

    def restart(self, step: int) -> None:
        """Makes a reader drop what it has read of this step and later ones."""
        log = self._session_log(status=self._session_log.START)
        self._write(self._event(wall_time=time.time(), step=step, session_log=log))

    def _write(self, event: Any) -> None:
        with _writing(self._path):
            self._records.write(event.SerializeToString())
            self._records.flush()

    def sync(self) -> None:
        with _writing(self._path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        with _writing(self._path):
            self._file.close()


def parse_line(line: bytes) -> dict[str, Any] | None:
    """Returns the object that a line of metrics.jsonl holds, or None where the line is torn or none of ours."""
    if not line.endswith(b"\n"):
        return None
    try:
        record = parse_json(line)
    except JsonError:
        return None
    is_ours = isinstance(record, dict) and isinstance(record.get("step"), int) and isinstance(record.get("split"), str)
    return record if is_ours else None


def _python_number(value: Any) -> int | float:
    try:
        return operator.index(value)
    except TypeError:
        return float(value)


def _json_number(value: int | float) -> int | float | None:
    # value - value is 0 for all numbers but NaN and the infinities.
    return value if value - value == 0 else None


@contextlib.contextmanager
def _writing(path: pathlib.Path) -> Iterator[None]:
    """Says in the user's terms why a file cannot be written."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write {path}: {reason}; make room there, or give another --workdir") from error
