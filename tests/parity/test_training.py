"""Losses, gradients and fifty optimizer steps against PyTorch on the same batches."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.interop.pretrained import open_pretrained
from bert_jax.tasks.pretraining import PreTraining
from bert_jax.training.initialization import paths
from bert_jax.training.optimizers import build_optimizer
from bert_jax.training.recipe import Optimizer, Schedule
from bert_jax.training.schedules import build_schedule
from bert_jax.training.train_state import create_train_state
from bert_jax.training.train_step import loss_and_gradients, make_train_step


@pytest.fixture(scope="module")
def evaluate(read_model, inputs):
    """Losses and gradients of the first batch, without dropout, by activation."""

    @functools.cache
    def compute(hidden_act):
        model = read_model("BertForPreTraining", hidden_act)
        task = PreTraining(model.config)
        batch = inputs.training_batch(0)
        statistics, gradients = jax.jit(lambda parameters: loss_and_gradients(task, parameters, batch, None))(
            model.parameters
        )
        return task.metrics(statistics), gradients

    return compute


def test_batches_are_those_of_the_golden_results(inputs, read_results):
    made = [inputs.checksum(inputs.training_batch(step)) for step in range(inputs.STEPS)]
    np.testing.assert_array_equal(made, read_results("training")["checksums"])


@pytest.mark.parametrize("hidden_act", ["gelu", "gelu_new"])
def test_losses(evaluate, read_results, hidden_act):
    metrics, _ = evaluate(hidden_act)
    for name in ("loss", "mlm_loss", "nsp_loss"):
        np.testing.assert_allclose(metrics[name], read_results("training")[f"{hidden_act}.{name}"], rtol=1e-5)


def test_gradients(evaluate, golden):
    _, gradients = evaluate("gelu")
    # They were written as if they were a model, each under the name of its parameter.
    expected = paths(open_pretrained(golden / "gradients").load_parameters())
    computed = paths(gradients)
    assert computed.keys() == expected.keys()
    for name, gradient in computed.items():
        # One layer at a time: the tensors that PyTorch has.
        layered = "/layers/" in name
        for one, other in zip(*((g if layered else [g]) for g in (gradient, expected[name])), strict=True):
            error = np.linalg.norm(np.asarray(one, np.float64) - other)
            if name.endswith("attention/key/bias"):
                # Zero but for rounding: softmax does not see what all scores of a query have in common.
                assert np.abs(one).max() < 1e-6 and np.abs(other).max() < 1e-6
            else:
                assert error < 1e-4 * np.linalg.norm(other), name


def test_fifty_steps_of_adamw(read_model, read_results, inputs):
    """The same schedule, clipping and decay, by the train step that every run takes."""
    model = read_model("BertForPreTraining")
    config = dataclasses.replace(model.config, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    task = PreTraining(config)
    schedule = build_schedule(Schedule("linear", warmup_steps=inputs.WARMUP_STEPS), inputs.LEARNING_RATE, inputs.STEPS)
    choices = Optimizer(
        "adamw",
        b1=inputs.BETAS[0],
        b2=inputs.BETAS[1],
        eps=inputs.EPSILON,
        weight_decay=inputs.WEIGHT_DECAY,
        clip_global_norm=inputs.CLIP_NORM,
    )
    optimizer = build_optimizer(choices, schedule)
    step = jax.jit(make_train_step(task, optimizer, schedule, seed=0))
    state = create_train_state(jax.tree.map(jnp.asarray, model.parameters), optimizer)
    history = []
    for number in range(inputs.STEPS):
        state, metrics = step(state, inputs.training_batch(number))
        history.append(jax.device_get(metrics))
    for name in ("loss", "mlm_loss", "nsp_loss"):
        curve = np.asarray([metrics[name] for metrics in history])
        expected = read_results("training")[f"curve.{name}"]
        assert np.abs(curve / expected - 1).max() < 1e-4, name
    assert curve.shape == expected.shape == (50,)
    norms = np.asarray([metrics["grad_norm"] for metrics in history])
    np.testing.assert_allclose(norms, read_results("training")["curve.grad_norm"], rtol=1e-4)
