"""Frozen parameters do not move and cost no gradient; rates fall from layer to layer."""

import jax
import numpy as np
import optax
import pytest

from bert_jax.config import BertConfig
from bert_jax.errors import UserError
from bert_jax.models.execution import Execution
from bert_jax.tasks.objectives import TextObjective
from bert_jax.training.optimizers import build_optimizer
from bert_jax.training.recipe import OPTIMIZERS, Optimizer
from bert_jax.training.train_state import create_train_state
from bert_jax.training.train_step import loss_and_gradients, make_train_step
from bert_jax.training.trainable import count_trained, is_trained, moments_of_trained, scale_updates, update_factors

_LAYERS = 3
_CONFIG = BertConfig(
    vocab_size=40,
    hidden_size=16,
    num_hidden_layers=_LAYERS,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=12,
    initializer_range=0.2,
)


@pytest.fixture(scope="module")
def batch():
    draw = np.random.default_rng(0)
    return {
        "input_ids": draw.integers(5, 40, (4, 10)).astype(np.int32),
        "token_type_ids": np.zeros((4, 10), np.int32),
        "position_ids": np.tile(np.arange(10, dtype=np.int32), (4, 1)),
        "segment_ids": np.ones((4, 10), np.int32),
        "labels": np.asarray([0, 1, 1, 0], np.int32),
        "row_weights": np.ones(4, np.float32),
    }


def objective(frozen_layers=0, **execution):
    return TextObjective(_CONFIG, "classes", 2, execution=Execution(frozen_layers=frozen_layers, **execution))


@pytest.fixture(scope="module")
def params():
    return jax.jit(objective().init)(jax.random.key(0))


def leaves(tree):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in jax.tree.leaves_with_path(tree)
    }


def moved(params, batch, task, factors):
    """Takes two steps; returns for each parameter whether it moved, by layer where there are several."""
    optimizer = optax.chain(build_optimizer(Optimizer(weight_decay=0.1), lambda _: 0.1), scale_updates(factors))
    step = jax.jit(make_train_step(task, optimizer, lambda _: 0.1, seed=0, trained=is_trained(factors)))
    state = create_train_state(params, optimizer)
    for _ in range(2):
        state, _ = step(state, batch)
    before = leaves(params)
    changes = {}
    for name, after in leaves(state.params).items():
        differs = np.asarray(after != before[name])
        changes[name] = differs.reshape(len(differs), -1).any(axis=1) if "/layers/" in name else differs.any()
    return changes


@pytest.mark.parametrize("frozen_layers", [1, 3])
def test_frozen_layers_and_embeddings_stay(params, batch, frozen_layers):
    factors = update_factors(params, frozen_layers=frozen_layers)
    for name, change in moved(params, batch, objective(frozen_layers), factors).items():
        if "/layers/" in name:
            np.testing.assert_array_equal(change, np.arange(_LAYERS) >= frozen_layers, err_msg=name)
        else:
            assert change == ("/embeddings/" not in name), name


def test_frozen_layers_change_no_loss_and_no_other_gradient(params, batch):
    key = jax.random.key(3)
    expected, whole = loss_and_gradients(objective(), params, batch, key)
    for remat in ("none", "full"):
        statistics, gradients = loss_and_gradients(objective(2, remat=remat), params, batch, key)
        np.testing.assert_allclose(statistics["sum"], expected["sum"], rtol=1e-5)
        for name, gradient in leaves(gradients).items():
            wanted = np.asarray(leaves(whole)[name])
            if "/layers/" in name:
                wanted = np.where(np.arange(_LAYERS).reshape(-1, *[1] * (wanted.ndim - 1)) >= 2, wanted, 0)
            elif "/embeddings/" in name:
                wanted = np.zeros_like(wanted)
            np.testing.assert_allclose(gradient, wanted, rtol=1e-3, atol=1e-6, err_msg=name)


def test_frozen_layers_cost_no_backward_pass(params, batch):
    def flops(task):
        step = jax.jit(lambda params: loss_and_gradients(task, params, batch, jax.random.key(0))[1])
        # Unrolled, so that the compiler's count is of all layers.
        return step.lower(params).compile().cost_analysis()["flops"]

    assert flops(objective(2, unroll=3)) < 0.7 * flops(objective(unroll=3))


def test_frozen_names_stay(params, batch):
    factors = update_factors(params, frozen=["bert/embeddings/*", "*/attention/*", "classifier/bias"])
    for name, change in moved(params, batch, objective(), factors).items():
        is_frozen = "/embeddings/" in name or "/attention/" in name or name == "classifier/bias"
        # Key biases have no true gradient, and these are frozen.
        assert np.all(change == (not is_frozen)), name


def test_the_rate_falls_from_layer_to_layer(params):
    factors = update_factors(params, layer_decay=0.5)
    flat = leaves(factors)
    assert flat["bert/encoder/layers/feed_forward/output/kernel"].ravel().tolist() == [0.125, 0.25, 0.5]
    assert flat["classifier/kernel"] == flat["bert/pooler/dense/kernel"] == 1
    assert flat["bert/embeddings/word_embeddings/embedding"] == 0.0625
    updates, _ = scale_updates(factors).update(jax.tree.map(np.ones_like, params), optax.EmptyState(), params)
    for name, update in leaves(updates).items():
        np.testing.assert_array_equal(update, np.broadcast_to(flat[name], update.shape), err_msg=name)


def test_counts(params):
    trained, total = count_trained(params, update_factors(params, frozen_layers=1))
    by_layer = sum(leaf.size // _LAYERS for name, leaf in leaves(params).items() if "/layers/" in name)
    embeddings = sum(leaf.size for name, leaf in leaves(params).items() if "/embeddings/" in name)
    assert total == sum(leaf.size for leaf in jax.tree.leaves(params)) and trained == total - by_layer - embeddings


_FROZEN = (
    {"frozen_layers": 2},
    {"frozen_layers": 3},
    {"frozen_layers": 1, "layer_decay": 0.9, "frozen": ["*/layer_norm/*", "*/attention/*", "bert/pooler/*"]},
    {"layer_decay": 0.5},
)


@pytest.mark.parametrize(
    ("kind", "choice"),
    # Products of fewer matrices are rounded otherwise, so that test_muon.py has Muon.
    [
        *((kind, _FROZEN[2]) for kind in OPTIMIZERS if kind != "muon"),
        ("lamb", _FROZEN[0]),
        ("bert_adamw", _FROZEN[3]),
    ],
)
def test_without_moments_of_what_is_frozen_every_bit_is_the_same(params, batch, kind, choice):
    factors = update_factors(params, **choice)
    # A norm that is exceeded, so that gradients are scaled down.
    recipe = Optimizer(kind=kind, weight_decay=0.1, clip_global_norm=0.01)

    def train(restrict):
        optimizer = optax.chain(build_optimizer(recipe, lambda _: 0.1, restrict), scale_updates(factors))
        task = objective(choice.get("frozen_layers", 0))
        step = jax.jit(make_train_step(task, optimizer, lambda _: 0.1, seed=0, trained=is_trained(factors)))
        state = create_train_state(params, optimizer)
        for _ in range(3):
            state, metrics = step(state, batch)
        return state, metrics

    whole, restricted = train(None), train(moments_of_trained(factors))
    for expected, found in ((whole[0].params, restricted[0].params), (whole[1], restricted[1])):
        jax.tree.map(np.testing.assert_array_equal, expected, found)


@pytest.mark.parametrize("choice", _FROZEN)
def test_moments_are_kept_for_what_is_trained_alone(params, choice):
    factors = update_factors(params, **choice)
    optimizer = build_optimizer(Optimizer(), lambda _: 0.1, moments_of_trained(factors))
    kept = sum(leaf.size for leaf in jax.tree.leaves(optimizer.init(params)) if leaf.ndim)
    trained, _ = count_trained(params, factors)
    assert kept == 2 * trained


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"frozen_layers": 4}, "from 0 to the model's 3, not 4"),
        ({"frozen": ["*/no_such/*"]}, "'\\*/no_such/\\*' fits no parameter"),
        ({"frozen": ["*"]}, "nothing is left to train"),
    ],
)
def test_bad_choices(params, choice, message):
    with pytest.raises(UserError, match=message):
        update_factors(params, **choice)
