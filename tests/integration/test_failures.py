"""What goes wrong while training: it is said in one line, and what was good stays."""

import errno
import os
import pathlib
import shutil
import subprocess

import jax
import numpy as np
import pytest

from bert_jax.training.checkpoints import open_model


def _last_error(capsys) -> str:
    """The last line; the progress bar comes before it."""
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error.rstrip("\n").rpartition("\n")[2]


def _poison(monkeypatch, step: int) -> None:
    """Makes the weights of one batch infinite."""
    from bert_jax.data.batches import BatchMaker

    train = BatchMaker.train

    def poisoned(self, batch_size, start_step, end_step, **others):
        for at, batch in enumerate(train(self, batch_size, start_step, end_step, **others), start=start_step):
            weights = batch["masked_weights"] * np.float32(np.inf) if at == step - 1 else batch["masked_weights"]
            yield {**batch, "masked_weights": weights}

    monkeypatch.setattr(BatchMaker, "train", poisoned)


def test_a_loss_that_is_not_finite(tmp_path, monkeypatch, capsys, pretrain, finished_run, read_log):
    """Names step and rows; the last checkpoint stays, and the run can go on from it."""
    with monkeypatch.context() as patched:
        _poison(patched, 10)
        assert pretrain(tmp_path) == 1
    error = _last_error(capsys)
    assert error.startswith("error: the loss is nan") and "at step 10 (batch of training rows " in error
    rows = error.partition("training rows ")[2].partition(" in epoch 0")[0].split(", ")
    assert len(rows) == 4 and all(row.isdigit() for row in rows)
    assert [line["step"] for line in read_log(tmp_path, "train")] == list(range(1, 10))
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()
    model = open_model(tmp_path)
    assert model.step == 8
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(model.load_parameters()))
    assert pretrain(tmp_path) == 0
    assert read_log(tmp_path) == read_log(finished_run)


def test_a_learning_rate_that_overflows(tmp_path, capsys, pretrain, read_log):
    """No state that is not finite becomes a checkpoint, though the loss before the update was."""
    assert pretrain(tmp_path, "pretrain.learning_rate = 1e38", "pretrain.checkpoint_every = 1") == 1
    assert _last_error(capsys).startswith("error: the ")
    for checkpoint in (tmp_path / "checkpoints").iterdir():
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(open_model(checkpoint).load_parameters()))
    assert "null" not in (tmp_path / "metrics.jsonl").read_text()


def test_a_disk_that_fills_up_while_logging(tmp_path, monkeypatch, capsys, pretrain, finished_run, read_log):
    import bert_jax.training.metric_writers as writers

    write = writers.JsonLinesWriter.write

    def full(self, step, split, values):
        if step == 7:
            # Half a line is written before the disk is full.
            self._file.write(b'{"step": 7, "spl')
            with writers._writing(self._path):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, step, split, values)

    with monkeypatch.context() as patched:
        patched.setattr(writers.JsonLinesWriter, "write", full)
        assert pretrain(tmp_path) == 2
    error = _last_error(capsys)
    assert error.startswith("error: cannot write ") and "No space left on device" in error
    assert pretrain(tmp_path) == 0
    assert read_log(tmp_path) == read_log(finished_run)


def test_a_damaged_row_shard(tmp_path, capfd, pretrain, small_data, read_log):
    """Ends the run in one line when its rows are read, and before the run with --verify_rows."""
    rows = tmp_path / "rows"
    shutil.copytree(small_data.rows_32, rows)
    (shard,) = rows.glob("*-train.array_record-*")
    content = bytearray(shard.read_bytes())
    # In every row of the shard that may come up first.
    for place in range(200, 40_000, 100):
        content[place] ^= 1
    shard.write_bytes(content)
    assert pretrain(tmp_path / "run", data_dir=str(rows)) == 1
    error = capfd.readouterr().err
    assert "Traceback" not in error and "tensorflow" not in error.lower()
    last = error.rstrip("\n").rpartition("\n")[2]
    assert last.startswith(f"error: {shard} is damaged or cannot be read (Corrupted ") and "prepare or copy" in last

    assert pretrain(tmp_path / "verified", data_dir=str(rows), verify_rows=True) == 2
    last = capfd.readouterr().err.rstrip("\n").rpartition("\n")[2]
    assert last == f"error: {shard} was changed after it was written: prepare or copy the rows again"
    assert not (tmp_path / "verified").exists()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own of 600 kB; skipped where mounting is not permitted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    options = ["-t", "tmpfs", "-o", "size=600k", "tmpfs", str(disk)]
    if not mount or subprocess.run([mount, *options], capture_output=True).returncode:
        pytest.skip("needs the permission to mount a small file system")
    yield disk
    subprocess.run([shutil.which("umount"), str(disk)], check=True)


def test_a_full_disk(small_disk, capfd, pretrain, read_log):
    """Real writes, by orbax too: room for some checkpoints, not for as many as are kept."""
    bindings = ("pretrain.keep_checkpoints = 10", "pretrain.checkpoint_every = 1")
    assert pretrain(small_disk / "run", *bindings) == 2
    error = capfd.readouterr().err
    assert "Traceback" not in error
    last = error.rstrip("\n").rpartition("\n")[2]
    assert last.startswith("error: cannot write ") and "No space left on device" in last
    finished = [path.name for path in (small_disk / "run/checkpoints").iterdir() if path.name.isdigit()]
    assert finished
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(open_model(small_disk / "run").load_parameters()))


def test_an_unwritable_disk_from_the_start(tmp_path, monkeypatch, capsys, pretrain):
    import bert_jax.training.run_identity as run_identity

    def refuse(*arguments, **others):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(run_identity.os, "replace", refuse)
    assert pretrain(tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: cannot write ") and error.count("\n") == 1 and "Read-only" in error
    assert not list(pathlib.Path(tmp_path / "run").rglob("*.gin"))
