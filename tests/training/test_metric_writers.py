"""Logs that survive crashes: exact numbers, cuts on resume, and event files that TensorBoard reads."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bert_jax.errors import UserError
from bert_jax.training.metric_writers import JsonLinesWriter, MetricWriter, TensorBoardWriter, parse_line


def records(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def scalars(workdir, split, metric="loss"):
    accumulator = EventAccumulator(str(workdir / "tensorboard" / split))
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(metric)]


def test_a_line_is_one_flat_object_and_is_there_at_once(tmp_path):
    writer = MetricWriter(tmp_path / "new" / "run")
    writer.write(10, "train", {"loss": 7.25, "mlm_loss": np.float32(6.5), "tokens_per_second": np.int64(12345)})
    text = (tmp_path / "new" / "run" / "metrics.jsonl").read_text()
    assert text == '{"step": 10, "split": "train", "loss": 7.25, "mlm_loss": 6.5, "tokens_per_second": 12345}\n'
    assert scalars(tmp_path / "new" / "run", "train", "tokens_per_second") == [(10, 12345)]
    writer.close()


def test_every_bit_of_a_float32_comes_back(tmp_path):
    bits = np.random.default_rng(0).integers(0, 2**32, 2000, dtype=np.uint32)
    edges = [0.0, -0.0, 1e-45, np.finfo(np.float32).max, np.finfo(np.float32).tiny, 0.1]
    values = np.concatenate([bits.view(np.float32), np.array(edges, np.float32)])
    values = values[np.isfinite(values)]
    writer = JsonLinesWriter(tmp_path / "metrics.jsonl")
    for step, value in enumerate(values):
        writer.write(step, "train", {"loss": float(value)})
    writer.close()
    back = np.array([record["loss"] for record in records(tmp_path)]).astype(np.float32)
    np.testing.assert_array_equal(back.view(np.uint32), values.view(np.uint32))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_what_json_cannot_hold_becomes_null(tmp_path, value):
    writer = MetricWriter(tmp_path)
    writer.write(1, "train", {"loss": value})
    writer.close()

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line, parse_constant=refuse) == {"step": 1, "split": "train", "loss": None}


def test_a_metric_cannot_take_the_place_of_the_step(tmp_path):
    writer = MetricWriter(tmp_path)
    with pytest.raises(ValueError, match="split, step"):
        writer.write(1, "train", {"step": 2, "split": 3})
    writer.close()


@pytest.mark.parametrize("torn", [b"", b'{"step": 3, "spl', b'{"step": 3, "split": "train", "loss": 1.0}', b"\0\0\0\n"])
def test_a_resumed_run_reads_as_one_that_ran_through(tmp_path, torn):
    def value(step):
        return float(np.float32(1 / (step + 1)))

    def train(writer, first, last):
        for step in range(first, last + 1):
            writer.write(step, "train", {"loss": value(step)})
            if step % 2 == 0:
                writer.write(step, "validation", {"loss": -value(step)})

    whole = MetricWriter(tmp_path / "whole")
    train(whole, 1, 9)
    whole.close()

    killed = MetricWriter(tmp_path / "killed")
    train(killed, 1, 7)  # and not closed: as after SIGKILL
    with open(tmp_path / "killed" / "metrics.jsonl", "ab") as file:
        file.write(torn)
    for restored, last in ((4, 6), (4, 5), (2, 9)):
        resumed = MetricWriter(tmp_path / "killed")
        resumed.cut(restored)
        train(resumed, restored + 1, last)
    resumed.sync()

    assert (tmp_path / "killed" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    for split in ("train", "validation"):
        expected = scalars(tmp_path / "whole", split)
        assert scalars(tmp_path / "killed", split) == expected
        assert len(expected) == (9 if split == "train" else 4)


def test_without_the_cut_tensorboard_would_keep_the_lost_points(tmp_path):
    """The mark of a restart, not the order of the steps, is what takes them back."""
    for cut in (False, True):
        directory = tmp_path / str(cut) / "tensorboard"
        first = TensorBoardWriter(directory)
        for step in range(1, 8):
            first.write(step, "train", {"loss": step})
        second = TensorBoardWriter(directory)
        if cut:
            second.cut(4)
        second.write(5, "train", {"loss": 50})
        steps = [step for step, _ in scalars(tmp_path / str(cut), "train")]
        assert steps == ([1, 2, 3, 4, 5] if cut else [1, 2, 3, 4, 5, 6, 7, 5])


def test_event_files_are_read_in_the_order_of_the_restarts(tmp_path):
    for start in range(12):
        writer = TensorBoardWriter(tmp_path / "tensorboard")
        writer.cut(start)
        writer.write(start + 1, "train", {"loss": start})
        writer.close()
    names = sorted(path.name for path in (tmp_path / "tensorboard" / "train").iterdir())
    assert len(names) == 12
    assert scalars(tmp_path, "train") == [(start + 1, start) for start in range(12)]


def test_cutting_leaves_earlier_bytes_alone_and_nothing_beside_them(tmp_path):
    path = tmp_path / "metrics.jsonl"
    earlier = b'{"step": 1, "split": "train", "loss": 0.10000000149011612, "a metric of another version": 1}\n'
    path.write_bytes(earlier + b'{"step": 2, "split": "train", "loss": 0.5}\n')
    writer = JsonLinesWriter(path)
    writer.cut(1)
    assert path.read_bytes() == earlier
    writer.cut(0)
    assert path.read_bytes() == b""
    writer.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_damaged_line_before_the_cut_is_named_and_nothing_is_lost(tmp_path):
    path = tmp_path / "metrics.jsonl"
    text = '{"step": 1, "split": "train"}\nnot json\n{"step": 2, "split": "train"}\n{"step": 3, "split": "train"}\n'
    path.write_text(text)
    with pytest.raises(UserError, match=r"metrics\.jsonl:2: "):
        JsonLinesWriter(path).cut(2)
    assert path.read_text() == text
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.jsonl"]
    writer = JsonLinesWriter(path)
    writer.cut(1)
    writer.close()
    assert path.read_text() == '{"step": 1, "split": "train"}\n'


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
@pytest.mark.parametrize("place", ["metrics.jsonl", "tensorboard/train/events.out.tfevents.0000000000"])
def test_a_full_disk_is_one_line(tmp_path, place, monkeypatch):
    file = tmp_path / place
    if place == "metrics.jsonl":
        file.symlink_to("/dev/full")
        writer = MetricWriter(tmp_path)
    else:
        writer = MetricWriter(tmp_path)
        full = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
        monkeypatch.setattr("builtins.open", lambda *_, **__: full)
    with pytest.raises(UserError, match="No space left") as caught:
        writer.write(1, "train", {"loss": 1.0})
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unwritable_place_is_one_line(tmp_path):
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(UserError, match="cannot write"):
        MetricWriter(tmp_path / "file" / "run")


def test_neither_tensorflow_nor_jax_is_imported(tmp_path):
    program = (
        "import sys; from bert_jax.training.metric_writers import MetricWriter;"
        f"writer = MetricWriter({str(tmp_path)!r}); writer.write(1, 'train', {{'loss': 1.0}}); writer.close();"
        "sys.exit(bool({'jax', 'tensorflow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_log_that_was_removed_goes_on_and_says_so(tmp_path, capsys):
    writer = JsonLinesWriter(tmp_path / "metrics.jsonl")
    writer.write(1, "train", {"loss": 1.0})
    (tmp_path / "metrics.jsonl").unlink()
    writer.write(2, "train", {"loss": 2.0})
    writer.write(3, "train", {"loss": 3.0})
    writer.close()
    assert capsys.readouterr().err.count("was removed: the log goes on in a new file") == 1
    assert [parse_line(line)["step"] for line in (tmp_path / "metrics.jsonl").read_bytes().splitlines(True)] == [2, 3]


@pytest.mark.parametrize(("step", "warned"), [(0, 0), (3, 1)])
def test_a_resumed_run_without_its_log_says_so(tmp_path, capsys, step, warned):
    writer = JsonLinesWriter(tmp_path / "metrics.jsonl")
    writer.cut(step)
    writer.close()
    assert capsys.readouterr().err.count(f"begin after step {step}") == warned
