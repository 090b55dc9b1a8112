"""The average of the parameters: its definition, and that training takes no notice of it."""

import types
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bert_jax.training.checkpoints import CheckpointStore
from bert_jax.training.saved_models import open_model
from bert_jax.training.train_state import TrainState, average_parameters, create_train_state
from bert_jax.training.train_step import make_train_step


class _Slope:
    """The loss is the parameter's product with the batch."""

    term_weights = types.MappingProxyType({"loss": 1.0})

    def loss_weights(self, batch):
        return {"loss": jnp.sum(batch["weight"])}

    def loss(self, params, batch, keys):
        total = jnp.sum(batch["weight"] * params["slope"])
        return {"loss": total}, {"sum": total}

    def metrics(self, statistics):
        return {"loss": statistics["sum"], "tokens": statistics["sum"]}


def _train(steps, ema_decay=None):
    optimizer = optax.adam(0.1)
    step = jax.jit(make_train_step(_Slope(), optimizer, lambda _: 0.1, seed=0, ema_decay=ema_decay))
    state = create_train_state({"slope": jnp.float32(3)}, optimizer, with_ema=ema_decay is not None)
    states = []
    for _ in range(steps):
        state, _ = step(state, {"weight": np.ones(2, np.float32)})
        states.append(state)
    return states


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.9999])
def test_each_steps_weight_is_the_decay_of_the_next_ones(decay):
    states = _train(6, decay)
    for number, state in enumerate(states, start=1):
        weights = decay ** np.arange(number)[::-1]
        values = [float(past.params["slope"]) for past in states[:number]]
        assert float(state.ema["slope"]) == pytest.approx(np.average(values, weights=weights), rel=1e-5)
        assert state.evaluated_params is state.ema


def test_training_takes_no_notice():
    for with_average, without in zip(_train(3, 0.9), _train(3), strict=True):
        assert float(with_average.params["slope"]) == float(without.params["slope"])
        assert without.ema is None and without.evaluated_params is without.params


def test_what_does_not_move_is_its_own_average():
    kept = {"kernel": jnp.float32(np.random.default_rng(0).normal(size=(5, 3)))}
    for step in range(1, 4):
        average = average_parameters(kept, kept, 0.99, jnp.int32(step))
        np.testing.assert_array_equal(average["kernel"], kept["kernel"])


def test_another_beginning_is_the_averages_too():
    state = create_train_state({"slope": jnp.float32(3)}, optax.adam(0.1), with_ema=True)
    other = state.beginning_with({"slope": jnp.float32(5)})
    assert float(other.params["slope"]) == float(other.ema["slope"]) == 5
    # Both are donated to the first step.
    assert other.params["slope"].unsafe_buffer_pointer() != other.ema["slope"].unsafe_buffer_pointer()


def test_saved_with_the_average_a_model_is_the_average(tmp_path):
    checkpoints = CheckpointStore(tmp_path, 2)
    for decay in (None, 0.5):
        state = _train(3, decay)[-1]
        checkpoints.save(4 if decay else 3, state, {}, {}, None)
        checkpoints.wait()
        loaded = open_model(tmp_path).load_parameters()
        assert float(loaded["slope"]) == float(state.evaluated_params["slope"])
        sharded = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)
        step, restored = checkpoints.restore_latest(sharded)
        assert step == (4 if decay else 3)
        jax.tree.map(np.testing.assert_array_equal, restored, state)
    checkpoints.close()


class _StateBefore(NamedTuple):
    """What was saved when there was no average yet."""

    params: Any
    opt_state: Any
    step: Any


def test_checkpoints_of_before_there_was_an_average_are_restored(tmp_path):
    state = _train(3)[-1]
    checkpoints = CheckpointStore(tmp_path, 2)
    checkpoints.save(3, _StateBefore(state.params, state.opt_state, state.step), {}, {}, None)
    checkpoints.wait()
    step, restored = checkpoints.restore_latest(
        jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)
    )
    assert step == 3 and isinstance(restored, TrainState) and restored.ema is None
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    checkpoints.close()
