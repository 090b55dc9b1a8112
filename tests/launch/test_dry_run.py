"""--dry_run: all that a run does before its first step, and nothing in its folder."""

import os
import pathlib
import re
import shutil

import pytest

from bert_jax.errors import UserError
from bert_jax.training.loop import CompiledPhase
from launch.dry_run import check_directory, report


def _files(directory: pathlib.Path) -> dict[str, tuple[bytes, int]]:
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in directory.rglob("*") if path.is_file()}


def _forbid_training(monkeypatch):
    import bert_jax.training.loop

    def fail(**arguments):
        raise AssertionError("trained")

    monkeypatch.setattr(bert_jax.training.loop, "train", fail)


def test_a_new_run(tmp_path, monkeypatch, capsys, pretrain):
    _forbid_training(monkeypatch)
    capsys.readouterr()
    assert pretrain(tmp_path / "new" / "run", dry_run="true") == 0
    printed, size = capsys.readouterr().out, r"[\d.]+ [KMG]iB"
    for line in (
        r"[\d,]+ parameters on 1 cpu device\(s\)",
        r"the run would begin and end at step 12",
        r"compiled in [\d.]+ s",
        r"first batch: 4 rows of 32 tokens, read in [\d.]+ s",
        rf"memory of a step, on each device: {size} \(state and batch {size}, within the step {size}\) of {size}",
        rf"dry run: nothing was trained, and nothing was written to {tmp_path}/new/run",
    ):
        assert re.search(rf"^{line}$", printed, flags=re.MULTILINE), line
    assert list(tmp_path.iterdir()) == []


def test_the_memory_is_counted_once(tmp_path):
    """A state that goes in and comes out, a batch, and what a step needs in between."""
    import jax
    import jax.numpy as jnp

    mebibyte = jax.ShapeDtypeStruct((2**18,), jnp.float32)

    def step(state, batch):
        # Sorting is not done in place, nor fused.
        return state + 1, jnp.sort(jnp.concatenate([state[0], batch["input_ids"][0]])).sum()

    batch = {"input_ids": jax.ShapeDtypeStruct((2, 2**18), jnp.float32)}
    compiled = jax.jit(step, donate_argnums=0).lower(jax.ShapeDtypeStruct((8, *mebibyte.shape), "f4"), batch).compile()
    rows = {"input_ids": jnp.zeros((2, 2**18))}
    phase = CompiledPhase(0, 5, compiled, (), lambda step: iter([rows]), None, str)
    (line,) = (line for line in report(tmp_path, 5, lambda: [phase]) if line.startswith("memory"))
    held, temporary = map(
        float, re.search(r"state and batch ([\d.]+) MiB, within the step ([\d.]+) MiB", line).groups()
    )
    assert held == 8 + 2 and 2 <= temporary <= 12
    assert line.split(": ")[1].startswith(f"{held + temporary:.1f} MiB")


def test_a_run_that_has_begun(tmp_path, monkeypatch, capsys, pretrain, finished_run):
    _forbid_training(monkeypatch)
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    shutil.rmtree(run / "checkpoints/12")
    # A save that was under way is no checkpoint, and stays for a run to remove.
    shutil.copytree(run / "checkpoints/10", run / "checkpoints/11.orbax-checkpoint-tmp")
    before = _files(run)
    capsys.readouterr()
    assert pretrain(run, dry_run="true") == 0
    assert "the run would resume from step 10 and end at step 12" in capsys.readouterr().out
    assert _files(run) == before


def test_a_complete_run(capsys, pretrain, finished_run):
    before = _files(finished_run)
    capsys.readouterr()
    assert pretrain(finished_run, dry_run="true") == 0
    assert "is complete: 12 of 12 steps" in capsys.readouterr().out
    assert _files(finished_run) == before


@pytest.mark.parametrize(
    ("bindings", "flags", "message"),
    [
        ([], {"workdir": "file"}, "--workdir=file"),
        ([], {"workdir": "file/below"}, "--workdir=file/below"),
        ([], {"data_dir": "nowhere"}, "nowhere"),
        (["pretrain.accumulation_steps = 3"], {}, "accumulation_steps"),
        ([], {"peak_tflops": "0"}, "--peak_tflops=0"),
        ([], {"init_from": "nowhere"}, "--init_from=nowhere"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_it_finds_what_a_run_would_find(tmp_path, monkeypatch, capsys, pretrain, bindings, flags, message):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("file").write_text("x")
    capsys.readouterr()
    assert pretrain("run", *bindings, **flags, dry_run="true") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_it_finds_weights_that_do_not_fit(tmp_path, capsys, pretrain, finished_run):
    capsys.readouterr()
    bindings = ["BertConfig.intermediate_size = 64"]
    assert pretrain(tmp_path / "run", *bindings, init_from=str(finished_run), dry_run="true") == 2
    assert "has shape" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_folder_without_permission(tmp_path, monkeypatch):
    check_directory("workdir", tmp_path / "a" / "b")
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(UserError, match=r"cannot write to --workdir=.*/a/b: no permission in "):
        check_directory("workdir", tmp_path / "a" / "b")
