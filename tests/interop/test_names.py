"""The tables of names: complete, without doubles, and of the shapes that the models have."""

import math

import numpy as np
import pytest

from bert_jax.interop import names
from bert_jax.interop.bert import GOOGLE, HUGGINGFACE
from bert_jax.interop.modernbert import MODERNBERT
from bert_jax.interop.tensor_files import nest, take
from bert_jax.models.embeddings import padded_vocab_size
from bert_jax.models.registry import CLASSIFICATION_CLASSES, MODEL_CLASSES
from bert_jax.training.initialization import paths

TABLES = {"huggingface": HUGGINGFACE, "google": GOOGLE, "modernbert": MODERNBERT.table}


def test_the_classes_are_those_that_can_be_built():
    assert sorted(names.MODEL_PARTS) == sorted(MODEL_CLASSES)
    assert sorted(names.CLASSIFIERS) == sorted(CLASSIFICATION_CLASSES)


@pytest.mark.parametrize("table", [HUGGINGFACE, GOOGLE], ids=["huggingface", "google"])
def test_paths_and_shapes_are_the_models(each_example, table):
    config = each_example.config
    sizes = names.axis_sizes(config, 3)
    shapes = {}
    for stored in table.tensors_of(each_example.model_class):
        (tensor,) = stored.ours
        shape = tensor.shape(sizes)
        if tensor.axes[0] == "vocabulary":
            shape = (padded_vocab_size(shape[0]), *shape[1:])
        shapes[tensor.path] = (config.num_hidden_layers, *shape) if stored.is_stacked else shape
    assert shapes == {name: leaf.shape for name, leaf in paths(each_example.abstract()).items()}


@pytest.mark.parametrize(
    ("format", "number"),
    [
        ("huggingface", 5 + 3 * 16 + 2 + 5 + 2 + 2 + 2),
        ("google", 5 + 3 * 16 + 2 + 5 + 2 + 2 + 2),
        # The first layer has no norm before its attention.
        ("modernbert", 2 + (3 * 6 - 1) + 1 + 3),
    ],
)
def test_every_name_is_given_once_and_is_canonical(format, number):
    table = TABLES[format]
    listed = [name for part in table.parts.values() for tensor in part for name in tensor.names(3)]
    assert len(listed) == len(set(listed)) == number
    assert all(table.canonical_name(name) == name for name in listed)
    assert all(first in listed and second not in listed for second, first in table.tied.items())
    assert set(table.class_names) <= set(names.MODEL_PARTS)


# As the published files have them.
@pytest.mark.parametrize(
    ("path", "layer", "huggingface", "google"),
    [
        (
            "bert/embeddings/word_embeddings/embedding",
            0,
            "bert.embeddings.word_embeddings.weight",
            "bert/embeddings/word_embeddings",
        ),
        (
            "bert/embeddings/layer_norm/scale",
            0,
            "bert.embeddings.LayerNorm.weight",
            "bert/embeddings/LayerNorm/gamma",
        ),
        (
            "bert/encoder/layers/attention/query/kernel",
            2,
            "bert.encoder.layer.2.attention.self.query.weight",
            "bert/encoder/layer_2/attention/self/query/kernel",
        ),
        (
            "bert/encoder/layers/attention/output/bias",
            1,
            "bert.encoder.layer.1.attention.output.dense.bias",
            "bert/encoder/layer_1/attention/output/dense/bias",
        ),
        (
            "bert/encoder/layers/attention/layer_norm/bias",
            0,
            "bert.encoder.layer.0.attention.output.LayerNorm.bias",
            "bert/encoder/layer_0/attention/output/LayerNorm/beta",
        ),
        (
            "bert/encoder/layers/feed_forward/intermediate/kernel",
            0,
            "bert.encoder.layer.0.intermediate.dense.weight",
            "bert/encoder/layer_0/intermediate/dense/kernel",
        ),
        (
            "bert/encoder/layers/feed_forward/layer_norm/scale",
            0,
            "bert.encoder.layer.0.output.LayerNorm.weight",
            "bert/encoder/layer_0/output/LayerNorm/gamma",
        ),
        ("bert/pooler/dense/bias", 0, "bert.pooler.dense.bias", "bert/pooler/dense/bias"),
        ("masked_lm/bias", 0, "cls.predictions.bias", "cls/predictions/output_bias"),
        (
            "masked_lm/transform/kernel",
            0,
            "cls.predictions.transform.dense.weight",
            "cls/predictions/transform/dense/kernel",
        ),
        ("next_sentence/dense/kernel", 0, "cls.seq_relationship.weight", "cls/seq_relationship/output_weights"),
        ("classifier/kernel", 0, "classifier.weight", "output_weights"),
        ("span/bias", 0, "qa_outputs.bias", "cls/squad/output_bias"),
    ],
)
def test_names_of_published_files(path, layer, huggingface, google):
    for table, name in ((HUGGINGFACE, huggingface), (GOOGLE, google)):
        (stored,) = [stored for part in table.parts.values() for stored in part if stored.ours[0].path == path]
        assert stored.names(3)[layer if stored.is_stacked else 0] == name


def test_a_pytorch_weight_maps_vectors_as_our_kernel_does(config):
    random, sizes = np.random.default_rng(0), names.axis_sizes(config)
    by_path = {stored.ours[0].path: stored for stored in HUGGINGFACE.parts["encoder"]}
    hidden = random.normal(size=(4, config.hidden_size))
    query = by_path["bert/encoder/layers/attention/query/kernel"]
    weight = random.normal(size=query.shape(sizes))
    (kernel,) = query.split(weight, sizes)
    # PyTorch's Linear is x W^T; transformers then cuts the result into heads.
    expected = (hidden @ weight.T).reshape(4, config.num_attention_heads, -1)
    np.testing.assert_allclose(np.einsum("th,hnd->tnd", hidden, kernel), expected)
    output = by_path["bert/encoder/layers/attention/output/kernel"]
    weight = random.normal(size=output.shape(sizes))
    (kernel,) = output.split(weight, sizes)
    np.testing.assert_allclose(np.einsum("tnd,ndh->th", expected, kernel), expected.reshape(4, -1) @ weight.T)


@pytest.mark.parametrize("format", TABLES)
def test_layouts_are_one_to_one(format, config):
    sizes, number = names.axis_sizes(config, 3), 0
    for stored in (stored for part in TABLES[format].parts.values() for stored in part):
        ours = []
        for tensor in stored.ours:
            shape = tensor.shape(sizes)
            ours.append(np.arange(number, number + math.prod(shape), dtype=np.float32).reshape(shape))
            number += ours[-1].size
        theirs = stored.join(ours)
        assert theirs.shape == stored.shape(sizes) and theirs.flags.c_contiguous
        for array, again in zip(ours, stored.split(theirs, sizes), strict=True):
            assert array.shape == again.shape and np.array_equal(array, again)


def test_what_modernbert_joins_maps_vectors_as_our_kernels_do(config):
    """As transformers cuts it: Wqkv's result into three and then into heads, Wi's into what is activated and gates."""
    random, sizes = np.random.default_rng(0), names.axis_sizes(config)
    by_name = {stored.name: stored for stored in MODERNBERT.table.parts["encoder"]}
    hidden = random.normal(size=(4, config.hidden_size))
    joined = by_name["model.layers.{layer}.attn.Wqkv.weight"]
    weight = random.normal(size=joined.shape(sizes))
    expected = (hidden @ weight.T).reshape(4, 3, config.num_attention_heads, -1)
    for place, (tensor, kernel) in enumerate(zip(joined.ours, joined.split(weight, sizes), strict=True)):
        assert tensor.path == f"bert/encoder/layers/attention/{('query', 'key', 'value')[place]}/kernel"
        np.testing.assert_allclose(np.einsum("th,hnd->tnd", hidden, kernel), expected[:, place])
    joined = by_name["model.layers.{layer}.mlp.Wi.weight"]
    weight = random.normal(size=joined.shape(sizes))
    activated, gate = np.split(hidden @ weight.T, 2, axis=-1)
    kernels = dict(zip((tensor.path for tensor in joined.ours), joined.split(weight, sizes), strict=True))
    np.testing.assert_allclose(hidden @ kernels["bert/encoder/layers/feed_forward/intermediate/kernel"], activated)
    np.testing.assert_allclose(hidden @ kernels["bert/encoder/layers/feed_forward/gate/kernel"], gate)


@pytest.mark.parametrize(
    ("format", "name", "canonical"),
    [
        ("huggingface", "embeddings.LayerNorm.gamma", "bert.embeddings.LayerNorm.weight"),
        ("huggingface", "pooler.dense.bias", "bert.pooler.dense.bias"),
        ("huggingface", "bert.encoder.layer.0.output.LayerNorm.beta", "bert.encoder.layer.0.output.LayerNorm.bias"),
        ("huggingface", "cls.predictions.transform.LayerNorm.gamma", "cls.predictions.transform.LayerNorm.weight"),
        ("huggingface", "bert.embeddings.position_ids", None),
        ("huggingface", "embeddings.position_ids", None),
        ("google", "bert/pooler/dense/kernel/adam_m", None),
        ("google", "bert/pooler/dense/kernel/adam_v", None),
        ("google", "global_step", None),
        ("google", "bert/pooler/dense/kernel", "bert/pooler/dense/kernel"),
        ("modernbert", "layers.0.mlp.Wi.weight", "model.layers.0.mlp.Wi.weight"),
        ("modernbert", "embeddings.tok_embeddings.weight", "model.embeddings.tok_embeddings.weight"),
        ("modernbert", "final_norm.weight", "model.final_norm.weight"),
        ("modernbert", "head.norm.weight", "head.norm.weight"),
    ],
)
def test_canonical_names(format, name, canonical):
    assert TABLES[format].canonical_name(name) == canonical


def test_nested_dicts():
    nested = nest({"a/b/c": 1, "a/d": 2})
    assert nested == {"a": {"b": {"c": 1}, "d": 2}}
    assert take(nested, "a/b/c") == 1 and take(nested, "a/b/c") is None and take(nested, "x/y") is None
