"""ModernBERT against transformers: hidden states, logits and words for blanks of a model that transformers wrote."""

import json
import shutil

import jax
import numpy as np
import pytest

from bert_jax.interop.pretrained import open_pretrained
from bert_jax.models.registry import build_model
from bert_jax.tasks.fill_mask import fill_masks

TOLERANCE = 2e-5
CLASS = "ModernBertForMaskedLM"


@pytest.fixture(scope="module")
def open_golden(golden, tmp_path_factory):
    """Opens the golden model with an activation, Hugging Face's name of it."""

    def read(hidden_act):
        directory = shutil.copytree(golden / CLASS, tmp_path_factory.mktemp("golden") / CLASS)
        fields = json.loads((directory / "config.json").read_text())
        activations = {"hidden_activation": hidden_act, "classifier_activation": hidden_act}
        (directory / "config.json").write_text(json.dumps({**fields, **activations}))
        return open_pretrained(directory)

    return read


@pytest.mark.parametrize("hidden_act", ["gelu", "gelu_new", "silu"])
def test_results_are_those_of_transformers(open_golden, read_results, inputs, hidden_act):
    model, batch = open_golden(hidden_act), inputs.evaluation_batch()
    real = batch["segment_ids"] > 0
    functions = build_model(model.model_class, model.config)
    # Words are scored at every position.
    batch["masked_positions"] = batch["position_ids"]

    @jax.jit
    def compute(parameters, batch):
        tokens = (batch[name] for name in ("input_ids", "token_type_ids", "position_ids", "segment_ids"))
        states = functions.apply(parameters, *tokens, method="bert.hidden_states")
        return {
            "token.hidden_states": states.transpose(1, 2, 0, 3),
            "token.logits": functions.apply(parameters, batch),
        }

    for name, array in compute(model.load_parameters(), batch).items():
        expected = read_results(CLASS)[f"{hidden_act}.{name}"]
        array = np.asarray(array)[real][..., : expected.shape[-1]]
        assert array.shape == expected.shape, name
        assert np.abs(array - expected).max() < TOLERANCE, name


def test_blanks_get_the_same_words(golden, open_golden):
    model = open_golden("gelu")
    parameters, tokenizer = model.load_parameters(), model.load_tokenizer()
    expected = json.loads((golden / f"{CLASS}.json").read_text())["blanks"]
    assert [len(blanks) for blanks in expected.values()] == [1, 2]
    for text, blanks in expected.items():
        found = fill_masks(model.config, parameters, tokenizer, text, len(blanks[0]))
        for suggestions, words in zip(found, blanks, strict=True):
            assert [suggestion.token for suggestion in suggestions] == [word for word, _ in words]
            probabilities = [suggestion.probability for suggestion in suggestions]
            np.testing.assert_allclose(probabilities, [value for _, value in words], atol=TOLERANCE)
