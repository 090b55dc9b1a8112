"""LayerNorm keeps its precision where BERT's epsilon leaves no room, and the two forms of GELU are what they say."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bert_jax.models.layers import activation, layer_norm


@pytest.mark.parametrize("mean", [0.0, 1e3, 1e5])
def test_layer_norm_is_stable_on_large_means(config, mean):
    values = (np.random.default_rng(0).normal(size=(5, 16)) + mean).astype(np.float32)
    exact = values.astype(np.float64)
    centred = exact - exact.mean(-1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
    outputs = layer_norm(config, dtype=jnp.float32, rngs=nnx.Rngs(0))(values)
    # The mean itself is rounded to float32: an error of half a unit in its last place, over a deviation of about 1.
    tolerance = 1e-5 + 2 * float(np.spacing(np.float32(mean)))
    np.testing.assert_allclose(outputs, expected, atol=tolerance)


def test_layer_norm_of_small_values_sees_the_epsilon_of_the_original(config):
    values = np.float32(1e-4) * np.random.default_rng(0).normal(size=(5, 16)).astype(np.float32)
    outputs = np.asarray(layer_norm(config, dtype=jnp.float32, rngs=nnx.Rngs(0))(values))
    # An epsilon of 1e-6 or more would shrink these far below a deviation of 1.
    np.testing.assert_allclose(outputs.std(-1), 1.0, atol=1e-3)


def test_layer_norm_takes_its_statistics_in_float32(config):
    values = jnp.asarray(100 + np.random.default_rng(0).normal(size=(5, 16)), jnp.bfloat16)
    outputs = layer_norm(config, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))(values)
    assert outputs.dtype == jnp.bfloat16
    exact = np.asarray(values, np.float64)
    expected = (exact - exact.mean(-1, keepdims=True)) / exact.std(-1, keepdims=True)
    # One rounding to bfloat16's eight bits, at the end.
    np.testing.assert_allclose(np.asarray(outputs, np.float64), expected, rtol=2**-8, atol=2**-8)


def test_gelu(config):
    x = np.linspace(-6, 6, 101).astype(np.float32)
    exact = [value * 0.5 * (1 + math.erf(value / math.sqrt(2))) for value in x.tolist()]
    np.testing.assert_allclose(activation(config, x), exact, rtol=1e-5, atol=1e-6)
    tanh = dataclasses.replace(config, hidden_act="gelu_tanh")
    approximate = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    np.testing.assert_allclose(activation(tanh, x), approximate, rtol=1e-5, atol=1e-6)
    assert 1e-4 < np.abs(approximate - exact).max() < 1e-3
