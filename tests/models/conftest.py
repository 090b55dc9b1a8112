"""A tiny architecture, and parameters none of which is zero, so that no term of the model can go missing unnoticed."""

import functools

import jax
import numpy as np
import pytest

from bert_jax.config import BertConfig
from bert_jax.models.bert import BertForPreTraining
from bert_jax.models.execution import Execution
from bert_jax.models.parameters import Functional


@pytest.fixture(scope="session")
def config():
    """Two layers of width 16; 50 words, padded to 128."""
    return BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
    )


@pytest.fixture(scope="session")
def build():
    """Makes a pre-training model as functions; keywords are those of `Execution`."""
    return lambda config, **execution: Functional(
        lambda rngs: BertForPreTraining(config, execution=Execution(**execution), rngs=rngs)
    )


@pytest.fixture(scope="session")
def apply(build):
    """Calls a pre-training model, compiled; arguments are config, parameters, batch, keys, and those of `Execution`."""

    @functools.cache
    def compiled(config, execution):
        return jax.jit(build(config, **dict(execution)).apply)

    return lambda config, parameters, batch, keys=None, **execution: compiled(config, tuple(execution.items()))(
        parameters, batch, keys
    )


@pytest.fixture(scope="session")
def parameters(build, config):
    """Random parameters, zero only where the vocabulary is padded."""
    random = np.random.default_rng(1)

    def fill(path, leaf):
        name = jax.tree_util.keystr(path)
        values = random.normal(0.0, 0.3, leaf.shape)
        if "scale" in name:
            values += 1
        if "word_embeddings" in name or name == "['masked_lm']['bias']":
            values[config.vocab_size :] = 0
        return jax.numpy.asarray(values, leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, build(config).abstract())


@pytest.fixture(scope="session")
def batch(random_pairs, lay_out, config):
    """Four rows of 24 tokens, of one or two pairs."""
    pairs = random_pairs(6, config.vocab_size)
    return lay_out([pairs[:2], pairs[2:3], pairs[3:5], pairs[5:]], length=24, predictions=6, max_pairs=2)
