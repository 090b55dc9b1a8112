"""One step: the same loss and gradients however the batch is cut, metrics that add up, and a model that learns."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bert_jax.config import BertConfig
from bert_jax.models.dropout import dropout
from bert_jax.tasks.pretraining import PreTraining
from bert_jax.training.compilation import CompiledEvaluation, compile_train_step
from bert_jax.training.optimizers import build_optimizer
from bert_jax.training.recipe import Optimizer
from bert_jax.training.train_state import create_train_state
from bert_jax.training.train_step import loss_and_gradients, make_eval_step, make_train_step

VOCAB_SIZE = 50


@pytest.fixture(scope="module")
def task():
    return PreTraining(
        BertConfig(
            vocab_size=VOCAB_SIZE,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=24,
            max_position_embeddings=32,
            initializer_range=0.2,
        )
    )


@pytest.fixture(scope="module")
def params(task):
    return jax.jit(task.init)(jax.random.key(0))


@pytest.fixture(scope="module")
def batch(random_pairs, lay_out):
    """Six rows of one or two pairs, with one to three masked tokens in each."""
    pairs = random_pairs(9, VOCAB_SIZE)
    rows = [pairs[:2], pairs[2:3], pairs[3:5], pairs[5:6], pairs[6:8], pairs[8:]]
    return lay_out(rows, length=24, predictions=6, max_pairs=2)


@pytest.fixture(scope="module")
def gradients(task):
    """Statistics and gradients, compiled for each number of micro-batches."""

    def compute(params, batch, accumulation_steps):
        compute = lambda params, batch, key: loss_and_gradients(task, params, batch, key, accumulation_steps)  # noqa: E731
        return jax.jit(compute)(params, batch, jax.random.key(9))

    return compute


def assert_close(tree, expected, relative=1e-4):
    def compare(path, one, other):
        tolerance = 1e-5 * float(np.abs(other).max()) + 1e-7
        np.testing.assert_allclose(one, other, rtol=relative, atol=tolerance, err_msg=jax.tree_util.keystr(path))

    jax.tree_util.tree_map_with_path(compare, tree, expected)


def test_accumulation_equals_the_large_batch_with_dropout(gradients, params, batch):
    whole = gradients(params, batch, 1)
    per_piece = {int(batch["masked_weights"][first::3].sum()) for first in range(3)}
    assert len(per_piece) > 1, "the pieces must differ in their number of masked tokens to tell means of means apart"
    assert_close(gradients(params, batch, 3), whole)


def test_gradients_are_those_of_the_sum_of_the_terms_means(task, gradients, params, batch):
    def loss(params):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(9), jnp.arange(6))
        sums, _ = task.loss(params, batch, keys)
        return sums["mlm"] / batch["masked_weights"].sum() + sums["nsp"] / batch["next_sentence_weights"].sum()

    assert_close(gradients(params, batch, 1)[1], jax.jit(jax.grad(loss))(params))


class Regression:
    """A task of two terms with fractional weights, one of them absent; dropout of its input."""

    term_weights = types.MappingProxyType({"squares": 2.0, "absent": 1.0})

    def loss_weights(self, batch):
        return {"squares": batch["weights"].sum(), "absent": jnp.zeros(())}

    def loss(self, parameters, batch, keys):
        predicted = dropout(batch["x"], 0.5, keys) @ parameters["w"]
        total = jnp.sum(batch["weights"] * (predicted - batch["y"]) ** 2)
        statistics = {"sum": total, "weight": batch["weights"].sum(), "rows": jnp.float32(len(batch["x"]))}
        return {"squares": total, "absent": jnp.zeros(())}, statistics

    def metrics(self, statistics):
        return {"loss": 2 * statistics["sum"] / statistics["weight"]}


@pytest.mark.parametrize("accumulation_steps", [1, 2, 4])
def test_weights_may_be_fractions_and_add_up_to_less_than_one(accumulation_steps):
    random = np.random.default_rng(0)
    batch = {"x": random.normal(size=(8, 3)), "y": random.normal(size=8), "weights": random.random(8) / 20}
    batch = {name: array.astype(np.float32) for name, array in batch.items()}
    w = random.normal(size=3).astype(np.float32)
    statistics, gradients = loss_and_gradients(Regression(), {"w": w}, batch, None, accumulation_steps)
    error = batch["x"] @ w - batch["y"]
    expected = 2 * 2 * (batch["weights"] * error) @ batch["x"] / batch["weights"].sum()
    np.testing.assert_allclose(gradients["w"], expected, rtol=1e-5)
    np.testing.assert_allclose(statistics["rows"], 8)
    np.testing.assert_allclose(statistics["sum"], (batch["weights"] * error**2).sum(), rtol=1e-5)


@pytest.fixture(scope="module")
def compiled_step(task, params, batch):
    """A compiled step at a constant rate, its state before the first step, and the names of its metrics."""
    optimizer = build_optimizer(Optimizer(), optax.constant_schedule(5e-3))
    state = jax.jit(lambda params: create_train_state(params, optimizer))(params)
    step = make_train_step(task, optimizer, optax.linear_schedule(0.0, 1.0, 10), seed=3)
    abstract = jax.eval_shape(lambda: state)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), abstract)
    compiled, names = compile_train_step(step, abstract, jax.tree.map(jnp.asarray, batch))
    return compiled, state, names


def run(compiled_step, batch, steps, state=None):
    """Runs steps on one batch; returns the last state and the metrics of each step."""
    compiled, first_state, names = compiled_step
    # The step takes its state's memory: give it a copy.
    state = jax.tree.map(jnp.copy, first_state if state is None else state)
    history = []
    for _ in range(steps):
        state, vector = compiled(state, jax.tree.map(jnp.asarray, batch))
        history.append(dict(zip(names, np.asarray(vector).tolist(), strict=True)))
    return state, history


def test_metrics_of_a_step(task, params, batch, compiled_step, gradients):
    state, (metrics,) = run(compiled_step, batch, 1)
    assert set(metrics) == {
        *("loss", "mlm_loss", "mlm_accuracy", "mlm_hidden_loss", "mlm_hidden_accuracy", "nsp_loss", "nsp_accuracy"),
        *("tokens", "grad_norm", "learning_rate"),
    }
    assert int(state.step) == 1
    assert metrics["tokens"] == (batch["segment_ids"] > 0).sum()
    np.testing.assert_allclose(metrics["loss"], metrics["mlm_loss"] + metrics["nsp_loss"], rtol=1e-6)
    assert metrics["learning_rate"] == 0.0

    key = jax.random.fold_in(jax.random.key(3), 0)
    statistics, expected = jax.jit(lambda p: loss_and_gradients(task, p, batch, key))(params)
    for name, value in task.metrics(statistics).items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5)
    squares = sum(float(np.sum(np.square(np.asarray(leaf, np.float64)))) for leaf in jax.tree.leaves(expected))
    np.testing.assert_allclose(metrics["grad_norm"], np.sqrt(squares), rtol=1e-5)


def test_steps_repeat_exactly_and_dropout_goes_by_the_step(compiled_step, batch):
    state, first = run(compiled_step, batch, 4)
    again, second = run(compiled_step, batch, 4)
    assert first == second
    jax.tree.map(np.testing.assert_array_equal, state, again)
    # From the state in the middle, too: nothing else is remembered.
    middle, _ = run(compiled_step, batch, 2)
    _, rest = run(compiled_step, batch, 2, state=middle)
    assert rest == first[2:]
    assert first[1]["learning_rate"] == pytest.approx(0.1)
    # The same parameters at another step: only dropout differs.
    later = compiled_step[1]._replace(step=jnp.int32(7))
    assert run(compiled_step, batch, 1, state=later)[1][0]["loss"] != first[0]["loss"]


def test_a_batch_can_be_learnt_by_heart(task, compiled_step, batch):
    state, history = run(compiled_step, batch, 150)
    assert history[-1]["mlm_loss"] < 0.4 * history[0]["mlm_loss"]
    assert int(state.step) == 150
    on_device = jax.tree.map(jnp.asarray, batch)
    metrics = CompiledEvaluation(task, make_eval_step(task), state.params, on_device)(state.params, [on_device])
    assert metrics["mlm_accuracy"] > 0.9 and metrics["nsp_accuracy"] == 1.0


def test_evaluation_of_pieces_equals_that_of_the_whole(task, params, batch):
    """Pieces of unequal numbers of tokens, the last filled up with empty rows; and without dropout."""

    def evaluate(batches):
        return CompiledEvaluation(task, make_eval_step(task), params, batches[0])(params, batches)

    pad = jax.tree.map(lambda array: np.concatenate([array, np.zeros_like(array[:2])]), batch)
    pieces = [jax.tree.map(lambda array, i=i: jnp.asarray(array[i : i + 4]), pad) for i in (0, 4)]
    assert pieces[0]["masked_weights"].sum() != pieces[1]["masked_weights"].sum()
    whole, cut = evaluate([jax.tree.map(jnp.asarray, batch)]), evaluate(pieces)
    assert whole.keys() == cut.keys()
    for name, value in whole.items():
        assert cut[name] == pytest.approx(value, rel=1e-5), name


def test_a_batch_without_a_second_task(compiled_step, batch):
    without = {**batch, "next_sentence_weights": np.zeros_like(batch["next_sentence_weights"])}
    state, (metrics,) = run(compiled_step, without, 1)
    assert metrics["nsp_loss"] == metrics["nsp_accuracy"] == 0.0
    assert metrics["loss"] == metrics["mlm_loss"] > 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    # The pooler serves the second task alone: nothing but decay has touched it.
    before = compiled_step[1].params["bert"]["pooler"]["dense"]
    after = state.params["bert"]["pooler"]["dense"]
    np.testing.assert_array_equal(after["bias"], before["bias"])
    np.testing.assert_allclose(after["kernel"], before["kernel"] * (1 - 5e-3 * 0.01), rtol=1e-6)
