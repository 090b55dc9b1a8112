"""Meshes as the launchers take them: what is wrong is said in one line, before anything is compiled or written."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from launch.evaluate import main as evaluate
from launch.fill_mask import main as fill_mask
from launch.inspect import main as inspect_model

_ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"mesh": "data:3"}, r"--mesh=data:3 needs 3 devices, and there are 1"),
        ({"mesh": "data:-1,fsdp:2"}, r"needs a multiple of 2 devices"),
        ({"mesh": "model:2"}, r"'model' is not an axis"),
        ({"mesh": "data:-1,fsdp:-1"}, r"only one axis can be -1"),
        ({"dcn_mesh": "data:-1"}, r"--dcn_mesh=data:-1: the size of data must be a positive number"),
        ({"dcn_mesh": "data:2"}, r"--dcn_mesh=data:2: data is 1 in the whole mesh"),
        ({"mesh": "fsdp:2", "partitioner": "pmap"}, r"--partitioner=pmap is data parallel alone"),
        ({"partitioner": "xmap"}, r"partitioner"),
    ],
    ids=str,
)
def test_a_mesh_that_cannot_be(tmp_path, capsys, pretrain, flags, message):
    capsys.readouterr()
    assert pretrain(tmp_path / "run", **flags) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and re.search(message, errors[0])
    assert not list(tmp_path.glob("run/*.*"))


def _run(module: str, arguments: list[str], devices: int) -> subprocess.CompletedProcess:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], env=environment, capture_output=True, text=True, cwd=_ROOT
    )


@pytest.mark.parametrize("main", [evaluate, fill_mask, inspect_model], ids=lambda main: main.__module__)
@pytest.mark.parametrize(
    ("mesh", "message"),
    [("data:3", "--mesh=data:3 needs 3 devices, and there are 1"), ("data:x", "the size of data must be a positive")],
)
def test_whoever_computes_takes_a_mesh(capsys, finished_run, small_data, main, mesh, message):
    text = [] if main is evaluate else ["--text=[MASK] ba"]
    rows = [f"--data_dir={small_data.rows_32}"] if main is evaluate else []
    capsys.readouterr()
    assert main(["launcher", f"--model={finished_run}", f"--mesh={mesh}", *text, *rows]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error


@pytest.mark.slow
def test_heads_that_do_not_divide(tmp_path, pretrain_arguments):
    finished = _run("launch.pretrain", pretrain_arguments(tmp_path / "run", mesh="tensor:4")[1:], devices=4)
    assert finished.returncode == 2
    assert finished.stderr.strip() == (
        "error: --mesh: tensor is 4, and the model's 2 attention heads do not divide over it: use 1 or 2"
    )


@pytest.mark.slow
def test_a_run_goes_on_on_another_mesh_and_its_model_is_used_on_a_third(
    tmp_path, capsys, pretrain_arguments, finished_run, small_data, read_log
):
    """Four steps on fsdp:4, the rest on data:2 by pmap: the losses are those of one device that never stopped."""
    workdir = tmp_path / "run"
    first = pretrain_arguments(workdir, "pretrain.steps = 4", mesh="data:2,fsdp:2", partitioner="jit")
    # Planned for twelve steps, so that the schedule is the same; stopped by the run's own signal after four.
    first = [argument for argument in first if "pretrain.steps" not in argument]
    script = (
        "import os, signal, sys\n"
        "from bert_jax.training.metric_writers import MetricWriter\n"
        "write = MetricWriter.write\n"
        "def stop(self, step, split, values):\n"
        "    write(self, step, split, values)\n"
        "    if (step, split) == (4, 'train'): os.kill(os.getpid(), signal.SIGTERM)\n"
        "MetricWriter.write = stop\n"
        "from launch.pretrain import main\n"
        "sys.exit(main(sys.argv))\n"
    )
    (tmp_path / "stopped.py").write_text(script)
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(_ROOT)}
    stopped = subprocess.run(
        [sys.executable, str(tmp_path / "stopped.py"), *first[1:]], env=environment, capture_output=True, text=True
    )
    assert stopped.returncode == 143, stopped.stderr
    assert "data 2, fsdp 2" in stopped.stdout

    resumed = _run("launch.pretrain", pretrain_arguments(workdir, partitioner="pmap")[1:], devices=2)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming from step" in resumed.stdout
    wanted, found = read_log(finished_run), read_log(workdir)
    assert [line["step"] for line in found] == [line["step"] for line in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)

    arguments = [f"--model={workdir}", f"--data_dir={small_data.rows_32}", "--batch_size=4"]
    scored = _run("launch.evaluate", [*arguments, "--mesh=data:2,fsdp:2"], devices=4)
    assert scored.returncode == 0, scored.stderr
    assert scored.stdout == _output_here(evaluate, capsys, arguments)

    arguments = [f"--model={workdir}", "--text=[MASK] ba", "--top_k=3"]
    filled = _run("launch.fill_mask", [*arguments, "--mesh=fsdp:2,tensor:2"], devices=4)
    assert filled.returncode == 0, filled.stderr
    assert filled.stdout == _output_here(fill_mask, capsys, arguments)


def _output_here(main, capsys, arguments: list[str]) -> str:
    """What a launcher prints in this process, on one device."""
    capsys.readouterr()
    assert main(["launcher", *arguments]) == 0
    return capsys.readouterr().out
