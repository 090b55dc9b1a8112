"""Several tasks on one encoder: gradients add up by their weights, heads learn from their own task alone."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.config import BertConfig
from bert_jax.models.execution import Execution
from bert_jax.models.shared_encoder import model_of_task
from bert_jax.parallel.mesh import abstract_batch, make_mesh
from bert_jax.parallel.sharding import state_shardings, with_shardings
from bert_jax.tasks.multitask import SharedEncoder
from bert_jax.tasks.objectives import TextObjective, TokenObjective
from bert_jax.training.compilation import compile_train_step
from bert_jax.training.gradient_steps import (
    StepOfTasks,
    compile_gradient_step,
    compile_update,
    key_of_task,
    make_gradient_step,
)
from bert_jax.training.optimizers import build_optimizer
from bert_jax.training.recipe import Optimizer
from bert_jax.training.train_state import create_train_state
from bert_jax.training.train_step import loss_and_gradients, make_train_step, make_update

_CONFIG = BertConfig(
    vocab_size=40,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=12,
    initializer_range=0.2,
    hidden_dropout_prob=0.3,
)
_TEXTS, _TOKENS = TextObjective(_CONFIG, "classes", 3), TokenObjective(_CONFIG, 4)
_TASKS = {"moods": _TEXTS, "tags": _TOKENS}
_WEIGHTS = {"moods": 2.0, "tags": 0.25}
_SEED = 7


def _rate(step):
    return jnp.where(step >= 0, 1e-2, 0.0)


def _batch(seed, rows, length, by_token):
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 3, (rows, length) if by_token else rows)
    return {
        "input_ids": draw.integers(5, 40, (rows, length)).astype(np.int32),
        "token_type_ids": np.zeros((rows, length), np.int32),
        "position_ids": np.tile(np.arange(length, dtype=np.int32), (rows, 1)),
        "segment_ids": np.ones((rows, length), np.int32),
        "labels": labels.astype(np.int32),
        "row_weights": np.ones(rows, np.float32),
    }


@pytest.fixture(scope="module")
def batches():
    """By the tasks' places; of different lengths and numbers of rows."""
    return {0: _batch(0, 4, 10, False), 1: _batch(1, 6, 8, True)}


@pytest.fixture(scope="module")
def prepare():
    """Makes an initial state of these tasks, and their step on batches of the shapes of those given."""
    mesh = make_mesh()

    def make(objectives, weights, batches, ema_decay=None):
        shared = SharedEncoder(objectives)
        # With a large eps, what is zero but for rounding stays so.
        optimizer = build_optimizer(Optimizer(kind="adamw", clip_global_norm=None, eps=1e-2), _rate)

        def create(key):
            return create_train_state(shared.init(key), optimizer, with_ema=ema_decay is not None)

        abstract = jax.eval_shape(create, jax.random.key(0))
        abstract = with_shardings(abstract, state_shardings(mesh, shared.logical_axes(), abstract))
        programs = {}
        for place, (name, task) in enumerate(shared.tasks.items()):
            step = make_gradient_step(task, weight=weights[name], place=place, seed=_SEED)
            shapes = abstract_batch(mesh, {key: (array.shape, array.dtype) for key, array in batches[place].items()})
            length = batches[place]["input_ids"].shape[1]
            programs[place, length] = compile_gradient_step(step, abstract, shapes, begins=place == 0)
        names = tuple(own for _, own in programs.values())
        update = make_update(optimizer, _rate, ema_decay=ema_decay)
        compiled = compile_update(update, abstract, names)
        state = jax.jit(create)(jax.random.key(0))
        step = StepOfTasks(programs, {names: compiled})
        return types.SimpleNamespace(
            shared=shared, state=state, step=step, programs=programs, first_names=compiled[1], optimizer=optimizer
        )

    return make


@pytest.fixture(scope="module")
def both(prepare, batches):
    return prepare(_TASKS, _WEIGHTS, batches)


def _close(tree, expected):
    def compare(path, one, other):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6, err_msg=jax.tree_util.keystr(path))

    jax.tree_util.tree_map_with_path(compare, tree, expected)


def _gradients(both, batches):
    """The gradients of a step as its programs add them up, and the metrics of each task."""
    params, step = both.state.params, both.state.step
    so_far, metrics = (), []
    for place, batch in batches.items():
        program, names = both.programs[place, batch["input_ids"].shape[1]]
        gradients, vector = program(params, step, batch, *so_far)
        so_far = (gradients,)
        metrics.append(dict(zip(names, np.asarray(vector), strict=True)))
    return so_far[0], metrics


def test_the_gradients_are_the_weighted_sum_of_those_of_each_task_alone(both, batches):
    gradients, metrics = _gradients(both, batches)
    params = both.state.params
    key = jax.random.fold_in(jax.random.key(_SEED), 0)
    alone = {}
    for place, (name, objective) in enumerate(_TASKS.items()):
        own = model_of_task(params, name, with_pooler=name == "moods")
        statistics, alone[name] = jax.jit(
            lambda own, batch, key, objective=objective: loss_and_gradients(objective, own, batch, key)
        )(own, batches[place], key_of_task(key, place))
        assert metrics[place]["loss"] == pytest.approx(float(objective.metrics(statistics)["loss"]), rel=1e-5)
    moods, tags = (jax.tree.map(lambda leaf, name=name: _WEIGHTS[name] * leaf, alone[name]) for name in _TASKS)
    without_pooler = {name: part for name, part in moods["bert"].items() if name != "pooler"}
    _close(
        gradients,
        {
            "bert": {**jax.tree.map(jnp.add, without_pooler, tags["bert"]), "pooler": moods["bert"]["pooler"]},
            "tasks": {"moods": {"classifier": moods["classifier"]}, "tags": {"classifier": tags["classifier"]}},
        },
    )


def test_the_encoder_learns_from_both_and_heads_from_their_own(both, batches):
    found = {}
    for place, counted in enumerate(_TASKS):
        # Rows that weigh nothing have no loss.
        empty = {1 - place: {**batches[1 - place], "row_weights": np.zeros_like(batches[1 - place]["row_weights"])}}
        gradients, _ = _gradients(both, {at: {**batches, **empty}[at] for at in (0, 1)})
        found[counted] = jax.tree.map(lambda leaf: bool(np.any(leaf)), gradients)
    for gradients in found.values():
        encoder = gradients["bert"]["encoder"]["layers"]
        assert all(jax.tree.leaves(encoder["feed_forward"])), gradients
    assert all(jax.tree.leaves(found["moods"]["tasks"]["moods"])) and all(
        jax.tree.leaves(found["tags"]["tasks"]["tags"])
    )
    assert not any(jax.tree.leaves(found["moods"]["tasks"]["tags"]))
    assert not any(jax.tree.leaves((found["tags"]["tasks"]["moods"], found["tags"]["bert"]["pooler"])))


def test_a_step_reports_the_weighted_sum_and_each_loss(both, batches):
    state, vector = both.step(jax.tree.map(jnp.copy, both.state), batches)
    _, metrics = _gradients(both, batches)
    found = dict(zip(both.first_names, np.asarray(vector), strict=False))
    assert found["loss"] == pytest.approx(2.0 * metrics[0]["loss"] + 0.25 * metrics[1]["loss"], rel=1e-5)
    assert found["tokens"] == 4 * 10 + 6 * 8 and found["learning_rate"] == pytest.approx(1e-2)
    rest = np.asarray(vector)[len(both.first_names) :]
    np.testing.assert_allclose(rest, [of_task[name] for of_task in metrics for name in ("accuracy", "loss")])
    gradients, _ = _gradients(both, batches)
    squares = sum(float(np.square(np.asarray(leaf, np.float64)).sum()) for leaf in jax.tree.leaves(gradients))
    assert found["grad_norm"] == pytest.approx(np.sqrt(squares), rel=1e-5) and int(state.step) == 1


def test_one_task_with_weight_one_trains_as_it_would_alone(prepare, batches):
    """Up to rounding: as two programs, the compiler merges other operations than in one."""
    one = prepare({"moods": _TEXTS}, {"moods": 1.0}, batches, ema_decay=0.9)

    def create(key):
        return create_train_state(_TEXTS.init(key), one.optimizer, with_ema=True)

    alone = jax.jit(create)(jax.random.key(0))
    own = lambda tree: model_of_task(tree, "moods", with_pooler=True)  # noqa: E731
    jax.tree.map(np.testing.assert_array_equal, own(one.state.params), alone.params)
    shapes = abstract_batch(make_mesh(), {key: (array.shape, array.dtype) for key, array in batches[0].items()})
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), alone)
    train_step = make_train_step(_TEXTS, one.optimizer, _rate, seed=_SEED, ema_decay=0.9)
    compiled, names = compile_train_step(train_step, abstract, shapes)
    state = one.state
    before = jax.tree.map(np.asarray, alone.params)
    for _ in range(5):
        state, vector = one.step(state, {0: batches[0]})
        alone, metrics = compiled(alone, batches[0])
    _close(own(state.params), alone.params)
    _close(own(state.ema), alone.ema)
    for part in ("bert", "classifier"):
        moved = jax.tree.map(
            lambda new, old: float(np.abs(np.asarray(new) - old).max()), alone.params[part], before[part]
        )
        assert max(jax.tree.leaves(moved)) > 1e-2
    loss = dict(zip(one.first_names, np.asarray(vector), strict=False))["loss"]
    assert dict(zip(names, np.asarray(metrics), strict=True))["loss"] == pytest.approx(loss, rel=1e-4)


def test_frozen_layers_and_freezing_reach_every_task():
    shared = SharedEncoder(
        {"moods": TextObjective(_CONFIG, "classes", 3, execution=Execution(frozen_layers=1)), "tags": _TOKENS}
    )
    params = jax.jit(shared.init)(jax.random.key(0))
    assert params["tasks"]["moods"]["classifier"]["kernel"].shape == (16, 3)
    assert params["tasks"]["tags"]["classifier"]["kernel"].shape == (16, 4)
    assert "pooler" in params["bert"] and "pooler" in shared.logical_axes()["bert"]
    trained = jax.tree_util.tree_map_with_path(lambda path, _: "tags" in jax.tree_util.keystr(path), params)
    step = make_gradient_step(shared.tasks["tags"], weight=1.0, place=1, seed=0, trained=trained)
    gradients, _ = jax.jit(step)(params, jnp.int32(0), _batch(0, 4, 10, True))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradients["bert"]))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradients["tasks"]["tags"]))


def test_tasks_draw_other_dropout_than_each_other():
    shared = SharedEncoder({"one": _TEXTS, "two": _TEXTS})
    params = jax.jit(shared.init)(jax.random.key(0))
    one, two = (params["tasks"][name]["classifier"]["kernel"] for name in ("one", "two"))
    assert np.any(one != two)
    params["tasks"]["two"] = params["tasks"]["one"]
    batch, losses = _batch(0, 4, 10, False), []
    for place, task in enumerate(shared.tasks.values()):
        step = jax.jit(make_gradient_step(task, weight=1.0, place=place, seed=0))
        losses.append(float(step(params, jnp.int32(3), batch)[1]["loss"]))
    assert losses[0] != losses[1]
