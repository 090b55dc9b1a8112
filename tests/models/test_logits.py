"""Logits are float32 whatever the dtype of the computation, in every head; in float32 nothing changed thereby."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.models.execution import Execution
from bert_jax.models.layers import LogitsMap
from bert_jax.models.parameters import Functional
from bert_jax.models.registry import build_layer_head, build_model
from bert_jax.numerics import Numerics

_FIRST = Numerics(0)
# Those with a head other than that for masked words.
_CLASSES = {
    "BertForPreTraining": None,
    "BertForSequenceClassification": 5,
    "BertForTokenClassification": 5,
    "BertForQuestionAnswering": None,
}


@pytest.fixture(scope="module")
def texts():
    random = np.random.default_rng(0)
    return {
        "input_ids": random.integers(5, 50, (8, 20)).astype(np.int32),
        "token_type_ids": np.zeros((8, 20), np.int32),
        "position_ids": np.tile(np.arange(20, dtype=np.int32), (8, 1)),
        "segment_ids": np.ones((8, 20), np.int32),
        "masked_positions": np.tile(np.arange(1, 4, dtype=np.int32), (8, 1)),
        "cls_positions": np.zeros((8, 1), np.int32),
    }


def logits_of(outputs):
    return outputs[1] if isinstance(outputs, tuple) else outputs


@pytest.mark.parametrize("model_class", _CLASSES)
def test_float32_logits_and_gradients_are_bit_for_bit_as_they_were_first(config, fill, texts, model_class):
    def outcome(execution):
        model = build_model(model_class, config, num_labels=_CLASSES[model_class], execution=execution)

        def loss(parameters):
            logits = logits_of(model.apply(parameters, texts))
            return jnp.sum(jnp.sin(logits)), logits

        (_, logits), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(fill(model, config))
        return logits, gradients

    jax.tree.map(np.testing.assert_array_equal, outcome(Execution()), outcome(Execution(numerics=_FIRST)))


@pytest.mark.parametrize("model_class", _CLASSES)
def test_bfloat16_logits_have_the_digits_of_float32(config, fill, texts, model_class):
    def rounded_share(numerics):
        execution = Execution(dtype="bfloat16", numerics=numerics)
        model = build_model(model_class, config, num_labels=_CLASSES[model_class], execution=execution)
        # Not compiled as one: the compiler may leave roundings out, and so hide what this is about.
        logits = np.asarray(logits_of(model.apply(fill(model, config), texts)))
        return np.mean(logits == logits.astype(jnp.bfloat16).astype(np.float32))

    # By chance, one float32 number in 65,536 has only the digits of bfloat16.
    assert rounded_share(Numerics()) < 0.01
    # As a run that was begun before goes on.
    assert rounded_share(_FIRST) == 1


def test_logits_are_the_product_of_what_goes_in_and_the_bias_is_not_rounded(config):
    head = Functional(lambda rngs: LogitsMap(config, 3, execution=Execution(dtype="bfloat16"), rngs=rngs))
    draw = np.random.default_rng(0)
    inputs = jnp.asarray(draw.normal(size=(50, 16)), jnp.bfloat16)
    kernel = draw.normal(size=(16, 3)).astype(jnp.bfloat16).astype(np.float32)
    bias = draw.normal(size=3).astype(np.float32)
    expected = np.asarray(inputs, np.float64) @ kernel + bias
    logits = head.apply({"kernel": kernel, "bias": bias}, inputs)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, expected, rtol=1e-6, atol=1e-5)


def test_heads_on_layers_have_float32_logits(config, fill):
    execution = Execution(dtype="bfloat16")
    head = build_layer_head("BertForTokenClassification", config, num_labels=4, execution=execution)
    states = jnp.asarray(np.random.default_rng(0).normal(size=(2, 7, 16)), jnp.bfloat16)
    logits = np.asarray(head.apply(fill(head, config), states, {}))
    assert np.mean(logits == logits.astype(jnp.bfloat16).astype(np.float32)) < 0.1


def test_the_map_to_logits_is_cut_along_what_goes_in(config):
    head = Functional(lambda rngs: LogitsMap(config, 3, execution=Execution(), rngs=rngs))
    assert head.logical_axes() == {"kernel": ("embed", None), "bias": (None,)}
