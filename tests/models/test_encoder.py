"""Attention against worked numbers and numpy; the scanned stack against a loop; recomputation changes no gradient."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bert_jax.models import execution
from bert_jax.models.attention import View, attention, attention_mask
from bert_jax.models.dropout import dropout, fold_in_each, row_keys
from bert_jax.models.encoder import REMAT_POLICIES, BertEncoder, EncoderLayer
from bert_jax.models.execution import Execution
from bert_jax.models.parameters import Functional

# Of two rows, the first of which packs two texts.
_POSITIONS = jnp.asarray([[0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 4, 5]])


def one_head(values):
    return jnp.asarray(values, jnp.float32)[None, :, None, :]


def test_the_worked_example(shared_data):
    example = json.loads((shared_data / "golden" / "attention.json").read_text())
    query, key, value = (one_head(example[name]) for name in ("query", "key", "value"))
    everyone = attention(query, key, value, jnp.ones((1, 1, 5, 5), bool), 0.0, None)
    np.testing.assert_allclose(everyone[0, :, 0], example["output"], atol=1e-6)
    mask = jnp.arange(5) < 4
    masked = attention(query, key, value, mask[None, None, None], 0.0, None)
    np.testing.assert_allclose(masked[0, 2, 0], example["token3_output_with_token5_masked"], atol=1e-6)


def random_heads(seed=0):
    random = np.random.default_rng(seed)
    return [random.normal(size=(2, 7, 3, 4)).astype(np.float32) for _ in range(3)]


def reference_weights(query, key, visible):
    scores = np.einsum("qd,kd->qk", query.astype(np.float64), key) / np.sqrt(query.shape[-1])
    exponentials = np.exp(scores - scores.max()) * visible
    return exponentials / exponentials.sum(-1, keepdims=True)


def test_attention_against_numpy():
    query, key, value = random_heads()
    visible = np.random.default_rng(1).random((2, 1, 7, 7)) < 0.6
    visible |= np.eye(7, dtype=bool)
    outputs = attention(query, key, value, visible, 0.0, None)
    for row in range(2):
        for head in range(3):
            weights = reference_weights(query[row, :, head], key[row, :, head], visible[row, 0])
            np.testing.assert_allclose(outputs[row, :, head], weights @ value[row, :, head], rtol=1e-5, atol=1e-6)


def test_dropout_drops_weights_not_outputs():
    query, key, value = random_heads()
    mask = jnp.ones((2, 1, 7, 7), bool)
    keys = row_keys(jax.random.key(0), jnp.arange(2))
    outputs = attention(query, key, value, mask, 0.5, keys)
    kept = np.asarray(dropout(jnp.ones((2, 3, 7, 7)), 0.5, keys))
    assert set(np.unique(kept)) == {0.0, 2.0}
    for row in range(2):
        for head in range(3):
            weights = reference_weights(query[row, :, head], key[row, :, head], True) * kept[row, head]
            np.testing.assert_allclose(outputs[row, :, head], weights @ value[row, :, head], rtol=1e-5, atol=1e-5)


def test_who_sees_whom():
    mask = attention_mask(jnp.asarray([[1, 1, 2, 0], [0, 0, 0, 0]]))
    expected = np.zeros((2, 1, 4, 4), bool)
    expected[0, 0, :2, :2] = True
    expected[0, 0, 2, 2] = True
    np.testing.assert_array_equal(mask, expected)


def test_a_row_of_padding_alone_has_finite_results_and_gradients():
    query, key, value = (jnp.asarray(values) for values in random_heads())
    mask = attention_mask(jnp.zeros((2, 7), jnp.int32))

    def total(*inputs):
        return jnp.sum(attention(*inputs, mask, 0.0, None) ** 2)

    value_and_gradients = jax.value_and_grad(total, argnums=(0, 1, 2))(query, key, value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(value_and_gradients))


def test_large_scores_do_not_overflow():
    query, key, value = (jnp.asarray(values) for values in random_heads())
    outputs = attention(100 * query, 100 * key, value, jnp.ones((1, 1, 1, 1), bool), 0.0, None)
    best = np.argmax(np.einsum("bqhd,bkhd->bhqk", query, key), -1)
    expected = np.take_along_axis(np.asarray(value).swapaxes(1, 2), best[..., None], axis=2).swapaxes(1, 2)
    np.testing.assert_allclose(outputs, expected, atol=1e-3)


@pytest.mark.parametrize("dropped", [False, True])
def test_the_scan_equals_a_loop_over_layers(config, dropped):
    config = dataclasses.replace(config, num_hidden_layers=3, initializer_range=0.2)
    stack = BertEncoder(config, execution=Execution(), rngs=nnx.Rngs(0))
    hidden = jax.random.normal(jax.random.key(1), (2, 6, 16))
    segments = jnp.asarray([[1, 1, 1, 2, 2, 0], [1, 1, 1, 1, 1, 1]])
    keys = row_keys(jax.random.key(2), jnp.arange(2)) if dropped else None
    outputs = nnx.jit(lambda stack: stack(hidden, segments, _POSITIONS, keys))(stack)

    graph, stacked = nnx.split(stack.layers)
    expected = hidden

    @jax.jit
    def apply_layer(parameters, hidden, number):
        layer: EncoderLayer = nnx.merge(graph, parameters)
        return layer(hidden, View(attention_mask(segments)), fold_in_each(keys, number))

    for number in range(3):
        parameters = jax.tree.map(lambda leaf, number=number: leaf[number], stacked)
        before = expected
        expected = apply_layer(parameters, expected, number)
        assert np.abs(expected - before).max() > 1e-2
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"layer_norm_placement": "pre"},
        {"position_embedding_type": "rotary", "layer_norm_placement": "pre_and_embeddings"},
        {"encoder_output": 2},
        {"remat": "full"},
        {"frozen_layers": 1, "unroll": 2},
        {"frozen_layers": 3},
    ],
    ids=lambda options: "-".join(map(str, options.items())) or "as published",
)
def test_the_outputs_at_a_few_positions_are_those_of_all(config, options):
    """Values and gradients, by the parameters and by what goes in; of packed pairs, and of padding."""
    execution = Execution(**{name: options[name] for name in ("remat", "frozen_layers", "unroll") if name in options})
    architecture = {name: value for name, value in options.items() if not hasattr(execution, name)}
    config = dataclasses.replace(config, num_hidden_layers=3, initializer_range=0.2, **architecture)
    encoder = Functional(lambda rngs: BertEncoder(config, execution=execution, rngs=rngs))
    parameters = encoder.init(jax.random.key(0))
    hidden = jax.random.normal(jax.random.key(1), (2, 6, 16))
    segments = jnp.asarray([[1, 1, 1, 2, 2, 0], [1, 1, 1, 1, 1, 1]])
    positions = jnp.asarray([[0, 3, 5], [4, 4, 1]])

    def at_positions(parameters, hidden):
        return encoder.apply(parameters, hidden, segments, _POSITIONS, None, positions)

    def everywhere(parameters, hidden):
        return jnp.take_along_axis(
            encoder.apply(parameters, hidden, segments, _POSITIONS), positions[..., None], axis=1
        )

    def outputs_and_gradients(function):
        outputs, pull_back = jax.vjp(function, parameters, hidden)
        return outputs, pull_back(jnp.sin(outputs))

    few, expected = (jax.jit(lambda f=f: outputs_and_gradients(f))() for f in (at_positions, everywhere))
    assert few[0].shape == (2, 3, 16)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5), few, expected)


def test_the_last_layer_computes_no_more_than_is_read(config):
    config = dataclasses.replace(config, num_hidden_layers=1)
    encoder = Functional(lambda rngs: BertEncoder(config, execution=Execution(), rngs=rngs))
    parameters = jax.eval_shape(encoder.init, jax.random.key(0))
    shapes = jax.ShapeDtypeStruct((4, 64, 16), jnp.float32), jax.ShapeDtypeStruct((4, 64), jnp.int32)
    shapes += shapes[-1:]

    def flops(*positions):
        lowered = jax.jit(lambda *arguments: encoder.apply(*arguments, None, *positions)).lower(parameters, *shapes)
        return lowered.compile().cost_analysis()["flops"]

    # Keys and values of all are a sixth of the layer's products, and of its attention hardly anything is left.
    assert flops(jnp.zeros((4, 1), jnp.int32)) < 0.25 * flops()


@pytest.fixture(scope="module")
def encoder_gradient(config):
    """Compiles the gradients, by parameters and input, of a number that depends on every output, with dropout."""
    config = dataclasses.replace(config, initializer_range=0.3)
    hidden = jax.random.normal(jax.random.key(1), (2, 6, 16))
    segments = jnp.asarray([[1, 1, 1, 2, 2, 0], [1, 1, 1, 1, 1, 1]])
    keys = row_keys(jax.random.key(5), jnp.arange(2))

    def compute(**choices):
        def build(rngs):
            return BertEncoder(config, execution=Execution(**choices), rngs=rngs)

        encoder = Functional(build)

        def total(parameters, hidden):
            return jnp.sum(jnp.sin(encoder.apply(parameters, hidden, segments, _POSITIONS, keys)) * hidden)

        parameters = encoder.init(jax.random.key(0))
        compiled = jax.jit(jax.grad(total, argnums=(0, 1))).lower(parameters, hidden).compile()
        return compiled(parameters, hidden), compiled.as_text()

    return compute


@pytest.fixture(scope="module")
def plain(encoder_gradient):
    return encoder_gradient()


def assert_same_gradients(gradients, expected):
    def compare(path, other, plain):
        # The gradient of the keys' bias is zero but for rounding: softmax does not see what all scores have in common.
        tolerance = max(2e-5 * float(np.abs(plain).max()), 5e-6)
        np.testing.assert_allclose(other, plain, rtol=1e-4, atol=tolerance, err_msg=jax.tree_util.keystr(path))

    jax.tree_util.tree_map_with_path(compare, gradients, expected)


@pytest.mark.parametrize("remat", ["dots", "dots_no_batch"])
def test_recomputing_changes_no_gradient(encoder_gradient, plain, remat):
    assert_same_gradients(encoder_gradient(remat=remat)[0], plain[0])


def test_full_rematerialisation_recomputes_every_layer_unrolled_or_not(encoder_gradient, plain):
    """The compiler does not merge what is computed again with what it repeats: that would keep it in memory."""

    def products(result):
        return result[1].count(" dot(")

    full, unrolled, unrolled_full = (
        encoder_gradient(**choices) for choices in ({"remat": "full"}, {"unroll": 2}, {"remat": "full", "unroll": 5})
    )
    for result in (full, unrolled, unrolled_full):
        assert_same_gradients(result[0], plain[0])
    recomputed = products(full) - products(plain)
    assert recomputed > 0
    assert products(unrolled_full) - products(unrolled) == 2 * recomputed


def test_every_policy_has_a_name():
    assert tuple(REMAT_POLICIES) == execution.REMAT
