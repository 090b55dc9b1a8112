"""Damaged files: whatever a reader is given, it returns, or says in one line what is wrong.

The long run is `python -m benchmarks.fuzz`; what it once found is in failed.json, and is read here first.
"""

import json
import pathlib

import pytest

from benchmarks.fuzz import damaged, run_case, unpack
from benchmarks.fuzz_readers import Reader, readers
from bert_jax.errors import UserError

_FAILED = json.loads((pathlib.Path(__file__).parent / "failed.json").read_text())
_CASES = 50
_NAMES = (
    *("tokenizer", "published tokenizer", "vocabulary", "model", "google configuration", "task record", "rows"),
    *("run", "metrics"),
    *("corpus", "table", "tagged", "questions", "choices", "relations", "configuration", "tasks"),
)


@pytest.fixture(scope="module")
def all_readers():
    return readers()


def test_every_reader_is_tested(all_readers):
    assert set(all_readers) == set(_NAMES)


@pytest.mark.parametrize("name", _NAMES)
def test_sound_files_are_read(all_readers, tmp_path, name):
    for number, files in enumerate(all_readers[name].seeds):
        # Options are drawn, and not all of them fit every file.
        outcomes = [run_case(all_readers[name], f"{number}/{draw}", files, tmp_path / "case") for draw in range(20)]
        assert not any(outcome.problem for outcome in outcomes)
        assert not all(outcome.is_refused for outcome in outcomes)


@pytest.mark.parametrize("kept", _FAILED, ids=[kept["case"] for kept in _FAILED])
def test_what_once_failed_passes(all_readers, tmp_path, kept):
    reader = all_readers[kept["reader"]]
    for draw in ("", *range(5)):
        assert run_case(reader, f"{kept['case']}{draw}", unpack(kept), tmp_path / "case").problem is None


@pytest.mark.parametrize("name", _NAMES)
def test_damaged_files_are_read_or_refused_in_one_line(all_readers, tmp_path, name):
    reader = all_readers[name]
    for number in range(_CASES):
        case = f"{name}/{number}"
        files, damaged_file = damaged(reader, case)
        assert run_case(reader, case, files, tmp_path / "case").problem is None, f"{case} ({damaged_file})"


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (ValueError("x"), "ValueError at test_readers.py:"),
        (RecursionError(), "RecursionError"),
        (BaseException("panic"), "BaseException"),
        (UserError(" "), "not one line"),
        (UserError("a line"), None),
    ],
)
def test_what_a_reader_may_raise(tmp_path, error, problem):
    def read(folder, draw):
        raise error

    found = run_case(Reader([{"a": b""}], read), "a/0", {"a": b""}, tmp_path / "case").problem
    assert found is None if problem is None else found.startswith(problem)


def test_memory_without_bounds_is_found(tmp_path):
    reader = Reader([{"a": b""}], lambda folder, draw: bytearray(b"x") * (1 << 29))
    assert "MiB" in run_case(reader, "a/0", {"a": b""}, tmp_path / "case").problem
