"""BERT: its tensors under the names of Hugging Face's and of Google's files, and Hugging Face's configuration of it."""

import pathlib
import re
from collections.abc import Mapping
from typing import Any

from bert_jax.config import BertConfig
from bert_jax.errors import UserError
from bert_jax.interop.json_config import bert_config, shared_fields
from bert_jax.interop.model_family import ACTIVATION_NAMES, ACTIVATIONS, Family
from bert_jax.interop.names import MODEL_PARTS, FileTensor, Table, Tensor
from bert_jax.text.json_files import show_json
from bert_jax.text.tokenizer import Tokenizer

# A tensor in Hugging Face's files, and in Google's.
Both = tuple[FileTensor, FileTensor]


def _both(tensor: Tensor, huggingface: str, google: str, *transposed: str) -> Both:
    """Args: the tensor, its names, and which of "huggingface" and "google" keep the matrix transposed."""
    return (
        FileTensor(huggingface, (tensor,), "huggingface" in transposed),
        FileTensor(google, (tensor,), "google" in transposed),
    )


def _linear(
    path: str,
    huggingface: str,
    google: str,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    google_variables: tuple[str, str] = ("kernel", "bias"),
) -> tuple[Both, ...]:
    """Kernel and bias. Google's heads that are no tf.layers.dense call them output_weights, [outputs, inputs]."""
    kernel, bias = google_variables
    transposed = ("huggingface",) if kernel == "kernel" else ("huggingface", "google")
    return (
        _both(
            Tensor(f"{path}/kernel", (*inputs, *outputs), len(inputs)),
            f"{huggingface}.weight",
            f"{google}{kernel}",
            *transposed,
        ),
        _both(Tensor(f"{path}/bias", outputs, 0), f"{huggingface}.bias", f"{google}{bias}"),
    )


def _layer_norm(path: str, huggingface: str, google: str) -> tuple[Both, ...]:
    return tuple(
        _both(Tensor(f"{path}/{name}", ("hidden",), 0), f"{huggingface}.{torch}", f"{google}/{tf}")
        for name, torch, tf in (("scale", "weight", "gamma"), ("bias", "bias", "beta"))
    )


def _embedding(name: str, rows: str) -> Both:
    tensor = Tensor(f"bert/embeddings/{name}/embedding", (rows, "hidden"), 1)
    return _both(tensor, f"bert.embeddings.{name}.weight", f"bert/embeddings/{name}")


def _layer() -> tuple[Both, ...]:
    ours, huggingface, google = "bert/encoder/layers", "bert.encoder.layer.{layer}", "bert/encoder/layer_{layer}"
    hidden, heads = ("hidden",), ("heads", "head_size")
    tensors: tuple[Both, ...] = ()
    for name in ("query", "key", "value"):
        places = f"{huggingface}.attention.self.{name}", f"{google}/attention/self/{name}/"
        tensors += _linear(f"{ours}/attention/{name}", *places, hidden, heads)
    for path, torch, tf, inputs, outputs in (
        ("attention/output", "attention.output.dense", "attention/output/dense", heads, hidden),
        ("feed_forward/intermediate", "intermediate.dense", "intermediate/dense", hidden, ("intermediate",)),
        ("feed_forward/output", "output.dense", "output/dense", ("intermediate",), hidden),
    ):
        tensors += _linear(f"{ours}/{path}", f"{huggingface}.{torch}", f"{google}/{tf}/", inputs, outputs)
    for path, place in (("attention", "attention.output"), ("feed_forward", "output")):
        torch, tf = f"{huggingface}.{place}.LayerNorm", f"{google}/{place.replace('.', '/')}/LayerNorm"
        tensors += _layer_norm(f"{ours}/{path}/layer_norm", torch, tf)
    return tensors


_OUTPUT = ("output_weights", "output_bias")
_PARTS: Mapping[str, tuple[Both, ...]] = {
    "encoder": (
        _embedding("word_embeddings", "vocabulary"),
        _embedding("position_embeddings", "positions"),
        _embedding("token_type_embeddings", "token_types"),
        *_layer_norm("bert/embeddings/layer_norm", "bert.embeddings.LayerNorm", "bert/embeddings/LayerNorm"),
        *_layer(),
    ),
    "pooler": _linear("bert/pooler/dense", "bert.pooler.dense", "bert/pooler/dense/", ("hidden",), ("hidden",)),
    "masked_lm": (
        *_linear(
            "masked_lm/transform",
            "cls.predictions.transform.dense",
            "cls/predictions/transform/dense/",
            ("hidden",),
            ("hidden",),
        ),
        *_layer_norm(
            "masked_lm/layer_norm", "cls.predictions.transform.LayerNorm", "cls/predictions/transform/LayerNorm"
        ),
        _both(Tensor("masked_lm/bias", ("vocabulary",), 0), "cls.predictions.bias", "cls/predictions/output_bias"),
    ),
    "next_sentence": _linear(
        "next_sentence/dense", "cls.seq_relationship", "cls/seq_relationship/", ("hidden",), ("is_next",), _OUTPUT
    ),
    # Google's classifier is of whole texts, and has its variables at the root.
    "classifier": _linear("classifier", "classifier", "", ("hidden",), ("labels",), _OUTPUT),
    "span": _linear("span", "qa_outputs", "cls/squad/", ("hidden",), ("start_and_end",), _OUTPUT),
}

# Buffers of older versions of transformers: 0, 1, 2, ... and zeros.
_BUFFERS = ("bert.embeddings.position_ids", "bert.embeddings.token_type_ids")
_OPTIMIZER_SLOT = re.compile(r"/(adam_m|adam_v|Adam|Adam_1)$")
_OPTIMIZER_SCALARS = ("global_step", "beta1_power", "beta2_power")


def _huggingface_name(name: str) -> str | None:
    """BertModel is saved without its prefix, and the oldest files call LayerNorm's tensors as Google's do."""
    if name.startswith(("embeddings.", "encoder.", "pooler.")):
        name = f"bert.{name}"
    name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
    return None if name in _BUFFERS else name


def _google_name(name: str) -> str | None:
    return None if _OPTIMIZER_SLOT.search(name) or name in _OPTIMIZER_SCALARS else name


_CLASS_NAMES = {name: name for name in MODEL_PARTS}

HUGGINGFACE = Table(
    parts={part: tuple(huggingface for huggingface, _ in tensors) for part, tensors in _PARTS.items()},
    class_names=_CLASS_NAMES,
    canonical_name=_huggingface_name,
    prefix="bert.",
    tied={
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
)
GOOGLE = Table(
    parts={part: tuple(google for _, google in tensors) for part, tensors in _PARTS.items()},
    class_names=_CLASS_NAMES,
    canonical_name=_google_name,
)


def _read_config(path: pathlib.Path, fields: Mapping[str, Any]) -> BertConfig:
    positions = fields.get("position_embedding_type", "absolute")
    if positions not in (None, "absolute"):
        raise UserError(
            f"{path}: position_embedding_type is {show_json(positions)}: only absolute positions can be read"
        )
    for option in ("is_decoder", "add_cross_attention", "pruned_heads"):
        if fields.get(option):
            raise UserError(
                f"{path}: {option} is {show_json(fields[option])}: only BERT as an encoder, unpruned, can be read"
            )
    return bert_config(path, fields, ACTIVATIONS)


def _write_config(config: BertConfig, tokenizer: Tokenizer | None) -> dict[str, Any]:
    return {
        **shared_fields(config),
        "hidden_act": ACTIVATION_NAMES[config.hidden_act],
        "position_embedding_type": "absolute",
        "pad_token_id": tokenizer.pad_id if tokenizer else 0,
    }


BERT = Family(
    name="BERT",
    model_type="bert",
    table=HUGGINGFACE,
    options={
        "position_embedding_type": ("learned",),
        "layer_norm_placement": ("post",),
        "norm_type": ("layer_norm",),
        "use_bias": (True,),
        "feed_forward_type": ("plain",),
        "type_vocab_size": range(1, 2**31),
        "encoder_output": ("last",),
        "pooling": ("cls",),
    },
    read_config=_read_config,
    write_config=_write_config,
)
