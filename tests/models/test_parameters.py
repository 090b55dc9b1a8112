"""A model as functions over a plain nested dict."""

import dataclasses

import jax
import numpy as np
import pytest

from bert_jax.models.bert import BertModel
from bert_jax.models.parameters import Functional, count_parameters


def test_parameters_are_plain_dicts_of_the_announced_shapes(build, config):
    model = build(config)
    values = model.init(jax.random.key(0))

    def check(tree):
        assert type(tree) is dict or isinstance(tree, jax.Array)
        for child in tree.values() if type(tree) is dict else ():
            check(child)

    check(values)
    announced = model.abstract()
    assert jax.tree.structure(values) == jax.tree.structure(announced)
    for value, expected in zip(jax.tree.leaves(values), jax.tree.leaves(announced), strict=True):
        assert (value.shape, value.dtype) == (expected.shape, expected.dtype)
    jax.tree.map(np.testing.assert_allclose, jax.jit(model.init)(jax.random.key(0)), values)


def test_calls_use_the_parameters_given_and_keep_nothing(build, config, parameters, batch, apply):
    model = build(config)
    before = jax.tree.map(np.array, parameters)
    with_own = apply(config, parameters, batch)[1]
    assert np.abs(with_own - apply(config, model.init(jax.random.key(0)), batch)[1]).max() > 1e-3
    np.testing.assert_array_equal(apply(config, parameters, batch)[1], with_own)
    jax.tree.map(np.testing.assert_array_equal, parameters, before)


def test_logical_axes_name_every_axis(build, config):
    model = build(config)
    axes = model.logical_axes()
    is_names = lambda leaf: isinstance(leaf, tuple)  # noqa: E731
    assert jax.tree.structure(axes, is_leaf=is_names) == jax.tree.structure(model.abstract())
    sizes = {"layers": 2, "vocab": 128, "embed": 16, "heads": 2, "kv": 8, "mlp": 24}
    for names, leaf in zip(jax.tree.leaves(axes, is_leaf=is_names), jax.tree.leaves(model.abstract()), strict=True):
        assert len(names) == len(leaf.shape)
        assert all(name is None or sizes[name] == size for name, size in zip(names, leaf.shape, strict=True))
    layers = axes["bert"]["encoder"]["layers"]
    assert layers["attention"]["query"] == {
        "kernel": ("layers", "embed", "heads", "kv"),
        "bias": ("layers", "heads", "kv"),
    }
    assert layers["attention"]["output"]["kernel"] == ("layers", "heads", "kv", "embed")
    assert layers["feed_forward"]["intermediate"]["kernel"] == ("layers", "embed", "mlp")
    assert layers["feed_forward"]["output"]["kernel"] == ("layers", "mlp", "embed")
    assert axes["bert"]["embeddings"]["word_embeddings"]["embedding"] == ("vocab", "embed")
    assert axes["masked_lm"]["bias"] == ("vocab",)
    outside = {key: tree for key, tree in axes.items() if key != "bert"} | {"pooler": axes["bert"]["pooler"]}
    assert "layers" not in {name for names in jax.tree.leaves(outside, is_leaf=is_names) for name in names}


@pytest.mark.parametrize("vocab_size", [50, 128])
def test_counts_leave_the_padding_out(build, config, vocab_size):
    config = dataclasses.replace(config, vocab_size=vocab_size)
    everything = sum(leaf.size for leaf in jax.tree.leaves(build(config).abstract()))
    padding = (128 - vocab_size) * (config.hidden_size + 1)
    assert count_parameters(build(config).abstract(), vocab_size) == everything - padding


def test_methods_can_be_called_by_name(config, batch):
    model = Functional(lambda rngs: BertModel(config, rngs=rngs))
    values = model.init(jax.random.key(0))
    hidden = jax.random.normal(jax.random.key(1), (4, 24, 16))
    places = batch["segment_ids"], batch["cls_positions"]
    pooled = jax.jit(lambda values: model.apply(values, hidden, *places, method="pooler"))(values)
    kernel = values["pooler"]["dense"]["kernel"]
    expected = np.tanh(np.asarray(hidden)[np.arange(4)[:, None], batch["cls_positions"]] @ np.asarray(kernel))
    np.testing.assert_allclose(pooled, expected, rtol=1e-5, atol=1e-5)
