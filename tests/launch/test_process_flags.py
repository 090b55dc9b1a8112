"""The processes of a run as the launcher takes them: what is wrong is said in one line, with exit code 2."""

import os
import pathlib
import socket
import subprocess
import sys
import types

import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[2]


def _free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return f"localhost:{probe.getsockname()[1]}"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"num_processes": 2}, "--coordinator and --process_id missing"),
        ({"coordinator": "host", "num_processes": 2, "process_id": 0}, "--coordinator=host: must be HOST:PORT"),
        ({"coordinator": "host:1", "num_processes": 2, "process_id": 2}, "--process_id=2: must be from 0 to 1"),
        ({"heartbeat_timeout": 0}, "--heartbeat_timeout=0: 0 is not an integer in the range [1, "),
        ({"local_device_ids": "a,b"}, "--local_device_ids=a,b: must be numbers"),
        ({"local_device_ids": "0"}, "is for one of several processes, and this one is alone"),
        # Process 0 alone may run where the folder is; and a bucket is no folder.
        ({"workdir": "gs://bucket/run"}, "--workdir=gs://bucket/run: must be a folder that all processes share"),
    ],
    ids=str,
)
def test_flags_that_cannot_be(tmp_path, monkeypatch, capsys, pretrain, flags, message):
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert pretrain(tmp_path / "run", **flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert os.listdir(tmp_path) == []


def test_a_coordinator_that_does_not_answer(tmp_path, capsys, pretrain):
    address = _free_address()
    capsys.readouterr()
    flags = {"coordinator": address, "num_processes": 2, "process_id": 1, "coordinator_timeout": 1}
    assert pretrain(tmp_path / "run", **flags) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: --coordinator={address} does not answer within 1 s") and error.count("\n") == 1


def test_fewer_rows_than_processes(tmp_path, monkeypatch, capsys, pretrain):
    monkeypatch.setattr("launch.pretrain.process_group", lambda: types.SimpleNamespace(index=0, count=100_000))
    capsys.readouterr()
    assert pretrain(tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert "fewer than the 100000 processes: prepare more text" in error and error.count("\n") == 1


@pytest.mark.slow
def test_a_process_that_nobody_joins(tmp_path, pretrain_arguments):
    """Process 0, which others would reach, gives up as well; and it says so itself, not JAX's C++."""
    flags = {"coordinator": _free_address(), "num_processes": 2, "process_id": 0, "coordinator_timeout": 3}
    command = [sys.executable, "-m", "launch.pretrain", *pretrain_arguments(tmp_path / "run", **flags)[1:]]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=_ROOT, timeout=120)
    assert finished.returncode == 2
    assert "not all processes of the run have come together within 3 s" in finished.stderr
    assert finished.stderr.count("\n") == 1
