"""Goodput: every second is of one kind, waiting that nobody noticed is none, and times add up over a run's starts."""

import contextlib
import json

import jax
import jax.numpy as jnp
import pytest

from bert_jax.config import preset
from bert_jax.training import loop
from bert_jax.training.checkpoints import CheckpointStore
from bert_jax.training.flops import arithmetic_seconds, train_flops
from bert_jax.training.goodput import (
    CHECKPOINTING,
    CLOCK_METRICS,
    COMPILING,
    DATA,
    EVALUATING,
    KINDS,
    OTHER,
    SPLIT,
    STEPPING,
    Goodput,
)
from bert_jax.training.interruption import StopRequest
from bert_jax.training.loop import Cadence, CompiledPhase, train
from bert_jax.training.metric_writers import MetricWriter
from bert_jax.training.train_state import TrainState


class _Clock:
    """A clock that stands still until it is told to move."""

    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_an_interval_inside_another_is_taken_out_of_it():
    clock = _Clock()
    goodput = Goodput(clock)
    clock.now += 1
    with goodput.measure(STEPPING):
        clock.now += 2
        with goodput.measure(DATA):
            clock.now += 4
        clock.now += 8
        with pytest.raises(ValueError, match="evaluation"), goodput.measure(EVALUATING):
            clock.now += 16
            raise ValueError("evaluation")
        clock.now += 32
    clock.now += 64
    values = goodput.metrics()
    expected = {OTHER: 1 + 64, STEPPING: 2 + 8 + 32, DATA: 4, EVALUATING: 16, COMPILING: 0, CHECKPOINTING: 0}
    assert {kind: values[f"{kind}_seconds"] for kind in KINDS} == expected
    assert values["goodput"] == 42 / 127 and "mfu" not in values
    assert set(values) < CLOCK_METRICS


def test_a_wait_can_turn_out_to_be_something_else():
    clock = _Clock()
    goodput = Goodput(clock)
    with goodput.measure(STEPPING):
        with goodput.measure(DATA):
            clock.now += 5
            goodput.reclassify(STEPPING)
        with goodput.measure(DATA):
            clock.now += 1
    values = goodput.metrics()
    assert (values["stepping_seconds"], values["waiting_for_data_seconds"]) == (5, 1)


def test_times_add_up_over_the_starts_of_a_run():
    clock = _Clock()
    first = Goodput(clock)
    with first.measure(STEPPING):
        clock.now += 6
    first.add_step(6, 1.5)
    saved = json.loads(json.dumps(first.to_json()))
    second = Goodput(clock)
    second.add(saved)
    with second.measure(CHECKPOINTING):
        clock.now += 2
    second.add_step(4, 1.0)
    values = second.metrics()
    assert (values["stepping_seconds"], values["checkpointing_seconds"], values["goodput"]) == (6, 2, 0.75)
    assert values["mfu"] == 2.5 / 10
    assert "goodput 75.0%" in second.describe() and second.describe().endswith("MFU 25.0%")


def test_steps_of_devices_that_are_not_known_count_into_no_mfu():
    goodput = Goodput(_Clock())
    assert goodput.add_step(10, None) is None and "mfu" not in goodput.metrics()
    assert goodput.add_step(4, 1.0) == 0.25 and goodput.metrics()["mfu"] == 0.25
    assert "MFU" not in Goodput(_Clock()).describe()


def test_arithmetic_at_the_peak_by_hand():
    class Device:
        device_kind = "TPU v4"

    config = preset("base", vocab_size=30522)
    shapes = {"input_ids": ((256, 512), int), "masked_positions": ((256, 78), int), "cls_positions": ((256, 1), int)}
    flops = train_flops(config, 256, 512, 78, 1)
    assert arithmetic_seconds(config, shapes, [Device()] * 8) == flops / (8 * 275e12)
    # A layer's four projections and its feed-forward network are 12 hidden**2 multiply-adds a token.
    layers = 6 * 256 * 512 * 12 * (12 * 768**2 + 2 * 512 * 768)
    heads = 6 * 256 * (78 * (768**2 + 768 * 30522) + 768**2 + 2 * 768)
    assert flops == layers + heads
    Device.device_kind = "abacus"
    assert arithmetic_seconds(config, shapes, [Device()]) is None
    assert arithmetic_seconds(config, shapes, [Device()] * 2, peak_tflops=100) == flops / 200e12


def _train(workdir, clock, *, first_step=0, steps=4, evaluate=None, arithmetic=None):
    """Trains a task of one number, each of whose batches takes a second to come; returns the times and the log."""
    goodput = Goodput(clock)
    step = jax.jit(
        lambda state, batch: (
            TrainState(state.params + batch, (), state.step + 1),
            jnp.stack([1.0, 0.5, state.params, 10.0]),
        )
    )

    def batches(at):
        for number in range(at, steps):
            clock.now += 1
            yield jnp.float32(number)

    names = ("grad_norm", "learning_rate", "loss", "tokens")
    phase = CompiledPhase(0, steps, step, names, batches, evaluate, str, arithmetic)
    store, writer = CheckpointStore(workdir, 10), MetricWriter(workdir)
    with contextlib.closing(store), contextlib.closing(writer):
        goodput.add(store.record(first_step).get(SPLIT, {}))
        train(
            state=TrainState(jnp.float32(0), (), jnp.int32(first_step)),
            phases=[phase],
            cadence=Cadence(1, 2, 2),
            checkpoints=store,
            checkpoint_run={},
            checkpoint_files={},
            writer=writer,
            stop=StopRequest(),
            goodput=goodput,
        )
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return goodput.metrics(), lines


@pytest.fixture
def clock():
    return _Clock()


@pytest.fixture(params=[False, True])
def devices_are_busy(request, monkeypatch):
    """Whether the devices are found to be still at work whenever a batch comes."""
    monkeypatch.setattr(loop._Reporter, "is_busy", lambda self: request.param)
    return request.param


def test_the_loop_tells_waiting_and_evaluating_from_stepping(tmp_path, clock, devices_are_busy):
    def evaluate(params):
        clock.now += 10
        return {"loss": 1.0}

    values, lines = _train(tmp_path, clock, evaluate=evaluate)
    assert sum(values[f"{kind}_seconds"] for kind in KINDS) == clock.now - 100 == 24
    # A wait that the devices did not notice is stepping.
    assert values["waiting_for_data_seconds"] == (0 if devices_are_busy else 4)
    assert values["stepping_seconds"] == (4 if devices_are_busy else 0)
    assert values["evaluating_seconds"] == 20
    written = [line for line in lines if line["split"] == "goodput"]
    assert [(line["step"], line["evaluating_seconds"]) for line in written] == [(2, 10), (4, 20)]
    # On disk before the checkpoint of its step is begun, after the lines of the steps up to it.
    assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)
    assert all("mfu" not in line for line in lines)


def test_saving_is_told_from_the_rest(tmp_path, clock, monkeypatch):
    save = CheckpointStore.save

    def slow(self, *arguments):
        clock.now += 5
        save(self, *arguments)

    monkeypatch.setattr(CheckpointStore, "save", slow)
    assert _train(tmp_path, clock)[0]["checkpointing_seconds"] == 10


def test_a_resumed_run_goes_on_counting(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(loop._Reporter, "is_busy", lambda self: False)
    _train(tmp_path, clock, steps=2)
    with contextlib.closing(CheckpointStore(tmp_path, 10)) as store:
        assert store.record(2)[SPLIT]["waiting_for_data"] == 2
        assert store.record(1) == {}
    values, lines = _train(tmp_path, clock, first_step=2, arithmetic=1e-3)
    assert values["waiting_for_data_seconds"] == 4
    assert all(line["mfu"] > 0 for line in lines if line["split"] == "train" and line["step"] > 2)
    assert lines[-1]["mfu"] > 0
