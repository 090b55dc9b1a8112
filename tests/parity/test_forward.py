"""What each class computes against transformers: hidden states, pooled output and logits, padded and unpadded."""

import jax
import numpy as np
import pytest

from bert_jax.models.registry import MODEL_CLASSES

TOLERANCE = 2e-5
TOKEN_ARRAYS = ("input_ids", "token_type_ids", "position_ids", "segment_ids")


def compute(model, model_class, batch):
    """The results of a model under the names of the golden ones: by token `[batch, length, ...]`, by row otherwise."""
    # Words are scored at every position.
    batch = {**batch, "masked_positions": batch["position_ids"]}

    def results(parameters, batch):
        apply = model.functions.apply
        outputs = apply(parameters, batch)
        if model_class == "BertModel":
            states = apply(parameters, *(batch[name] for name in TOKEN_ARRAYS), method="bert.hidden_states")
            last, pooled = outputs
            return {"token.hidden_states": states.transpose(1, 2, 0, 3), "token.last": last, "row.pooled": pooled}
        if model_class == "BertForPreTraining":
            return {"token.masked_lm": outputs[0], "row.next_sentence": outputs[1][:, 0]}
        if model_class == "BertForQuestionAnswering":
            return {"token.span": outputs}
        return {"row.logits" if outputs.ndim == 2 else "token.logits": outputs}

    return {name: np.asarray(array) for name, array in jax.jit(results)(model.parameters, batch).items()}


def cut_to_length(batch, length):
    """The rows of that many tokens, without padding."""
    rows = (batch["segment_ids"] > 0).sum(axis=1) == length
    return {name: array[rows, :length] if name in TOKEN_ARRAYS else array[rows] for name, array in batch.items()}


@pytest.mark.parametrize("padding", ["padded", "unpadded"])
@pytest.mark.parametrize("hidden_act", ["gelu", "gelu_new"])
@pytest.mark.parametrize("model_class", MODEL_CLASSES)
def test_results_are_those_of_transformers(read_model, read_results, inputs, model_class, hidden_act, padding):
    model = read_model(model_class, hidden_act)
    assert model.config.hidden_act == {"gelu": "gelu", "gelu_new": "gelu_tanh"}[hidden_act]
    batch = inputs.evaluation_batch()
    lengths = (batch["segment_ids"] > 0).sum(axis=1)
    first, *others = lengths.tolist()
    assert first == batch["segment_ids"].shape[1] > max(others) == min(others), "the first row alone has no padding"
    expected = {
        name.removeprefix(f"{hidden_act}."): array
        for name, array in read_results(model_class).items()
        if name.startswith(f"{hidden_act}.")
    }
    if model_class == "BertModel":
        expected["token.last"] = expected["token.hidden_states"][:, -1]
    if padding == "unpadded":
        batch = cut_to_length(batch, max(others))
        assert batch["segment_ids"].all()
        expected = {name: array[first if name.startswith("token.") else 1 :] for name, array in expected.items()}

    computed = compute(model, model_class, batch)
    assert computed.keys() == expected.keys()
    for name, array in computed.items():
        if name.startswith("token."):
            array = array[batch["segment_ids"] > 0]
        # The vocabulary's padding, which nobody else has, comes last.
        array = array[..., : expected[name].shape[-1]]
        assert array.shape == expected[name].shape, name
        assert np.abs(array - expected[name]).max() < TOLERANCE, name
