"""Muon: which parameters it is for, against references in NumPy and optax, and what it goes together with."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax.contrib import MuonDimensionNumbers, MuonState

from bert_jax.config import BertConfig
from bert_jax.tasks.multitask import SharedEncoder
from bert_jax.tasks.objectives import TextObjective, TokenObjective
from bert_jax.tasks.pretraining import PreTraining
from bert_jax.training.muon import matrix_axes, scale_by_orthogonal_momentum
from bert_jax.training.optimizers import build_optimizer
from bert_jax.training.recipe import Optimizer
from bert_jax.training.trainable import moments_of_trained, scale_updates, update_factors

_LAYERS, _HIDDEN = 3, 16
_SIZES = {
    "vocab_size": 40,
    "hidden_size": _HIDDEN,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 12,
    "initializer_range": 0.2,
}
_TASK = PreTraining(BertConfig(**_SIZES))
_STACK = "bert/encoder/layers"
# How many axes of the inputs, after that of the layers.
_INPUT_AXES = {
    f"{_STACK}/attention/query/kernel": 1,
    f"{_STACK}/attention/key/kernel": 1,
    f"{_STACK}/attention/value/kernel": 1,
    f"{_STACK}/attention/output/kernel": 2,
    f"{_STACK}/feed_forward/intermediate/kernel": 1,
    f"{_STACK}/feed_forward/output/kernel": 1,
}


def flat(tree, is_leaf=None):
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_leaf)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


@pytest.fixture(scope="module")
def params():
    return jax.jit(_TASK.init)(jax.random.key(0))


def gradients(params, seed):
    """Random ones, of layers of very different norms: what mixes layers shows."""
    draw = np.random.default_rng(seed)

    def random(path, leaf):
        values = draw.standard_normal(leaf.shape)
        if "layers" in jax.tree_util.keystr(path):
            values *= np.reshape([1.0, 30.0, 0.03], (_LAYERS, *[1] * (leaf.ndim - 1)))
        return jnp.asarray(values, jnp.float32)

    return jax.tree_util.tree_map_with_path(random, params)


def build(rate=lambda step: 0.01, restrict=None, **choices):
    optimizer = Optimizer(**{"kind": "muon", "clip_global_norm": None, **choices})
    return build_optimizer(optimizer, rate, restrict, logical_axes=_TASK.logical_axes())


def train(optimizer, params, all_gradients, state=None):
    state = optimizer.init(params) if state is None else state
    update = jax.jit(optimizer.update)
    for own in all_gradients:
        updates, state = update(own, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def state_of(kind, state):
    """The one state of this kind within an optimizer's."""

    def is_it(node):
        return isinstance(node, kind)

    (found,) = (node for node in jax.tree.leaves(state, is_leaf=is_it) if is_it(node))
    return found


def momenta(state):
    """The names of what Muon keeps a momentum of, and their shapes."""
    return {name: leaf.shape for name, leaf in flat(state_of(MuonState, state).mu).items()}


def newton_schulz(matrix):
    """Five iterations, as in the publication, in float64; of a matrix of inputs by outputs."""
    x = matrix / (np.linalg.norm(matrix) + 1e-8)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x


def per_layer(name, values):
    """The matrices of a stacked parameter, inputs by outputs, in float64."""
    values = np.asarray(values, np.float64)
    inputs = int(np.prod(values.shape[1 : 1 + _INPUT_AXES[name]]))
    return values.reshape(_LAYERS, inputs, -1)


@pytest.mark.parametrize(
    "task",
    [
        _TASK,
        PreTraining(BertConfig(**_SIZES, layer_norm_placement="pre")),
        TextObjective(BertConfig(**_SIZES, pooling="mean", encoder_output="mixture"), "classes", 2),
        SharedEncoder(
            {"a": TextObjective(BertConfig(**_SIZES), "classes", 2), "b": TokenObjective(BertConfig(**_SIZES), 3)}
        ),
    ],
    ids=["pretraining", "options", "texts", "tasks"],
)
def test_every_matrix_of_the_encoder_and_nothing_else_is_orthogonalised(task):
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    optimizer = build_optimizer(Optimizer(kind="muon"), lambda _: 0.01, logical_axes=task.logical_axes())
    state = jax.eval_shape(optimizer.init, shapes)
    kernels = {name for name in flat(shapes) if name.startswith(_STACK) and name.endswith("/kernel")}
    assert momenta(state).keys() == kernels == _INPUT_AXES.keys()
    assert flat(state_of(optax.ScaleByAdamState, state).nu).keys() == flat(shapes).keys() - kernels


def test_inputs_and_outputs_come_from_the_names_of_the_axes():
    named = flat(_TASK.logical_axes(), is_leaf=lambda node: isinstance(node, tuple))
    found = {name: matrix_axes(axes) for name, axes in named.items()}
    for name, number in _INPUT_AXES.items():
        axes = tuple(range(1, len(named[name])))
        assert found.pop(name) == MuonDimensionNumbers(axes[:number], axes[number:]), name
    assert set(found.values()) == {None}
    # The gate of a gated feed-forward network; a module of others that names no axes; a matrix of no layer.
    assert matrix_axes(("layers", "embed", "mlp")) == MuonDimensionNumbers((1,), (2,))
    assert matrix_axes(("layers", "layers")) is matrix_axes(("embed", "mlp")) is matrix_axes(()) is None


def test_each_layer_is_orthogonalised_alone_as_in_numpy(params):
    optimizer = build(weight_decay=0.0, muon_momentum=0.9, muon_learning_rate_factor=3.0)
    steps = [gradients(params, seed) for seed in range(1, 4)]
    after, _ = train(optimizer, params, steps)
    for name in _INPUT_AXES:
        weights = per_layer(name, flat(params)[name])
        momentum = np.zeros_like(weights)
        for number, tree in enumerate(steps, start=1):
            gradient = per_layer(name, flat(tree)[name])
            momentum = 0.9 * momentum + 0.1 * gradient
            # Nesterov's look ahead; each mean is corrected for having begun at zero.
            ahead = 0.9 * momentum / (1 - 0.9 ** (number + 1)) + 0.1 * gradient / (1 - 0.9**number)
            inputs, outputs = weights.shape[1:]
            update = np.stack([newton_schulz(matrix) for matrix in ahead]) * np.sqrt(max(1, outputs / inputs))
            weights = weights - 3.0 * 0.01 * update
        np.testing.assert_allclose(per_layer(name, flat(after)[name]), weights, atol=2e-5, err_msg=name)


def test_the_whole_is_optax_muon_of_the_layers_matrices_and_adamw_of_the_rest(params):
    rate = optax.linear_schedule(0.01, 0.001, 4)
    ours = build(rate, muon_learning_rate_factor=20.0, b2=0.98, weight_decay=0.0)
    muon = optax.contrib.muon(lambda step: 20 * rate(step))
    adamw = optax.adamw(rate, b2=0.98, eps=1e-6, weight_decay=0.0)

    def matrices(tree):
        stacks = {name: per_layer(name, leaf) for name, leaf in flat(tree).items() if name in _INPUT_AXES}
        return {name: [jnp.asarray(matrix, jnp.float32) for matrix in stack] for name, stack in stacks.items()}

    def others(tree):
        return {name: leaf for name, leaf in flat(tree).items() if name not in _INPUT_AXES}

    steps = [gradients(params, seed) for seed in range(1, 4)]
    found, _ = train(ours, params, steps)
    for part, reference in ((matrices, muon), (others, adamw)):
        expected, _ = train(reference, part(params), [part(tree) for tree in steps])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), part(found), expected)


def test_singular_values_are_about_one_times_the_scale_of_the_shape():
    draw = np.random.default_rng(0)
    for shape, scale in (((2, 32, 32), 1.0), ((2, 32, 128), 2.0), ((2, 128, 32), 1.0)):
        numbers = MuonDimensionNumbers((1,), (2,))
        transformation = scale_by_orthogonal_momentum(0.95, lambda tree, numbers=numbers: dict.fromkeys(tree, numbers))
        gradient = {"w": jnp.asarray(draw.standard_normal(shape), jnp.float32)}
        updates, _ = transformation.update(gradient, transformation.init(gradient))
        values = np.linalg.svd(updates["w"], compute_uv=False) / scale
        # The square one has singular values near zero, which five iterations bring to one half at least of the time.
        assert values.max() < 1.3 and np.median(values) > 0.7, shape


def test_a_layer_without_a_gradient_stays_and_a_longer_gradient_moves_it_no_further(params):
    optimizer = build(weight_decay=0.0)
    own = gradients(params, 1)
    zeros = jax.tree.map(jnp.zeros_like, own)
    update = jax.jit(lambda tree: optimizer.update(tree, optimizer.init(params), params)[0])
    still, once, longer = (flat(update(tree)) for tree in (zeros, own, jax.tree.map(lambda leaf: 1000 * leaf, own)))
    for name in _INPUT_AXES:
        np.testing.assert_array_equal(still[name], 0, err_msg=name)
        np.testing.assert_allclose(longer[name], once[name], atol=1e-6, err_msg=name)


def test_decay_is_of_both_at_the_rate_of_each(params):
    zeros = jax.tree.map(jnp.zeros_like, params)
    optimizer = build(weight_decay=0.1, muon_learning_rate_factor=5.0)
    updates, _ = jax.jit(optimizer.update)(zeros, optimizer.init(params), params)
    before = flat(params)
    for name, update in flat(updates).items():
        factor = 5.0 if name in _INPUT_AXES else 1.0
        decayed = not name.endswith("bias") and "layer_norm" not in name
        np.testing.assert_allclose(update, -0.01 * factor * 0.1 * decayed * before[name], rtol=1e-5, err_msg=name)


def test_clipping_is_by_the_norm_of_all_gradients(params):
    """Muon itself does not see how long a gradient is: a clipped one weighs less in the momentum of those after it."""
    steps = [gradients(params, seed) for seed in (1, 2)]
    limit = 0.5 * min(float(optax.tree.norm(tree)) for tree in steps)
    scaled = [jax.tree.map(lambda leaf, tree=tree: leaf * (limit / optax.tree.norm(tree)), tree) for tree in steps]
    clipped, _ = train(build(clip_global_norm=limit), params, steps)
    expected, _ = train(build(), params, scaled)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), clipped, expected)


@pytest.mark.parametrize("frozen_layers", [1, 3])
def test_frozen_matrices_have_no_momentum_and_rates_fall_from_layer_to_layer(params, frozen_layers):
    factors = update_factors(params, frozen_layers=frozen_layers, layer_decay=0.5)
    optimizer = optax.chain(build(restrict=moments_of_trained(factors), weight_decay=0.0), scale_updates(factors))
    state = optimizer.init(params)
    assert momenta(state) == {
        name: (_LAYERS - frozen_layers, *flat(params)[name].shape[1:]) for name in _INPUT_AXES if frozen_layers < 3
    }
    own = gradients(params, 1)
    updates, _ = jax.jit(optimizer.update)(own, state, params)
    whole = build(weight_decay=0.0)
    whole, _ = jax.jit(whole.update)(own, whole.init(params), params)
    for name in _INPUT_AXES:
        for layer in range(_LAYERS):
            factor = 0.5 ** (_LAYERS - layer) * (layer >= frozen_layers)
            np.testing.assert_allclose(flat(updates)[name][layer], factor * flat(whole)[name][layer], atol=1e-6)


def test_without_the_names_of_axes_there_is_no_muon():
    with pytest.raises(ValueError, match="logical_axes"):
        build_optimizer(Optimizer(kind="muon"), lambda _: 0.01)


@pytest.mark.slow
def test_steps_on_a_mesh_of_all_axes_are_those_of_one_device(repository_root):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(repository_root)}
    script = pathlib.Path(__file__).with_name("muon_on_devices.py")
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, cwd=repository_root
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["laid_out"]
    np.testing.assert_allclose(found["losses"], found["reference"], rtol=1e-5)
    # Key biases have no true gradient, and Adam makes steps of its rounding.
    differences = {name: value for name, value in found["differences"].items() if not name.endswith("key/bias")}
    assert max(differences.values()) < 1e-5, differences
