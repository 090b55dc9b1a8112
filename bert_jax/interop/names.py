"""The tensors of BERT under everyone's names: one table of ours, Hugging Face's and Google's, and their layouts.

Ours are stacked over the layers and keep heads as an axis of their own; files have one tensor for each layer, and
matrices. A linear map is [inputs, outputs] with us and in most of Google's variables, [outputs, inputs] in PyTorch's.
Imports no JAX, so that a file's header can be checked first.
"""

import dataclasses
import math
import re
from collections.abc import Mapping

import numpy as np

from bert_jax.config import BertConfig

HUGGINGFACE, GOOGLE = FORMATS = ("huggingface", "google")


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor of ours, and what it is called and how it lies elsewhere.

    Attributes:
        path: ours, such as bert/pooler/dense/kernel.
        axes: names of its axes' sizes (see `axis_sizes`), without the leading axis of the layers where there is one.
        input_axes: how many of the axes, from the left, are the rows of the matrix in a file; 0 for a vector.
        names: by format; "{layer}" stands for the number of the layer.
        transposed: the formats that keep the matrix transposed.
    """

    path: str
    axes: tuple[str, ...]
    input_axes: int
    names: Mapping[str, str]
    transposed: frozenset[str] = frozenset()

    @property
    def is_stacked(self) -> bool:
        """Whether every layer has one."""
        return "{layer}" in self.names[HUGGINGFACE]

    def names_in(self, format: str, num_layers: int) -> tuple[str, ...]:
        """The names in a file of that format, one or one for each layer."""
        name = self.names[format]
        return tuple(name.format(layer=layer) for layer in range(num_layers)) if self.is_stacked else (name,)

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Our shape, of one layer."""
        return tuple(sizes[axis] for axis in self.axes)

    def shape_in(self, format: str, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The shape in a file of that format."""
        matrix = self._matrix_shape(self.shape(sizes))
        return matrix[::-1] if format in self.transposed else matrix

    def _matrix_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        rows, columns = shape[: self.input_axes], shape[self.input_axes :]
        return (math.prod(rows), math.prod(columns)) if self.input_axes else (math.prod(columns),)

    def from_format(self, format: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Lays one layer's array of a file out as ours, of that shape."""
        return (array.T if format in self.transposed else array).reshape(shape)

    def to_format(self, format: str, array: np.ndarray) -> np.ndarray:
        """Inverse of `from_format`; contiguous."""
        matrix = array.reshape(self._matrix_shape(array.shape))
        return np.ascontiguousarray(matrix.T if format in self.transposed else matrix)


def axis_sizes(config: BertConfig, num_labels: int | None = None) -> dict[str, int]:
    """The sizes that `Tensor.axes` speak of; the vocabulary's is the true one, without padding."""
    return {
        "vocabulary": config.vocab_size,
        "positions": config.max_position_embeddings,
        "token_types": config.type_vocab_size,
        "hidden": config.hidden_size,
        "heads": config.num_attention_heads,
        "head_size": config.hidden_size // config.num_attention_heads,
        "intermediate": config.intermediate_size,
        "is_next": 2,
        "start_and_end": 2,
        "labels": num_labels or 2,
    }


def _linear(
    path: str,
    huggingface: str,
    google: str,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    google_variables: tuple[str, str] = ("kernel", "bias"),
) -> tuple[Tensor, ...]:
    """Kernel and bias. Google's heads that are no tf.layers.dense call them output_weights, [outputs, inputs]."""
    transposed = {HUGGINGFACE} if google_variables[0] == "kernel" else {HUGGINGFACE, GOOGLE}
    kernel = {HUGGINGFACE: f"{huggingface}.weight", GOOGLE: f"{google}{google_variables[0]}"}
    bias = {HUGGINGFACE: f"{huggingface}.bias", GOOGLE: f"{google}{google_variables[1]}"}
    return (
        Tensor(f"{path}/kernel", (*inputs, *outputs), len(inputs), kernel, frozenset(transposed)),
        Tensor(f"{path}/bias", outputs, 0, bias),
    )


def _layer_norm(path: str, huggingface: str, google: str) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(f"{path}/{name}", ("hidden",), 0, {HUGGINGFACE: f"{huggingface}.{torch}", GOOGLE: f"{google}/{tf}"})
        for name, torch, tf in (("scale", "weight", "gamma"), ("bias", "bias", "beta"))
    )


def _embedding(name: str, rows: str) -> Tensor:
    names = {HUGGINGFACE: f"bert.embeddings.{name}.weight", GOOGLE: f"bert/embeddings/{name}"}
    return Tensor(f"bert/embeddings/{name}/embedding", (rows, "hidden"), 1, names)


def _layer() -> tuple[Tensor, ...]:
    ours, huggingface, google = "bert/encoder/layers", "bert.encoder.layer.{layer}", "bert/encoder/layer_{layer}"
    hidden, heads = ("hidden",), ("heads", "head_size")
    tensors: tuple[Tensor, ...] = ()
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
_MASKED_LM_BIAS = {HUGGINGFACE: "cls.predictions.bias", GOOGLE: "cls/predictions/output_bias"}

# What models are put together from.
PARTS: Mapping[str, tuple[Tensor, ...]] = {
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
        Tensor("masked_lm/bias", ("vocabulary",), 0, _MASKED_LM_BIAS),
    ),
    "next_sentence": _linear(
        "next_sentence/dense", "cls.seq_relationship", "cls/seq_relationship/", ("hidden",), ("is_next",), _OUTPUT
    ),
    # Google's classifier is of whole texts, and has its variables at the root.
    "classifier": _linear("classifier", "classifier", "", ("hidden",), ("labels",), _OUTPUT),
    "span": _linear("span", "qa_outputs", "cls/squad/", ("hidden",), ("start_and_end",), _OUTPUT),
}

# The parts of each class, in the order in which a file that says nothing of its class is tried.
MODEL_PARTS: Mapping[str, tuple[str, ...]] = {
    "BertForPreTraining": ("encoder", "pooler", "masked_lm", "next_sentence"),
    "BertForMaskedLM": ("encoder", "masked_lm"),
    "BertForSequenceClassification": ("encoder", "pooler", "classifier"),
    "BertForTokenClassification": ("encoder", "classifier"),
    "BertForQuestionAnswering": ("encoder", "span"),
    "BertModel": ("encoder", "pooler"),
}
CLASSIFIERS = tuple(name for name, parts in MODEL_PARTS.items() if "classifier" in parts)


def tensors_of(model_class: str) -> tuple[Tensor, ...]:
    """The tensors of a model, one entry for all layers."""
    return tuple(tensor for part in MODEL_PARTS[model_class] for tensor in PARTS[part])


# PyTorch writes a tensor that is used twice once or twice; the second name must hold the same numbers.
TIED = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}
# Buffers of older versions of transformers: 0, 1, 2, ... and zeros.
_BUFFERS = ("bert.embeddings.position_ids", "bert.embeddings.token_type_ids")
_OPTIMIZER_SLOT = re.compile(r"/(adam_m|adam_v|Adam|Adam_1)$")
_OPTIMIZER_SCALARS = ("global_step", "beta1_power", "beta2_power")


def canonical_name(format: str, name: str) -> str | None:
    """The table's name for a file's name, or None for what is no weight.

    Hugging Face's BertModel is saved without the prefix `bert.`, and the oldest files call LayerNorm's weight and bias
    gamma and beta, after Google's.
    """
    if format == GOOGLE:
        return None if _OPTIMIZER_SLOT.search(name) or name in _OPTIMIZER_SCALARS else name
    if name.startswith(("embeddings.", "encoder.", "pooler.")):
        name = f"bert.{name}"
    name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
    return None if name in _BUFFERS else name
