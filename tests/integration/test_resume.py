"""A run that is stopped, at any moment and in any way, goes on as if it had never been."""

import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_STEPS = 60
_KILLS = 5


def _start(arguments: list[str], output: pathlib.Path) -> subprocess.Popen:
    with open(output, "ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "launch.pretrain", *arguments[1:]], cwd=_ROOT, stdout=file, stderr=subprocess.STDOUT
        )


def _last_step(log: pathlib.Path) -> int:
    """The step of the last whole line, 0 where there is none."""
    lines = log.read_bytes().splitlines(keepends=True) if log.exists() else []
    whole = [line for line in lines if line.endswith(b"\n")]
    return json.loads(whole[-1])["step"] if whole else 0


def _wait_for_step(process: subprocess.Popen, log: pathlib.Path, step: int) -> None:
    while process.poll() is None:
        if _last_step(log) >= step:
            return
        time.sleep(0.001)


@pytest.mark.slow
def test_killed_five_times_it_writes_the_same_losses(tmp_path, pretrain, pretrain_arguments, read_log):
    bindings = (f"pretrain.steps = {_STEPS}", "pretrain.checkpoint_every = 7", "pretrain.eval_every = 10")
    assert pretrain(tmp_path / "whole", *bindings) == 0
    draw = random.Random(7)
    share = _STEPS // (_KILLS + 1)
    moments = [number * share + draw.randint(1, share) for number in range(_KILLS)]
    arguments = pretrain_arguments(tmp_path / "killed", *bindings)
    log, output = tmp_path / "killed/metrics.jsonl", tmp_path / "output.txt"
    killed_at = []
    for moment in moments:
        process = _start(arguments, output)
        # The log may still hold lines after the checkpoint, which a resumed run takes back before it goes on.
        started = output.stat().st_size
        while process.poll() is None and b"compiled in" not in output.read_bytes()[started:]:
            time.sleep(0.01)
        _wait_for_step(process, log, moment)
        process.kill()
        assert process.wait() == -signal.SIGKILL, output.read_text()
        killed_at.append(_last_step(log))
    assert all(at >= moment for at, moment in zip(killed_at, moments, strict=True)) and killed_at[-1] < _STEPS
    assert _start(arguments, output).wait() == 0, output.read_text()
    assert "resuming from step" in output.read_text()
    assert [line["step"] for line in read_log(tmp_path / "killed", "train")] == list(range(1, _STEPS + 1))
    assert read_log(tmp_path / "killed") == read_log(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_exits(tmp_path, pretrain_arguments, finished_run, read_log, number, code):
    arguments = pretrain_arguments(tmp_path / "run", "pretrain.steps = 4000", "pretrain.checkpoint_every = 4000")
    process = _start(arguments, tmp_path / "output.txt")
    _wait_for_step(process, tmp_path / "run/metrics.jsonl", 3)
    process.send_signal(number)
    assert process.wait() == code, (tmp_path / "output.txt").read_text()
    steps = [line["step"] for line in read_log(tmp_path / "run", "train")]
    assert steps == list(range(1, steps[-1] + 1))
    message = f"stopped by {number.name} after step {steps[-1]}: saved"
    assert message in (tmp_path / "output.txt").read_text()
    assert os.listdir(tmp_path / "run/checkpoints") == [str(steps[-1])]


@pytest.mark.slow
def test_stopped_and_resumed_across_a_phase_boundary(tmp_path, capsys, signal_at, small_data, pretrain, read_log):
    flags = {"gin_file": small_data.phases_config, "data_dir": [small_data.rows_32, small_data.rows_64]}
    assert pretrain(tmp_path / "whole", **flags) == 0
    for step, number, code in ((2, signal.SIGTERM, 143), (5, signal.SIGINT, 130), (9, signal.SIGTERM, 143)):
        signal_at(step, number)
        assert pretrain(tmp_path / "stopped", **flags) == code
        assert f"stopped by {number.name} after step" in capsys.readouterr().out
    assert pretrain(tmp_path / "stopped", **flags) == 0
    assert "resuming from step" in capsys.readouterr().out
    whole = read_log(tmp_path / "whole", "train")
    assert [line["step"] for line in whole] == list(range(1, 13))
    assert read_log(tmp_path / "stopped", "train") == whole


def _newest_array_file(checkpoint: pathlib.Path) -> pathlib.Path:
    files = [path for path in (checkpoint / "state").rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def _truncate(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    for place in range(len(content) // 2, len(content) // 2 + 4):
        content[place] ^= 0x55
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [_truncate, _flip, pathlib.Path.unlink], ids=["truncated", "flipped", "missing"])
def test_a_damaged_newest_checkpoint(tmp_path, capsys, pretrain, finished_run, read_log, damage):
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    damage(_newest_array_file(run / "checkpoints/12"))
    # A save that was under way leaves a folder under another name.
    shutil.copytree(run / "checkpoints/10", run / "checkpoints/11.orbax-checkpoint-tmp")
    capsys.readouterr()
    assert pretrain(run) == 0
    output = capsys.readouterr()
    assert "checkpoint 12 is damaged" in output.err and "resuming from step 10" in output.out
    assert read_log(run) == read_log(finished_run)
    assert sorted(os.listdir(run / "checkpoints")) == ["10", "12"]
    assert os.listdir(run / "damaged_checkpoints") == ["12"]


def test_no_checkpoint_that_can_be_read(tmp_path, capsys, pretrain, finished_run):
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    for checkpoint in (run / "checkpoints").iterdir():
        _flip(_newest_array_file(checkpoint))
    before = sorted(path for path in run.rglob("*"))
    for _ in range(2):
        capsys.readouterr()
        assert pretrain(run) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: no checkpoint in ") and error.count("\n") == 1
    assert sorted(path for path in run.rglob("*")) == before
