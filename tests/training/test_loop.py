"""The loop, on a task of one number: what happens at which step, and in which order."""

import contextlib
import dataclasses
import itertools
import json
import pathlib
import signal
import types

import jax
import jax.numpy as jnp
import pytest

from bert_jax.errors import DataError, TrainingError
from bert_jax.training import loop
from bert_jax.training.checkpoints import CheckpointStore
from bert_jax.training.interruption import StopRequest
from bert_jax.training.loop import Cadence, CompiledPhase, Profile, train
from bert_jax.training.metric_writers import MetricWriter
from bert_jax.training.train_state import TrainState

_NAMES = ("grad_norm", "learning_rate", "loss", "tokens")


def _phase(first_step: int, steps: int, *, evaluate=None, bad_step: int | None = None) -> CompiledPhase:
    """Steps that add the batch to the only parameter; the loss is the sum so far."""

    @jax.jit
    def step(state: TrainState, batch: jax.Array):
        params = state.params + batch
        loss = jnp.where(state.step + 1 == (bad_step or -1), jnp.nan, params)
        return TrainState(params, state.opt_state, state.step + 1), jnp.stack([1.0, 0.5, loss, 10.0])

    def batches(at: int):
        for number in range(at, first_step + steps):
            yield jnp.float32(number)

    return CompiledPhase(first_step, steps, step, _NAMES, batches, evaluate, lambda at: f"batch {at}")


def _run(workdir, phases, *, cadence=(1, 0, 100), start=0, stop=None, keep=10, profile=None):
    state = TrainState(jnp.float32(sum(range(start))), (), jnp.int32(start))
    store, writer = CheckpointStore(workdir, keep), MetricWriter(workdir)
    with contextlib.closing(store), contextlib.closing(writer):
        return train(
            state=state,
            phases=phases,
            cadence=Cadence(*cadence),
            checkpoints=store,
            checkpoint_run={},
            checkpoint_files={},
            writer=writer,
            stop=stop or StopRequest(),
            profile=profile,
        )


def _log(workdir: pathlib.Path) -> list[tuple]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["split"], line["loss"]) for line in lines if line["split"] != "goodput"]


def _saved(workdir: pathlib.Path) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


def test_every_step_has_its_own_loss(tmp_path):
    state, validation = _run(tmp_path, [_phase(0, 5)])
    assert (int(state.step), float(state.params), validation) == (5, 10, None)
    assert _log(tmp_path) == [(step, "train", sum(range(step))) for step in range(1, 6)]
    assert _saved(tmp_path) == [5]


def test_cadence(tmp_path):
    losses = iter([3.0, 4.0, 2.0])
    phase = _phase(0, 7, evaluate=lambda params: {"loss": next(losses)})
    _, validation = _run(tmp_path, [phase], cadence=(2, 3, 4))
    assert _log(tmp_path) == [
        (2, "train", 1),
        (3, "validation", 3.0),
        (4, "train", 6),
        (6, "train", 15),
        (6, "validation", 4.0),
        (7, "validation", 2.0),
    ]
    # At 3 and 7 for the best loss so far, at 4 by the cadence, at 7 for the end.
    assert _saved(tmp_path) == [3, 4, 7] and validation == {"loss": 2.0}


def test_evaluation_sees_the_parameters_of_its_step(tmp_path):
    phase = _phase(0, 4, evaluate=lambda params: {"loss": float(params)})
    _run(tmp_path, [phase], cadence=(1, 2, 100))
    assert [line for line in _log(tmp_path) if line[1] == "validation"] == [(2, "validation", 1), (4, "validation", 6)]


def test_phases_follow_each_other_and_resume_anywhere(tmp_path):
    phases = [_phase(0, 3), _phase(3, 4)]
    _run(tmp_path / "whole", phases)
    expected = _log(tmp_path / "whole")
    assert [line[0] for line in expected] == list(range(1, 8))
    for start in range(1, 7):
        _run(tmp_path / str(start), phases, start=start)
        assert _log(tmp_path / str(start)) == expected[start:]


def test_only_the_last_phase_decides_which_checkpoint_is_best(tmp_path):
    phases = [
        _phase(0, 2, evaluate=lambda params: {"loss": 0.1}),
        _phase(2, 4, evaluate=lambda params: {"loss": float(params)}),
    ]
    _run(tmp_path, phases, cadence=(1, 1, 100), keep=1)
    # The losses of the second phase are 3, 6, 10, 15.
    assert _saved(tmp_path) == [3, 6]


@pytest.mark.parametrize("bad_step", [1, 4, 6])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, bad_step):
    with pytest.raises(TrainingError, match=rf"the loss is nan .* at step {bad_step} \(batch {bad_step - 1}\)"):
        _run(tmp_path, [_phase(0, 6, bad_step=bad_step)], cadence=(1, 0, 1))
    assert [line[0] for line in _log(tmp_path)] == list(range(1, bad_step))
    assert _saved(tmp_path) == list(range(1, bad_step))


def test_a_request_stops_after_the_step_and_saves(tmp_path, monkeypatch):
    stop = StopRequest()
    evaluated = []

    def evaluate(params):
        evaluated.append(float(params))
        stop.signal = signal.SIGTERM
        return {"loss": 1.0}

    state, _ = _run(tmp_path, [_phase(0, 3, evaluate=evaluate), _phase(3, 3)], cadence=(1, 2, 100), stop=stop)
    assert int(state.step) == 2 and evaluated == [1.0]
    assert _saved(tmp_path) == [2] and [line[0] for line in _log(tmp_path)] == [1, 2, 2]


def test_a_request_before_the_first_step(tmp_path):
    stop = StopRequest()
    stop.signal = signal.SIGTERM
    state, _ = _run(tmp_path, [_phase(0, 3)], stop=stop)
    assert int(state.step) == 0 and _saved(tmp_path) == [0] and _log(tmp_path) == []


def test_the_log_is_on_disk_before_a_checkpoint_is_begun(tmp_path, monkeypatch):
    events = []
    sync, save = MetricWriter.sync, CheckpointStore.save

    def record_sync(self):
        sync(self)
        events.append(("log", max((line[0] for line in _log(tmp_path)), default=0)))

    def record_save(self, step, *others):
        events.append(("save", step))
        save(self, step, *others)

    monkeypatch.setattr(MetricWriter, "sync", record_sync)
    monkeypatch.setattr(CheckpointStore, "save", record_save)
    _run(tmp_path, [_phase(0, 6, evaluate=lambda params: {"loss": 1.0})], cadence=(1, 2, 3))
    saves = [number for number, event in enumerate(events) if event[0] == "save"]
    assert [events[number][1] for number in saves] == [2, 3, 6]
    assert all(events[number - 1] == ("log", events[number][1]) for number in saves)


@pytest.mark.parametrize("are_busy", [True, False])
def test_metrics_are_fetched_late(tmp_path, monkeypatch, are_busy):
    """A step is dispatched while the results of those before it are still under way; what is there is fetched."""
    monkeypatch.setattr(loop._Reporter, "is_busy", lambda self: are_busy)
    dispatched, fetched = [], []
    write = MetricWriter.write

    def record(self, step, split, values):
        fetched.append((step, len(dispatched)))
        write(self, step, split, values)

    monkeypatch.setattr(MetricWriter, "write", record)
    phase = _phase(0, 8)

    def step(state, batch):
        dispatched.append(1)
        return phase.step(state, batch)

    fields = {name: getattr(phase, name) for name in phase.__dataclass_fields__}
    _run(tmp_path, [types.SimpleNamespace(**{**fields, "step": step})])
    assert all(under_way > at if are_busy else under_way == at for at, under_way in fetched[:5])


def test_profile(tmp_path):
    _run(tmp_path, [_phase(0, 6)], profile=Profile(2, 2, str(tmp_path / "profile")))
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    assert [line[0] for line in _log(tmp_path)] == list(range(1, 7))


def test_damaged_rows_end_the_run_once_its_state_is_saved(tmp_path):
    phase = _phase(0, 6)
    sound = phase.batches

    def batches(at: int):
        yield from itertools.islice(sound(at), 4 - at)
        raise DataError("shard 3 is damaged")

    with pytest.raises(DataError, match="shard 3"):
        _run(tmp_path, [dataclasses.replace(phase, batches=batches)], cadence=(1, 0, 3))
    assert _saved(tmp_path) == [3, 4] and [line[0] for line in _log(tmp_path)] == [1, 2, 3, 4]


def test_damaged_rows_of_an_evaluation_leave_it_to_be_made_again(tmp_path):
    """A state that was saved there would go on without it, or be the last of a run that never was evaluated."""

    def damaged(params):
        raise DataError("shard 3 is damaged")

    with pytest.raises(DataError, match="shard 3"):
        _run(tmp_path / "run", [_phase(0, 6, evaluate=damaged)], cadence=(1, 5, 3))
    assert _saved(tmp_path / "run") == [3]
    sound = _phase(0, 6, evaluate=lambda params: {"loss": float(params)})
    (tmp_path / "run/metrics.jsonl").unlink()
    _run(tmp_path / "run", [sound], cadence=(1, 5, 3), start=3)
    _run(tmp_path / "whole", [sound], cadence=(1, 5, 3))
    assert _log(tmp_path / "run") == [line for line in _log(tmp_path / "whole") if line[0] > 3]
