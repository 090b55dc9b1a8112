"""Makes ModernBertForMaskedLM/, .npz and .json beside it, as make_golden.py does for the classes of BERT.

Run by hand, in an environment like that of make_golden.py (torch 2.14.1 and transformers 5.24.0 made what is there):

    torch_venv/bin/python tests/golden/make_modernbert.py

It writes a tiny model as transformers saves it, every value random and every layer with attention to all words, and of
`evaluation_batch()`, at real tokens only, row after row, for each activation:

    ACTIVATION.token.hidden_states   `[tokens, layers + 1, hidden]`, the embeddings' output first, each read through the
                                     final norm, as bert_jax reads them
    ACTIVATION.token.logits          `[tokens, vocabulary]`

All are those of float32, and are compared with float64's before they are written. The .json file has the likeliest
words of each blank in `TEXTS` with their probabilities, and the versions of the libraries.
"""

import json
import pathlib
import sys

import golden_inputs
import numpy as np
import torch
import transformers

HERE = pathlib.Path(__file__).resolve().parent
CLASS = "ModernBertForMaskedLM"
ACTIVATIONS = ("gelu", "gelu_new", "silu")
TEXTS = ("The sun is [MASK].", "she [MASK] the pi[MASK]no!")
WORDS = 5
# What float32 may differ from float64 before it is taken as golden: a fraction of the bounds of the tests.
TOLERANCE = 5e-6

Results = dict[str, np.ndarray]


def make_config(hidden_act: str = "gelu", rotary_base: float = 300.0) -> transformers.ModernBertConfig:
    """Sizes differ from one another, so that no axis can be taken for another; the base turns all planes visibly."""
    return transformers.ModernBertConfig(
        vocab_size=golden_inputs.VOCAB_SIZE,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=20,
        max_position_embeddings=golden_inputs.MAX_POSITIONS,
        hidden_activation=hidden_act,
        classifier_activation=hidden_act,
        norm_eps=1e-5,
        global_attn_every_n_layers=1,
        rope_parameters={"full_attention": {"rope_type": "default", "rope_theta": rotary_base}},
        pad_token_id=golden_inputs.PAD,
        bos_token_id=golden_inputs.CLS,
        cls_token_id=golden_inputs.CLS,
        eos_token_id=golden_inputs.SEP,
        sep_token_id=golden_inputs.SEP,
        attn_implementation="eager",
    )


def make_model() -> torch.nn.Module:
    """Makes the model with random values."""
    model = transformers.ModernBertForMaskedLM(make_config())
    random = np.random.RandomState(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = random.randn(*parameter.shape)
            # Large where the head would otherwise divide by a small deviation, and magnify float32's errors.
            scale = 1.0 if name.startswith("head.dense") else 0.3
            values = 1 + 0.3 * values if "norm" in name else scale * values
            parameter.copy_(torch.from_numpy(values))
    return model.eval()


def variant(model: torch.nn.Module, config: transformers.ModernBertConfig, dtype: torch.dtype) -> torch.nn.Module:
    """A copy of a model with another configuration and type."""
    copy = type(model)(config).to(dtype)
    copy.load_state_dict({name: tensor.to(dtype) for name, tensor in model.state_dict().items()})
    return copy.eval()


def forward(model: torch.nn.Module, ids: np.ndarray, mask: np.ndarray) -> Results:
    """What a model computes of ids and mask `[batch, length]`: `[batch, length, ...]`."""
    states: list[torch.Tensor] = []
    inner = model.model
    hooks = [
        module.register_forward_hook(lambda module, inputs, output: states.append(output))
        for module in (inner.embeddings, *inner.layers)
    ]
    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(ids).long(), attention_mask=torch.from_numpy(mask).long()).logits
        read = [inner.final_norm(state) for state in states]
    for hook in hooks:
        hook.remove()
    return {"token.hidden_states": torch.stack(read, dim=2).numpy(), "token.logits": logits.numpy()}


def forward_padded_and_not(model: torch.nn.Module) -> Results:
    """Runs the batch padded, and each of its rows alone; both must agree at real tokens."""
    batch = golden_inputs.evaluation_batch()
    real = batch["segment_ids"] > 0
    padded = {name: array[real] for name, array in forward(model, batch["input_ids"], real).items()}
    rows = [
        forward(model, ids[None, : own.sum()], own[None, : own.sum()])
        for ids, own in zip(batch["input_ids"], real, strict=True)
    ]
    alone = {name: np.concatenate([row[name][0] for row in rows]) for name in padded}
    for name, array in padded.items():
        assert np.abs(array - alone[name]).max() < TOLERANCE, name
    return alone


def fill_masks(model: torch.nn.Module, text: str) -> list[list[tuple[str, float]]]:
    """The likeliest words of each blank of a text, and their probabilities."""
    tokenizer = transformers.BertTokenizer(vocab={word: place for place, word in enumerate(golden_inputs.vocabulary())})
    ids = np.asarray([tokenizer(text)["input_ids"]])
    logits = forward(model, ids, np.ones_like(ids))["token.logits"][ids == golden_inputs.MASK]
    best = torch.from_numpy(logits).softmax(dim=-1).topk(WORDS)
    return [
        [(tokenizer.convert_ids_to_tokens(word), round(value, 6)) for value, word in zip(*blank, strict=True)]
        for blank in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]


def main() -> int:
    """Writes the model and its results."""
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    model = make_model()
    golden: Results = {}
    for hidden_act in ACTIVATIONS:
        config = make_config(hidden_act)
        single = forward_padded_and_not(variant(model, config, torch.float32))
        # In which the rotation alone is computed in float32.
        double = forward_padded_and_not(variant(model, config, torch.float64))
        for name, array in single.items():
            error = np.abs(array - double[name]).max()
            print(f"{hidden_act}.{name}: {array.shape}, up to {np.abs(array).max():.2f}, float32 errs by {error:.1e}")
            assert error < TOLERANCE
            golden[f"{hidden_act}.{name}"] = array
    names = {name.partition(".")[2] for name in golden}
    others = {
        "no rotation to speak of": make_config(rotary_base=1e30),
        "another base": make_config(rotary_base=400.0),
        "another activation": make_config("gelu_new"),
    }
    for what, config in others.items():
        changed = forward_padded_and_not(variant(model, config, torch.float32))
        difference = max(np.abs(changed[name] - golden[f"gelu.{name}"]).max() for name in names)
        print(f"{what}: {difference:.1e}")
        assert difference > 1e-3, f"{what}: the tests would hardly tell"
    model.save_pretrained(HERE / CLASS)
    (HERE / CLASS / "generation_config.json").unlink(missing_ok=True)
    (HERE / CLASS / "vocab.txt").write_text("\n".join(golden_inputs.vocabulary()) + "\n")
    np.savez_compressed(HERE / f"{CLASS}.npz", **golden)
    versions = {module.__name__: module.__version__ for module in (torch, transformers, np)}
    blanks = {text: fill_masks(model, text) for text in TEXTS}
    text = json.dumps({"versions": versions, "blanks": blanks}, indent=1)
    (HERE / f"{CLASS}.json").write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
