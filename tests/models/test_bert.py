"""The whole model against one in numpy (float64), written from the paper, and what must not change its results."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.models.bert import token_arrays
from bert_jax.models.dropout import row_keys


@pytest.mark.parametrize("hidden_act", ["gelu", "gelu_tanh"])
def test_forward_against_numpy(apply, config, parameters, batch, reference, hidden_act):
    config = dataclasses.replace(config, hidden_act=hidden_act)
    masked_lm, next_sentence = apply(config, parameters, batch)
    expected = reference(parameters, batch, config)
    assert masked_lm.dtype == next_sentence.dtype == jnp.float32
    np.testing.assert_allclose(masked_lm[..., : config.vocab_size], expected.masked_lm, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(next_sentence, expected.next_sentence, rtol=1e-5, atol=1e-5)


def test_the_two_gelus_differ(config, parameters, batch, reference):
    """Otherwise the test above could not tell them apart."""
    exact, approximate = (
        reference(parameters, batch, dataclasses.replace(config, hidden_act=act)).masked_lm
        for act in ("gelu", "gelu_tanh")
    )
    assert np.abs(exact - approximate).max() > 1e-4


def test_padded_words_are_never_predicted(apply, config, parameters, batch):
    masked_lm, _ = apply(config, parameters, batch)
    assert masked_lm.shape[-1] == 128
    assert np.isneginf(masked_lm[..., config.vocab_size :]).all()
    assert np.isfinite(masked_lm[..., : config.vocab_size]).all()


def test_a_vocabulary_that_needs_no_padding(build, config):
    model = build(dataclasses.replace(config, vocab_size=128))
    assert model.abstract()["masked_lm"]["bias"].shape == (128,)
    assert build(dataclasses.replace(config, vocab_size=129)).abstract()["masked_lm"]["bias"].shape == (256,)


def test_padding_changes_nothing(apply, config, parameters, random_pairs, lay_out):
    pairs = random_pairs(4, config.vocab_size)
    rows = [pairs[:2], pairs[2:3], pairs[3:]]
    short = apply(config, parameters, lay_out(rows, length=24, predictions=6, max_pairs=2))
    padded = lay_out([*rows, []], length=32, predictions=9, max_pairs=3)
    # Whatever stands in the padding is not seen.
    padded["input_ids"][padded["segment_ids"] == 0] = 7
    long = apply(config, parameters, padded)
    np.testing.assert_allclose(long[0][:3, :6], short[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(long[1][:3, :2], short[1], rtol=1e-5, atol=1e-5)
    assert np.isfinite(long[0][..., : config.vocab_size]).all() and np.isfinite(long[1]).all()


def test_packed_pairs_do_not_see_each_other(apply, config, parameters, random_pairs, lay_out):
    first, second, other = random_pairs(3, config.vocab_size, lengths=(8, 8))

    def scores(*pairs):
        return apply(config, parameters, lay_out([pairs], length=24, predictions=9, max_pairs=3))

    both, alone, beside_other = scores(first, second), scores(second), scores(other, second)
    begin, number = len(first.masked), len(second.masked)
    np.testing.assert_allclose(both[0][0, begin : begin + number], alone[0][0, :number], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(both[1][0, 1], alone[1][0, 0], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(both[1][0, 1], beside_other[1][0, 1])


def test_initial_values(build, config):
    config = dataclasses.replace(config, hidden_size=64, vocab_size=300, intermediate_size=96)
    model = build(config)
    init = jax.jit(model.init)
    values = init(jax.random.key(0))
    kernels = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(values):
        name, leaf = jax.tree_util.keystr(path), np.asarray(leaf)
        assert leaf.dtype == np.float32
        if name.endswith("['bias']"):
            assert (leaf == 0).all(), name
        elif name.endswith("['scale']"):
            assert (leaf == 1).all(), name
        else:
            kernels.append(leaf[: config.vocab_size].ravel() if "word_embeddings" in name else leaf.ravel())
            assert 0.01 < kernels[-1].std() < 0.025, name
    kernels = np.concatenate(kernels)
    # A normal distribution of deviation 0.02 that is cut at two deviations has 0.8796 of its deviation.
    assert abs(kernels.std() / (0.02 * 0.87963) - 1) < 0.01
    assert 0.0399 < np.abs(kernels).max() <= 0.04
    assert abs(kernels.mean()) < 2e-4
    words = np.asarray(values["bert"]["embeddings"]["word_embeddings"]["embedding"])
    assert words.shape == (384, 64) and (words[300:] == 0).all() and (words[:300] != 0).any(axis=1).all()
    query = np.asarray(values["bert"]["encoder"]["layers"]["attention"]["query"]["kernel"])
    assert query.shape == (2, 64, 2, 32) and not np.allclose(query[0], query[1])
    again, other = init(jax.random.key(0)), init(jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, values, again)
    assert not np.allclose(words, other["bert"]["embeddings"]["word_embeddings"]["embedding"])


def test_bfloat16_is_close_and_keeps_float32_parameters_and_logits(build, apply, config, parameters, batch, reference):
    assert {leaf.dtype for leaf in jax.tree.leaves(build(config, dtype="bfloat16").abstract())} == {
        jnp.dtype("float32")
    }
    masked_lm, next_sentence = apply(config, parameters, batch, dtype="bfloat16")
    assert masked_lm.dtype == next_sentence.dtype == jnp.float32
    expected = reference(parameters, batch, config)
    masked_lm = np.asarray(masked_lm[..., : config.vocab_size])
    assert 1e-6 < np.abs(masked_lm - expected.masked_lm).mean() < 0.02 * np.abs(expected.masked_lm).mean()
    assert np.abs(next_sentence - expected.next_sentence).max() < 0.1


def equations(jaxpr):
    """All equations of a program, those inside scans and calls too."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda value: hasattr(value, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def test_hidden_states_and_attention_weights_against_numpy(build, config, parameters, batch, reference):
    model, tokens = build(config), token_arrays(batch)

    @jax.jit
    def observe(parameters):
        return tuple(
            model.apply(parameters, *tokens, method=method)
            for method in ("bert", "bert.hidden_states", "bert.attention_weights")
        )

    output, states, weights = observe(parameters)
    expected = reference(parameters, batch, config)
    assert states.shape == (3, 4, 24, 16) and weights.shape == (2, 4, 2, 24, 24) and weights.dtype == jnp.float32
    np.testing.assert_allclose(states, expected.states, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(states[-1], output, rtol=1e-6, atol=1e-6)
    real = batch["segment_ids"] > 0
    weights, expected_weights = (np.moveaxis(array, 3, 2) for array in (weights, expected.attention))
    np.testing.assert_allclose(weights[:, real], expected_weights[:, real], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    unseen = np.broadcast_to(~real[:, None, None], (4, 24, 2, 24)) & real[:, :, None, None]
    assert (weights[:, unseen] == 0).all()


def test_only_who_asks_for_the_layers_keeps_them(build, config, batch):
    model = build(config)

    def kept(*arguments, **method):
        program = equations(jax.make_jaxpr(lambda p: model.apply(p, *arguments, **method))(model.abstract()).jaxpr)
        (scan,) = (e for e in program if e.primitive.name == "scan")
        return len(scan.outvars) - scan.params["num_carry"]

    assert kept(batch) == 0
    assert kept(*token_arrays(batch), method="bert.hidden_states") == 1
    assert kept(*token_arrays(batch), method="bert.attention_weights") == 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_products_compute_in_the_chosen_type_and_softmax_in_float32(build, config, batch, dtype):
    model = build(config, dtype=dtype)
    program = list(equations(jax.make_jaxpr(model.apply)(model.abstract(), batch).jaxpr))
    factors = {str(factor.aval.dtype) for e in program if e.primitive.name == "dot_general" for factor in e.invars}
    assert factors == {dtype}
    softmax = [e for e in program if e.primitive.name == "exp"]
    assert softmax and {str(e.invars[0].aval.dtype) for e in softmax} == {"float32"}
    deviations = [e for e in program if e.primitive.name in ("rsqrt", "sqrt")]
    assert deviations and {str(e.invars[0].aval.dtype) for e in deviations} == {"float32"}


def test_dropout_changes_results_only_with_keys(apply, config, parameters, batch):
    keys = row_keys(jax.random.key(3), jnp.arange(4))
    without, with_keys = (apply(config, parameters, batch, k)[1] for k in (None, keys))
    assert np.abs(without - with_keys).max() > 1e-3
    other = apply(config, parameters, batch, row_keys(jax.random.key(4), jnp.arange(4)))[1]
    assert np.abs(other - with_keys).max() > 1e-3
    no_rates = dataclasses.replace(config, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    np.testing.assert_allclose(apply(no_rates, parameters, batch, keys)[1], without, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("place", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_each_rate_does_something(apply, config, parameters, batch, place):
    keys = row_keys(jax.random.key(3), jnp.arange(4))
    both = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    none = apply(dataclasses.replace(config, **both), parameters, batch, keys)[1]
    one = apply(dataclasses.replace(config, **{**both, place: 0.5}), parameters, batch, keys)[1]
    assert np.abs(one - none).max() > 1e-3


def test_dropout_of_a_row_is_the_same_in_any_batch(apply, config, parameters, batch):
    keys = row_keys(jax.random.key(3), jnp.arange(4))
    whole = apply(config, parameters, batch, keys)
    part = apply(config, parameters, {name: array[2:] for name, array in batch.items()}, keys[2:])
    np.testing.assert_allclose(part[0], whole[0][2:], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(part[1], whole[1][2:], rtol=1e-5, atol=1e-5)
