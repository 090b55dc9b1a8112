"""A damaged checkpoint is told from a machine that cannot read just now."""

import errno
import os

import pytest

from bert_jax.errors import TrainingError
from bert_jax.training import failed_reads
from bert_jax.training.failed_reads import one_line, passing_reason, read_again


def _caused_by(cause: BaseException) -> Exception:
    try:
        try:
            raise cause
        except BaseException as error:
            raise Exception("Encountered error while reading array index: ()") from error
    except Exception as error:
        return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.EIO, os.strerror(errno.EIO)), "Input/output error"),
        (OSError(errno.ESTALE, os.strerror(errno.ESTALE)), "Stale file handle"),
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "Cannot allocate memory"),
        (MemoryError(), "out of memory"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 4096 bytes."), "resource exhausted"),
        (ValueError("UNAVAILABLE: Error reading local file \"x\" [os_error_code='5']"), "Input/output error"),
        (ValueError("DEADLINE_EXCEEDED: the server did not answer"), "deadline exceeded"),
    ],
)
def test_what_the_machine_could_not_read(error, reason):
    assert passing_reason(error) == passing_reason(_caused_by(error)) == reason


@pytest.mark.parametrize(
    "error",
    [
        ValueError("params/bias is not as it was saved: its checksum differs"),
        FileNotFoundError(errno.ENOENT, "No such file or directory"),
        NotADirectoryError(errno.ENOTDIR, "Not a directory"),
        ValueError("DATA_LOSS: Error decoding local file: Expected 116 bytes"),
        ValueError("FAILED_PRECONDITION: Truncated Zstd-compressed stream"),
        ValueError("NOT_FOUND: Error opening \"zarr\" driver [os_error_code='2']"),
        KeyError("item_metadata"),
    ],
)
def test_what_is_damaged(error):
    assert passing_reason(error) is None and passing_reason(_caused_by(error)) is None


def test_reading_is_tried_again(monkeypatch):
    pauses, left = [], [OSError(errno.EIO, "Input/output error"), MemoryError()]
    monkeypatch.setattr(failed_reads.time, "sleep", pauses.append)

    def read():
        if left:
            raise left.pop()
        return "content"

    assert read_again(read, "checkpoint 7") == "content" and len(pauses) == 2
    left = [OSError(errno.EIO, "Input/output error")] * 3
    with pytest.raises(
        TrainingError, match=r"checkpoint 7 cannot be read now \(Input/output error\).*nothing was moved"
    ):
        read_again(read, "checkpoint 7")
    assert not left


def test_damage_is_not_read_again(monkeypatch):
    monkeypatch.setattr(failed_reads.time, "sleep", lambda seconds: pytest.fail("it was tried again"))

    def read():
        raise KeyError("checksums")

    with pytest.raises(KeyError):
        read_again(read, "checkpoint 7")


def test_the_reason_of_the_reason_is_shown():
    assert one_line(_caused_by(ValueError("DATA_LOSS:\n  half of it"))) == "DATA_LOSS: half of it"
    assert one_line(MemoryError()) == "MemoryError"
