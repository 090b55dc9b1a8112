"""The tensors of a model under other people's names: what a table of them is made of, and the parts of our classes.

Ours are stacked over the layers and keep heads as an axis of their own; files have one tensor for each layer, and
matrices, and some join what we keep apart. A linear map is [inputs, outputs] with us, [outputs, inputs] in PyTorch.
Imports no JAX, so that a file's header can be checked first.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from bert_jax.config import BertConfig

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


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor of ours, of one layer where every layer has one.

    Attributes:
        path: ours, such as bert/pooler/dense/kernel.
        axes: names of its axes' sizes (see `axis_sizes`), without the leading axis of the layers where there is one.
        input_axes: how many of the axes, from the left, are the rows of the matrix in a file; 0 for a vector.
    """

    path: str
    axes: tuple[str, ...]
    input_axes: int

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Our shape, of one layer."""
        return tuple(sizes[axis] for axis in self.axes)

    def matrix_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the matrix [inputs, outputs], or of the vector, that an array of that shape is."""
        rows, columns = shape[: self.input_axes], shape[self.input_axes :]
        return (math.prod(rows), math.prod(columns)) if self.input_axes else (math.prod(columns),)


@dataclasses.dataclass(frozen=True)
class FileTensor:
    """A tensor of a file, and which of ours it holds.

    Attributes:
        name: "{layer}" stands for the number of the layer.
        ours: what it holds; where that is several, their outputs lie one after another.
        is_transposed: whether the matrix is [outputs, inputs].
        first_layer: the first layer that has one. Our slices of the layers below are ones, and nothing uses them.
    """

    name: str
    ours: tuple[Tensor, ...]
    is_transposed: bool = False
    first_layer: int = 0

    @property
    def is_stacked(self) -> bool:
        """Whether layers have one each."""
        return "{layer}" in self.name

    def names(self, num_layers: int) -> tuple[str, ...]:
        """The names in a file, one or one for each layer."""
        layers = range(self.first_layer, num_layers)
        return tuple(self.name.format(layer=layer) for layer in layers) if self.is_stacked else (self.name,)

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The shape in a file."""
        matrices = [tensor.matrix_shape(tensor.shape(sizes)) for tensor in self.ours]
        joined = (*matrices[0][:-1], sum(matrix[-1] for matrix in matrices))
        return joined[::-1] if self.is_transposed else joined

    def split(self, array: np.ndarray, sizes: Mapping[str, int]) -> list[np.ndarray]:
        """Lays a file's array out as ours, those of one layer."""
        shapes = [tensor.shape(sizes) for tensor in self.ours]
        widths = [tensor.matrix_shape(shape)[-1] for tensor, shape in zip(self.ours, shapes, strict=True)]
        matrices = np.split(array.T if self.is_transposed else array, np.cumsum(widths)[:-1], axis=-1)
        return [matrix.reshape(shape) for matrix, shape in zip(matrices, shapes, strict=True)]

    def join(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Inverse of `split`; contiguous."""
        matrices = [
            array.reshape(tensor.matrix_shape(array.shape)) for tensor, array in zip(self.ours, arrays, strict=True)
        ]
        # One alone is not copied.
        joined = matrices[0] if len(matrices) == 1 else np.concatenate(matrices, axis=-1)
        return np.ascontiguousarray(joined.T if self.is_transposed else joined)


@dataclasses.dataclass(frozen=True)
class Table:
    """Where the tensors of a family of models lie in the files of one format.

    Attributes:
        parts: what models are put together from, those of MODEL_PARTS that the format has.
        class_names: the format's name of each class that it has, by ours.
        canonical_name: maps a file's name to the table's, or to None for what is no weight.
        prefix: of the encoder's names, which a file of the encoder alone leaves out.
        tied: the names of tensors that must hold the numbers of another one, and that one's name. PyTorch writes a
            tensor that is used twice once or twice.
    """

    parts: Mapping[str, tuple[FileTensor, ...]]
    class_names: Mapping[str, str]
    canonical_name: Callable[[str], str | None]
    prefix: str = ""
    tied: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def parts_of(self, model_class: str) -> tuple[str, ...]:
        """The parts of a class of ours that the format has."""
        return tuple(part for part in MODEL_PARTS[model_class] if part in self.parts)

    def tensors_of(self, model_class: str) -> tuple[FileTensor, ...]:
        """The tensors of those parts, one entry for all layers."""
        return tuple(tensor for part in self.parts_of(model_class) for tensor in self.parts[part])

    def our_class(self, name: str | None) -> str | None:
        """Our name of a class of the format, or None if it is none of them."""
        return next((ours for ours, theirs in self.class_names.items() if theirs == name), None)


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
