"""ModernBERT (Warner et al. 2024) in Hugging Face's directories: its tensors, and its configuration.

Rotary positions, a norm before each sub-layer but the first, gated feed-forward networks, no biases. What of it ours
cannot be yet, such as layers that attend to the words nearby alone, is refused.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

from bert_jax.config import BertConfig
from bert_jax.errors import UserError
from bert_jax.interop.json_config import bert_config, shared_fields
from bert_jax.interop.model_family import ACTIVATION_NAMES, ACTIVATIONS, Family
from bert_jax.interop.names import FileTensor, Table, Tensor
from bert_jax.interop.sentencepiece_json import write_tokenizer_json
from bert_jax.text.json_files import expect_type, read_json_object, show_json
from bert_jax.text.published_tokenizers import CONFIG_FILE, TOKENIZER_FILE
from bert_jax.text.tokenizer import Tokenizer, write_json

_HIDDEN, _HEADS, _INTERMEDIATE = ("hidden",), ("heads", "head_size"), ("intermediate",)
_OURS, _THEIRS = "bert/encoder/layers", "model.layers.{layer}"


def _linear(name: str, inputs: tuple[str, ...], outputs: tuple[str, ...], *paths: str) -> FileTensor:
    kernels = tuple(Tensor(f"{path}/kernel", (*inputs, *outputs), len(inputs)) for path in paths)
    return FileTensor(f"{name}.weight", kernels, is_transposed=True)


def _norm(name: str, path: str, first_layer: int = 0) -> FileTensor:
    return FileTensor(f"{name}.weight", (Tensor(f"{path}/scale", _HIDDEN, 0),), first_layer=first_layer)


_TABLE = Table(
    parts={
        "encoder": (
            FileTensor(
                "model.embeddings.tok_embeddings.weight",
                (Tensor("bert/embeddings/word_embeddings/embedding", ("vocabulary", "hidden"), 1),),
            ),
            _norm("model.embeddings.norm", "bert/embeddings/layer_norm"),
            # The first layer reads the embeddings, which have a norm of their own.
            _norm(f"{_THEIRS}.attn_norm", f"{_OURS}/attention/layer_norm", first_layer=1),
            _linear(
                f"{_THEIRS}.attn.Wqkv",
                _HIDDEN,
                _HEADS,
                *(f"{_OURS}/attention/{name}" for name in ("query", "key", "value")),
            ),
            _linear(f"{_THEIRS}.attn.Wo", _HEADS, _HIDDEN, f"{_OURS}/attention/output"),
            _norm(f"{_THEIRS}.mlp_norm", f"{_OURS}/feed_forward/layer_norm"),
            _linear(
                f"{_THEIRS}.mlp.Wi",
                _HIDDEN,
                _INTERMEDIATE,
                *(f"{_OURS}/feed_forward/{name}" for name in ("intermediate", "gate")),
            ),
            _linear(f"{_THEIRS}.mlp.Wo", _INTERMEDIATE, _HIDDEN, f"{_OURS}/feed_forward/output"),
            _norm("model.final_norm", "bert/encoder/final_layer_norm"),
        ),
        "masked_lm": (
            _linear("head.dense", _HIDDEN, _HIDDEN, "masked_lm/transform"),
            _norm("head.norm", "masked_lm/layer_norm"),
            FileTensor("decoder.bias", (Tensor("masked_lm/bias", ("vocabulary",), 0),)),
        ),
    },
    class_names={"BertForMaskedLM": "ModernBertForMaskedLM", "BertModel": "ModernBertModel"},
    # ModernBertModel is saved without its prefix.
    canonical_name=lambda name: f"model.{name}" if name.startswith(("embeddings.", "layers.", "final_norm.")) else name,
    prefix="model.",
    tied={"decoder.weight": "model.embeddings.tok_embeddings.weight"},
)

_OPTIONS: Mapping[str, Any] = {
    "position_embedding_type": "rotary",
    "layer_norm_placement": "pre_and_embeddings",
    "norm_type": "layer_norm",
    "use_bias": False,
    "feed_forward_type": "gated",
    "type_vocab_size": 0,
}

# Names of our fields. Dropout lies in other places there, which the model's answers do not depend on: theirs of the
# feed-forward network is before its second map, and theirs of attention is after the output map too.
_NAMES = {
    "hidden_act": "hidden_activation",
    "layer_norm_eps": "norm_eps",
    "hidden_dropout_prob": "mlp_dropout",
    "attention_probs_dropout_prob": "attention_dropout",
}
# The fields that say something here, with what they mean where they are absent.
_DEFAULTS: Mapping[str, Any] = {
    "hidden_activation": "gelu",
    "classifier_activation": "gelu",
    "norm_eps": 1e-5,
    "mlp_dropout": 0.0,
    "attention_dropout": 0.0,
    "max_position_embeddings": 8192,
    "attention_bias": False,
    "mlp_bias": False,
    "norm_bias": False,
    "classifier_bias": False,
    "decoder_bias": True,
    "global_attn_every_n_layers": 3,
    "global_rope_theta": 160_000.0,
}
# The only values of some fields that ours can be, and what others would be.
_ONLY = {
    "attention_bias": (False, "biases in attention"),
    "mlp_bias": (False, "biases in the feed-forward networks"),
    "norm_bias": (False, "biases in the norms"),
    "classifier_bias": (False, "a bias in the head's linear map"),
    "decoder_bias": (True, "no bias for each word"),
    "rope_scaling": (None, "scaled rotary positions"),
}


def _read_config(path: pathlib.Path, fields: Mapping[str, Any]) -> BertConfig:
    fields = {**_DEFAULTS, **{name: value for name, value in fields.items() if value is not None}}
    for name, (only, otherwise) in _ONLY.items():
        if fields.get(name) != only:
            raise _refusal(path, name, fields[name], otherwise)
    activation = fields["hidden_activation"]
    if ACTIVATIONS.get(str(fields["classifier_activation"])) != ACTIVATIONS.get(str(activation)):
        otherwise = f"another activation in its head than in its layers ({show_json(activation)})"
        raise _refusal(path, "classifier_activation", fields["classifier_activation"], otherwise)
    base = _rotary_base(path, fields)
    # A field of BERT's, which means nothing here.
    fields.pop("type_vocab_size", None)
    config = bert_config(path, fields, ACTIVATIONS, _NAMES, rotary_base=base, **_OPTIONS)
    _check_layers(path, fields, config.num_hidden_layers)
    return config


def _rotary_base(path: pathlib.Path, fields: Mapping[str, Any]) -> float:
    """The base of the layers that see everything: where transformers 5 keeps it, or else where 4 did."""
    place = f"{path}: rope_parameters"
    by_type = expect_type(fields.get("rope_parameters"), dict[str, dict] | None, place) or {}
    own = by_type.get("full_attention", {})
    if own.get("rope_type", "default") != "default":
        raise _refusal(path, "rope_parameters.full_attention.rope_type", own["rope_type"], "scaled rotary positions")
    return expect_type(own.get("rope_theta", fields["global_rope_theta"]), float, f"{path}: the rotary base")


def _check_layers(path: pathlib.Path, fields: Mapping[str, Any], num_layers: int) -> None:
    """Raises a UserError unless every layer sees all words."""
    types = expect_type(fields.get("layer_types"), list[str] | None, f"{path}: layer_types")
    every = fields["global_attn_every_n_layers"]
    if types is not None:
        local = next((name for name in types[:num_layers] if name != "full_attention"), None)
        if local is not None:
            raise _refusal(path, "layer_types", types, "layers that attend to the words nearby alone")
    elif every != 1 and num_layers > 1:
        raise _refusal(path, "global_attn_every_n_layers", every, "layers that attend to the words nearby alone")


def _refusal(path: pathlib.Path, name: str, value: Any, otherwise: str) -> UserError:
    return UserError(f"{path}: {name} is {show_json(value)}: a ModernBERT with {otherwise} cannot be read yet")


def _write_config(config: BertConfig, tokenizer: Tokenizer | None) -> dict[str, Any]:
    fields = shared_fields(config, _NAMES)
    del fields["type_vocab_size"]
    ids = (tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id) if tokenizer else (0, None, None)
    pad, begin, end = ids
    activation = ACTIVATION_NAMES[config.hidden_act]
    return {
        **fields,
        "embedding_dropout": config.hidden_dropout_prob,
        "hidden_activation": activation,
        "classifier_activation": activation,
        **{name: only for name, (only, _) in _ONLY.items() if only is not None},
        # What transformers 4 reads, and then what 5 does.
        "global_attn_every_n_layers": 1,
        "global_rope_theta": config.rotary_base,
        "layer_types": ["full_attention"] * config.num_hidden_layers,
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": config.rotary_base}},
        "pad_token_id": pad,
        "cls_token_id": begin,
        "bos_token_id": begin,
        "sep_token_id": end,
        "eos_token_id": end,
    }


def _finish_tokenizer(directory: pathlib.Path) -> None:
    """The models take no token types, and transformers 5 opens tokenizer.json for them, whatever the class."""
    path = directory / CONFIG_FILE
    own = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "attention_mask"]}
    write_json(path, {**read_json_object(path), **own})
    if not (directory / TOKENIZER_FILE).exists():
        write_tokenizer_json(directory)


MODERNBERT = Family(
    name="ModernBERT",
    model_type="modernbert",
    table=_TABLE,
    options={
        **{name: (value,) for name, value in _OPTIONS.items()},
        "encoder_output": ("last",),
        "pooling": ("cls",),
    },
    read_config=_read_config,
    write_config=_write_config,
    finish_tokenizer=_finish_tokenizer,
)
