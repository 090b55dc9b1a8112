"""The table of names: complete, without doubles, and of the shapes that the models have."""

import math

import numpy as np
import pytest

from bert_jax.interop import names
from bert_jax.interop.tensor_files import nest, take
from bert_jax.models.embeddings import padded_vocab_size
from bert_jax.models.registry import CLASSIFICATION_CLASSES, MODEL_CLASSES
from bert_jax.training.initialization import paths


def test_the_classes_are_those_that_can_be_built():
    assert sorted(names.MODEL_PARTS) == sorted(MODEL_CLASSES)
    assert sorted(names.CLASSIFIERS) == sorted(CLASSIFICATION_CLASSES)


def test_paths_and_shapes_are_the_models(each_example):
    config = each_example.config
    sizes = names.axis_sizes(config, 3)
    shapes = {}
    for tensor in names.tensors_of(each_example.model_class):
        shape = tensor.shape(sizes)
        if tensor.axes[0] == "vocabulary":
            shape = (padded_vocab_size(shape[0]), *shape[1:])
        shapes[tensor.path] = (config.num_hidden_layers, *shape) if tensor.is_stacked else shape
    assert shapes == {name: leaf.shape for name, leaf in paths(each_example.abstract()).items()}


@pytest.mark.parametrize("format", names.FORMATS)
def test_every_name_is_given_once_and_is_canonical(format):
    listed = [name for part in names.PARTS.values() for tensor in part for name in tensor.names_in(format, 3)]
    assert len(listed) == len(set(listed)) == 5 + 3 * 16 + 2 + 5 + 2 + 2 + 2
    assert all(names.canonical_name(format, name) == name for name in listed)


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
    (tensor,) = [tensor for part in names.PARTS.values() for tensor in part if tensor.path == path]
    for format, name in ((names.HUGGINGFACE, huggingface), (names.GOOGLE, google)):
        assert tensor.names_in(format, 3)[layer if tensor.is_stacked else 0] == name


def test_a_pytorch_weight_maps_vectors_as_our_kernel_does(config):
    random, sizes = np.random.default_rng(0), names.axis_sizes(config)
    by_path = {tensor.path: tensor for tensor in names.PARTS["encoder"]}
    hidden = random.normal(size=(4, config.hidden_size))
    query = by_path["bert/encoder/layers/attention/query/kernel"]
    weight = random.normal(size=query.shape_in("huggingface", sizes))
    kernel = query.from_format("huggingface", weight, query.shape(sizes))
    # PyTorch's Linear is x W^T; transformers then cuts the result into heads.
    expected = (hidden @ weight.T).reshape(4, config.num_attention_heads, -1)
    np.testing.assert_allclose(np.einsum("th,hnd->tnd", hidden, kernel), expected)
    output = by_path["bert/encoder/layers/attention/output/kernel"]
    weight = random.normal(size=output.shape_in("huggingface", sizes))
    kernel = output.from_format("huggingface", weight, output.shape(sizes))
    np.testing.assert_allclose(np.einsum("tnd,ndh->th", expected, kernel), expected.reshape(4, -1) @ weight.T)


@pytest.mark.parametrize("format", names.FORMATS)
def test_layouts_are_one_to_one(format, config):
    sizes = names.axis_sizes(config, 3)
    for part in names.PARTS.values():
        for tensor in part:
            shape = tensor.shape(sizes)
            ours = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
            theirs = tensor.to_format(format, ours)
            assert theirs.shape == tensor.shape_in(format, sizes) and theirs.flags.c_contiguous
            assert np.array_equal(tensor.from_format(format, theirs, shape), ours)


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
    ],
)
def test_canonical_names(format, name, canonical):
    assert names.canonical_name(format, name) == canonical


def test_nested_dicts():
    nested = nest({"a/b/c": 1, "a/d": 2})
    assert nested == {"a": {"b": {"c": 1}, "d": 2}}
    assert take(nested, "a/b/c") == 1 and take(nested, "a/b/c") is None and take(nested, "x/y") is None
