"""The heads of fine-tuning against numpy, and the models by the names of the field."""

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.errors import UserError
from bert_jax.models.bert import token_arrays
from bert_jax.models.dropout import dropout, fold_in_each, row_keys
from bert_jax.models.registry import CLASSIFICATION_CLASSES, MODEL_CLASSES, build_model
from bert_jax.training.initialization import paths

HEADS = {
    "BertModel": {},
    "BertForPreTraining": {"masked_lm", "next_sentence"},
    "BertForMaskedLM": {"masked_lm"},
    "BertForSequenceClassification": {"classifier"},
    "BertForTokenClassification": {"classifier"},
    "BertForQuestionAnswering": {"span"},
}
POOLED = {"BertModel", "BertForPreTraining", "BertForSequenceClassification"}


def build(model_class, config, **execution):
    return build_model(
        model_class, config, num_labels=3 if model_class in CLASSIFICATION_CLASSES else None, **execution
    )


@pytest.fixture(scope="module")
def texts(random_pairs, lay_out, config):
    """Four rows of one pair each, with padding."""
    rows = lay_out([[pair] for pair in random_pairs(4, config.vocab_size)], length=14, predictions=3, max_pairs=1)
    names = ("input_ids", "token_type_ids", "position_ids", "segment_ids", "masked_positions", "cls_positions")
    return {name: rows[name] for name in names}


def expected_outputs(model_class, parameters, result):
    """What numpy makes of its own hidden states and pooled vectors."""
    if model_class == "BertModel":
        return result.output, result.pooled[:, 0]
    if model_class == "BertForPreTraining":
        return result.masked_lm, result.next_sentence
    if model_class == "BertForMaskedLM":
        return (result.masked_lm,)
    head = parameters["span" if model_class == "BertForQuestionAnswering" else "classifier"]
    vectors = result.pooled[:, 0] if model_class == "BertForSequenceClassification" else result.output
    return (vectors @ np.asarray(head["kernel"], np.float64) + np.asarray(head["bias"]),)


SHAPES = {
    "BertModel": [(4, 14, 16), (4, 16)],
    "BertForPreTraining": [(4, 3, 128), (4, 1, 2)],
    "BertForMaskedLM": [(4, 3, 128)],
    "BertForSequenceClassification": [(4, 3)],
    "BertForTokenClassification": [(4, 14, 3)],
    "BertForQuestionAnswering": [(4, 14, 2)],
}


@pytest.mark.parametrize("model_class", MODEL_CLASSES)
def test_outputs_against_numpy(model_class, config, fill, texts, reference):
    model = build(model_class, config)
    parameters = fill(model, config)
    outputs = jax.tree.leaves(jax.jit(model.apply)(parameters, texts))
    assert [output.shape for output in outputs] == SHAPES[model_class]
    expected = expected_outputs(model_class, parameters, reference(parameters, texts, config))
    for output, wanted in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(output[..., : wanted.shape[-1]], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model_class", MODEL_CLASSES)
def test_parameters_have_the_agreed_names(model_class, config):
    shapes = build(model_class, config).abstract()
    assert set(shapes) == {"bert", *HEADS[model_class]}
    assert ("pooler" in shapes["bert"]) == (model_class in POOLED)
    bert = {name: tree for name, tree in shapes["bert"].items() if name != "pooler"}
    assert paths(bert) == paths({k: v for k, v in build("BertModel", config).abstract()["bert"].items() if k in bert})
    heads = {name: leaf.shape for name, leaf in paths(shapes).items() if name.split("/")[0] in ("classifier", "span")}
    size = 2 if model_class == "BertForQuestionAnswering" else 3
    assert heads == {
        f"{head}/{leaf}": shape
        for head in HEADS[model_class]
        if head in ("classifier", "span")
        for leaf, shape in (("kernel", (16, size)), ("bias", (size,)))
    }


@pytest.mark.parametrize("model_class", ["BertForSequenceClassification", "BertForTokenClassification"])
def test_a_classifier_drops_what_it_reads(model_class, config, fill, texts):
    """Attention's dropout is off, and the classifier is made to copy: zeros in its logits are the dropped elements."""
    config = dataclasses.replace(config, hidden_dropout_prob=0.5)
    model = build_model(model_class, config, num_labels=16)
    parameters = fill(model, config)
    parameters["classifier"] = {"kernel": jnp.eye(16), "bias": jnp.zeros(16)}
    keys = row_keys(jax.random.key(0), jnp.arange(4))
    logits = np.asarray(jax.jit(model.apply)(parameters, texts, keys))
    kept = dropout(jnp.ones(logits.shape), 0.5, fold_in_each(keys, (1 << 20) + 1))
    np.testing.assert_array_equal(logits != 0, kept != 0)


@pytest.mark.parametrize("encoder_output", ["last", "mixture", 1])
def test_relations_are_read_at_their_entities(config, fill, texts, encoder_output):
    """A pooler of both vectors, joined in order; the encoder computes its last layer there alone where it can."""
    config = dataclasses.replace(config, pooling="entities", encoder_output=encoder_output)
    model = build_model("BertForSequenceClassification", config, num_labels=3)
    parameters = fill(model, config)
    positions = np.asarray([[3, 1], [2, 5], [0, 4], [6, 6]])
    batch = {**texts, "entity_positions": positions}
    hidden = np.asarray(model.apply(parameters, *token_arrays(texts), method="bert"))
    pooler, classifier = parameters["bert"]["pooler"]["dense"], parameters["classifier"]
    joined = np.concatenate([hidden[np.arange(4), positions[:, entity]] for entity in (0, 1)], axis=1)
    pooled = np.tanh(joined @ pooler["kernel"] + pooler["bias"])
    expected = pooled @ classifier["kernel"] + classifier["bias"]
    np.testing.assert_allclose(jax.jit(model.apply)(parameters, batch), expected, rtol=1e-5, atol=1e-5)
    states = model.apply(parameters, *token_arrays(texts), method="bert.computed_states")
    logits = model.apply(parameters, states, batch, method="from_states")
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_bfloat16_keeps_float32_parameters_and_logits(config, texts):
    from bert_jax.models.execution import Execution

    for model_class in MODEL_CLASSES[1:]:
        model = build(model_class, config, execution=Execution(dtype="bfloat16"))
        outputs = jax.eval_shape(model.apply, model.abstract(), texts)
        assert {leaf.dtype for leaf in jax.tree.leaves((model.abstract(), outputs))} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("model_class", "num_labels", "message"),
    [
        ("BertForNothing", None, "unknown model class 'BertForNothing': choose one of BertModel, "),
        ("BertForSequenceClassification", None, "takes a positive number of labels, not None"),
        ("BertForTokenClassification", 0, "takes a positive number of labels, not 0"),
        ("BertForQuestionAnswering", 2, "takes no number of labels, not 2"),
    ],
)
def test_what_cannot_be_built_is_a_user_error(config, model_class, num_labels, message):
    with pytest.raises(UserError, match=message):
        build_model(model_class, config, num_labels=num_labels)


def test_the_names_are_known_without_jax():
    code = "import sys, bert_jax.models.registry\nprint([n for n in ('jax', 'flax', 'tensorflow') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
