"""Processes that train together on this machine: the losses of one, whatever happens to one of them."""

import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_HEARTBEAT_TIMEOUT = 20
# What a loaded machine may need to start two processes, or to end them.
_PATIENCE = 400
_STEPS = 100


class Run:
    """Two processes of one run, each with fake devices of its own."""

    def __init__(self, arguments: list[str], outputs: pathlib.Path, devices: int, *others: list[str]):
        """Starts them: the launcher's name and its flags; `others` are more for process 0, process 1."""
        outputs.mkdir(parents=True, exist_ok=True)
        with socket.socket() as listener:
            listener.bind(("localhost", 0))
            port = listener.getsockname()[1]
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}",
        }
        self.logs = [outputs / "0.txt", outputs / "1.txt"]
        self.processes = []
        for index, log in enumerate(self.logs):
            flags = [f"--coordinator=localhost:{port}", "--num_processes=2", f"--process_id={index}"]
            flags += [f"--coordinator_timeout={_PATIENCE}", f"--heartbeat_timeout={_HEARTBEAT_TIMEOUT}"]
            command = [
                sys.executable,
                "-m",
                f"launch.{arguments[0]}",
                *arguments[1:],
                *flags,
                *(others or ([], []))[index],
            ]
            with open(log, "wb") as file:
                self.processes.append(
                    subprocess.Popen(command, cwd=_ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT)
                )

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *error) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def wait(self, seconds: float = _PATIENCE) -> list[int]:
        """Returns the exit codes."""
        deadline = time.monotonic() + seconds
        return [process.wait(max(0.1, deadline - time.monotonic())) for process in self.processes]

    def output(self, index: int) -> str:
        return self.logs[index].read_text()

    def last_line(self, index: int) -> str:
        return self.output(index).rstrip("\n").rpartition("\n")[2]

    def wait_for_step(self, workdir: pathlib.Path, step: int) -> None:
        """Returns when the log of this start has come to a step."""
        deadline = time.monotonic() + _PATIENCE
        while all(process.poll() is None for process in self.processes):
            # Until then, the log may hold lines after the checkpoint, which are taken back.
            if "compiled in" in self.output(0) and _last_step(workdir) >= step:
                return
            assert time.monotonic() < deadline
            time.sleep(0.002)
        raise AssertionError(f"ended before step {step}: {self.output(0)}\n{self.output(1)}")


def _last_step(workdir: pathlib.Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        whole = [line for line in (workdir / "metrics.jsonl").read_bytes().splitlines(True) if line.endswith(b"\n")]
        return json.loads(whole[-1])["step"] if whole else 0
    return 0


def _assert_same(log: list[dict], reference: list[dict], tolerance: float) -> None:
    log, reference = ([line for line in lines if "loss" in line] for lines in (log, reference))
    assert [(line["step"], line["split"]) for line in log] == [(line["step"], line["split"]) for line in reference]
    for ours, theirs in zip(log, reference, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=tolerance), ours["step"]
        if ours["split"] == "validation":
            # The baselines are counted over all rows by each process.
            counted = [name for name in theirs if name.endswith("_baseline")]
            assert len(counted) >= 4 and all(ours[name] == theirs[name] for name in counted)


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(tmp_path, pretrain_arguments, finished_run, read_log):
    workdir = tmp_path / "run"
    with Run(pretrain_arguments(workdir, mesh="data:2,fsdp:2,tensor:2"), tmp_path / "outputs", 4) as run:
        assert run.wait() == [0, 0], run.output(0) + run.output(1)
    _assert_same(read_log(workdir), read_log(finished_run), 1e-5)
    # Process 0 alone prints and writes.
    for said in ("parameters on", "compiled in", "train:", "step 5: loss", "done: 12 steps"):
        assert said in run.output(0) and said not in run.output(1)
    assert all(len(list(split.iterdir())) == 1 for split in (workdir / "tensorboard").iterdir())
    assert sorted(os.listdir(workdir / "checkpoints")) == sorted(os.listdir(finished_run / "checkpoints"))


@pytest.mark.slow
def test_two_processes_tune_and_know_the_same_best(tmp_path, finished_run):
    """Also of a checkpoint that only process 0 gives its name, once it is on disk."""
    rows = [f"{word} kera losa,{word}" for word in ("bana", "mita") * 8]
    (tmp_path / "train.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    files = [f"--train={tmp_path}/train.csv", f"--dev={tmp_path}/train.csv", f"--init_from={finished_run}"]
    recipe = ["--epochs=1", "--batch_size=4", "--max_seq_len=16", "--gin_param=finetune.evaluations_per_epoch=4"]
    recipe += ["--gin_param=finetune.padded_lengths=1", "--gin_param=finetune.keep_checkpoints=1"]
    with Run(["finetune", *files, *recipe, f"--workdir={tmp_path}/run"], tmp_path / "outputs", 1) as run:
        assert run.wait() == [0, 0], run.output(0) + run.output(1)
    assert "the best checkpoint is that of step" in run.output(0)


@pytest.mark.slow
def test_whoever_is_lost_the_run_goes_on_to_the_same_losses(tmp_path, pretrain, pretrain_arguments, read_log):
    """Killed process 0, asked process 1 to stop, killed process 1; each time on other devices, at last on one."""
    bindings = (f"pretrain.steps = {_STEPS}", "pretrain.checkpoint_every = 10", "pretrain.eval_every = 50")
    bindings = (*bindings, "pretrain.learning_rate = 1e-4")
    assert pretrain(tmp_path / "whole", *bindings) == 0
    workdir, draw = tmp_path / "run", random.Random(3)

    def start(name: str, devices: int, mesh: str) -> Run:
        return Run(pretrain_arguments(workdir, *bindings, mesh=mesh), tmp_path / name, devices)

    def lose(run: Run, victim: int) -> None:
        run.processes[victim].kill()
        killed_at = time.monotonic()
        survivor = 1 - victim
        assert run.processes[survivor].wait(_PATIENCE) == 1, run.output(survivor)
        # Half as much again for a machine that has other things to do.
        assert time.monotonic() - killed_at < 1.5 * _HEARTBEAT_TIMEOUT + 5
        assert run.last_line(survivor).startswith("error: another process of the run was lost"), run.output(survivor)
        assert "start all of them again" in run.last_line(survivor).lower()

    with start("first", 2, "data:-1") as run:
        run.wait_for_step(workdir, 12 + draw.randrange(8))
        lose(run, 0)
    # The tensor axis crosses the processes: both read every row.
    with start("second", 1, "tensor:2") as run:
        run.wait_for_step(workdir, 32)
        run.processes[1].send_signal(signal.SIGTERM)
        assert run.wait() == [143, 143], run.output(0) + run.output(1)
    stopped_at = _last_step(workdir)
    assert stopped_at < _STEPS and f"stopped by SIGTERM after step {stopped_at}: saved" in run.output(0)
    assert "resuming from step" in run.output(0)
    assert str(stopped_at) in os.listdir(workdir / "checkpoints")
    with start("third", 2, "data:2,fsdp:2") as run:
        run.wait_for_step(workdir, stopped_at + 12 + draw.randrange(8))
        assert f"resuming from step {stopped_at}" in run.output(0)
        lose(run, 1)
    assert pretrain(workdir, *bindings) == 0
    _assert_same(read_log(workdir), read_log(tmp_path / "whole"), 1e-5)


@pytest.mark.slow
def test_flags_that_differ_end_all(tmp_path, pretrain_arguments):
    arguments = pretrain_arguments(tmp_path / "run")
    differ = ["--gin_param=pretrain.learning_rate=2e-3"], ["--mesh=fsdp:-1"]
    with Run(arguments, tmp_path / "outputs", 1, *differ) as run:
        assert run.wait() == [2, 2]
    for index in (0, 1):
        assert run.last_line(index).startswith("error: processes 0 and 1 differ in --mesh")
        assert "learning_rate (0.002 and 0.001)" in run.last_line(index)
    assert not (tmp_path / "run").exists()  # nothing is left behind


@pytest.mark.slow
def test_folders_that_differ_end_all_before_anything_is_compiled(tmp_path, pretrain_arguments):
    """Two new folders, one of each process."""
    folders = [tmp_path / "a", tmp_path / "b"]
    with Run(
        pretrain_arguments(folders[0]), tmp_path / "outputs", 1, *([f"--workdir={one}"] for one in folders)
    ) as run:
        assert run.wait() == [2, 2]
    for index in (0, 1):
        assert run.last_line(index).startswith("error: --workdir must be one folder that all processes share: ")
        assert "parameters on" not in run.output(index) and "Traceback" not in run.output(index)
    assert not any(folder.exists() for folder in folders)  # nothing is left behind


@pytest.mark.slow
def test_a_damaged_checkpoint_and_a_loss_that_is_not_finite_end_all(
    tmp_path, pretrain, pretrain_arguments, finished_run, read_log
):
    workdir = tmp_path / "run"
    shutil.copytree(finished_run, workdir)
    newest = max((path for path in (workdir / "checkpoints/12/state").rglob("*") if path.is_file()), key=_size)
    newest.write_bytes(newest.read_bytes()[: _size(newest) // 2])
    with Run(pretrain_arguments(workdir), tmp_path / "damaged", 1) as run:
        assert run.wait() == [1, 1], run.output(0) + run.output(1)
    for index in (0, 1):
        assert "checkpoint 12 is damaged" in run.last_line(index)
        assert "the run goes on from the checkpoint before" in run.last_line(index)
    assert pretrain(workdir) == 0
    assert read_log(workdir) == read_log(finished_run)

    arguments = pretrain_arguments(tmp_path / "overflow", "pretrain.learning_rate = 1e38")
    with Run(arguments, tmp_path / "outputs", 1) as run:
        assert run.wait() == [1, 1], run.output(0) + run.output(1)
    for index in (0, 1):
        assert run.last_line(index).startswith("error: ")
        assert "not finite" in run.last_line(index) or " nan " in run.last_line(index)


def _size(path: pathlib.Path) -> int:
    return path.stat().st_size
