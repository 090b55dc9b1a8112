"""From a file's tensors to a model's parameters, and back, whatever the format.

First the header is matched with the architecture, which reads no weights; then the parameters are put together one by
one, so that memory holds the model once and a tensor or two.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bert_jax.config import BertConfig
from bert_jax.errors import UserError
from bert_jax.interop.names import CLASSIFIERS, MODEL_PARTS, Table, axis_sizes

# Reads one tensor of a file by the file's own name.
Read = Callable[[str], np.ndarray]

# Bytes; that of the widest registers.
_ALIGNMENT = 64


@dataclasses.dataclass(frozen=True)
class TensorReport:
    """What became of the tensors of a file, by the names that they have there.

    Attributes:
        loaded: taken.
        missing: not there, although the class that the file names has them.
        unexpected: there, and without a place in the model.
        other_shapes: there, of another shape than the configuration asks for, and not taken.
    """

    loaded: Sequence[str]
    missing: Sequence[str] = ()
    unexpected: Sequence[str] = ()
    other_shapes: Sequence[str] = ()

    def lines(self, most: int = 8) -> list[str]:
        """The report for people: counts, then names, at most that many of each kind."""
        kinds = {
            "loaded": self.loaded,
            "missing": self.missing,
            "unexpected": self.unexpected,
            "of another shape": self.other_shapes,
        }
        counts = ", ".join(f"{len(listed)} {kind}" for kind, listed in kinds.items())
        lines = [f"tensors: {counts}"]
        for kind, listed in kinds.items():
            lines += [f"  {kind}: {name}" for name in listed[:most]]
            if len(listed) > most:
                lines.append(f"  {kind}: and {len(listed) - most} more")
        return lines


@dataclasses.dataclass(frozen=True)
class Match:
    """How a file's tensors fill a model.

    Attributes:
        table: of the names that the file uses.
        config: the architecture.
        model_class: the class that the tensors make.
        labels: names of a classifier's labels, None for other classes.
        report: complete but for tied tensors, which need the numbers (see `assemble`).
        file_names: the file's own name by the table's name.
    """

    table: Table
    config: BertConfig
    model_class: str
    labels: tuple[str, ...] | None
    report: TensorReport
    file_names: Mapping[str, str]

    def sizes(self) -> dict[str, int]:
        """See `names.axis_sizes`."""
        return axis_sizes(self.config, len(self.labels) if self.labels else None)


def match_tensors(
    table: Table,
    shapes: Mapping[str, tuple[int, ...]],
    config: BertConfig,
    source: str,
    *,
    declared_class: str | None = None,
    labels: tuple[str, ...] | None = None,
) -> Match:
    """Finds the place of every tensor of a file.

    Args:
        table: of the names that the file uses.
        shapes: of the file's tensors, by name.
        config: the architecture that the file's configuration describes.
        source: the file, for messages.
        declared_class: the class that the file says it was saved from, where it does, under the format's name.
        labels: the labels that it says it has; by default as many as the classifier tells apart, LABEL_0 and so on.

    Raises:
        UserError: a tensor of the encoder is missing or of another shape: this is not that BERT.
    """
    found = _find(table, shapes)
    # Every layer has tensors of its own, and names are made for no more layers than there can be.
    if config.num_hidden_layers > len(found):
        raise UserError(
            f"{source} does not hold the BERT that its configuration describes: that has {config.num_hidden_layers}"
            f" layers, and of a BERT there are {len(found)} tensors; copy weights and configuration again"
        )
    num_labels = _count_labels(table, shapes, found) if labels is None else len(labels)
    missing, other_shapes = _compare(table, shapes, found, config, num_labels)
    if missing["encoder"]:
        raise UserError(
            f"{source} does not hold the BERT that its configuration describes: it lacks tensors of the encoder"
            f" ({len(missing['encoder'])}, the first {missing['encoder'][0]}); copy weights and configuration again"
        )
    if other_shapes["encoder"]:
        shape = next(iter(other_shapes["encoder"].values()))
        raise UserError(f"{source}: {shape}; use weights and configuration of the same model")

    complete = {part for part in table.parts if not missing[part] and not other_shapes[part]}
    declared_class = table.our_class(declared_class)
    model_class = _choose_class(table, complete, declared_class)
    loaded = [
        name
        for part in table.parts_of(model_class)
        if part in complete
        for tensor in table.parts[part]
        for name in tensor.names(config.num_hidden_layers)
    ]
    # What is missing, or of another shape, is told of the class that was asked for.
    wanted_parts = dict.fromkeys(table.parts_of(declared_class or model_class) + table.parts_of(model_class))
    misshapen = {name: text for part in wanted_parts for name, text in other_shapes[part].items()}
    tied = [second for second, first in table.tied.items() if first in loaded]
    accounted = {*loaded, *misshapen, *tied}
    report = TensorReport(
        loaded=tuple(found[name] for name in loaded),
        missing=tuple(name for part in wanted_parts for name in missing[part]),
        unexpected=tuple(own_name for name, own_name in found.items() if name not in accounted),
        other_shapes=tuple(misshapen.values()),
    )
    if model_class not in CLASSIFIERS:
        labels = None
    elif labels is None:
        labels = tuple(f"LABEL_{index}" for index in range(num_labels))
    return Match(table, config, model_class, labels, report, found)


def _find(table: Table, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """The file's own names by the table's; names of no weights are left out."""
    found = {}
    for name in shapes:
        canonical = table.canonical_name(name)
        if canonical is not None:
            found[canonical] = name
    for second, first in table.tied.items():
        if first not in found and second in found:
            found[first] = found.pop(second)
    return found


def _count_labels(table: Table, shapes: Mapping[str, tuple[int, ...]], found: Mapping[str, str]) -> int:
    """How many labels the classifier of a file tells apart; 2 if there is none."""
    for tensor in table.parts.get("classifier", ()):
        shape = shapes[found[tensor.name]] if tensor.name in found else ()
        if tensor.ours[0].path == "classifier/bias" and shape:
            return shape[0]
    return 2


def _compare(
    table: Table,
    shapes: Mapping[str, tuple[int, ...]],
    found: Mapping[str, str],
    config: BertConfig,
    num_labels: int,
) -> tuple[dict[str, list[str]], dict[str, dict[str, str]]]:
    """For each part, the names of tensors that are not there; and of those of another shape, with a text about it."""
    sizes = axis_sizes(config, num_labels)
    missing: dict[str, list[str]] = {part: [] for part in table.parts}
    other_shapes: dict[str, dict[str, str]] = {part: {} for part in table.parts}
    for part, tensors in table.parts.items():
        for tensor in tensors:
            wanted = tensor.shape(sizes)
            for name in tensor.names(config.num_hidden_layers):
                if name not in found:
                    missing[part].append(name)
                elif shapes[found[name]] != wanted:
                    shape = f"{found[name]} has shape {shapes[found[name]]}, and the configuration asks for {wanted}"
                    other_shapes[part][name] = shape
    return missing, other_shapes


def _choose_class(table: Table, complete: set[str], declared: str | None) -> str:
    """The class whose parts are all there: the declared one, or else the first that fits."""
    listed = [name for name in MODEL_PARTS if name in table.class_names]
    fitting = [name for name in listed if complete.issuperset(table.parts_of(name))]
    # Published models that are called BertForMaskedLM often hold the next-sentence head too.
    if declared in fitting and not (declared == "BertForMaskedLM" and "BertForPreTraining" in fitting):
        return declared
    return fitting[0] if fitting else "BertModel"


def assemble(match: Match, read: Read) -> tuple[dict[str, Any], TensorReport]:
    """Puts the parameters together.

    Returns:
        A nested dict of float32 JAX arrays, the rows that pad the vocabulary zero; and the report, to which tensors
        that should equal another, and do not, are added as unexpected.

    Raises:
        UserError: a tensor that is taken holds NaN or infinity.
    """
    import jax.numpy as jnp

    from bert_jax.models.embeddings import padded_vocab_size

    loaded, sizes = set(match.report.loaded), match.sizes()
    flat: dict[str, Any] = {}
    for stored in match.table.tensors_of(match.model_class):
        own_names = [match.file_names.get(name) for name in stored.names(match.config.num_hidden_layers)]
        if not loaded.issuperset(own_names):
            continue  # The pooler of a BertModel that was saved without.
        stacks = []
        for tensor in stored.ours:
            rows, *others = tensor.shape(sizes)
            padded = padded_vocab_size(rows) if tensor.axes[0] == "vocabulary" else rows
            stacks.append(_aligned_zeros((stored.first_layer + len(own_names), padded, *others)))
            stacks[-1][: stored.first_layer] = 1
        for layer, name in enumerate(own_names, stored.first_layer):
            values = read(name)
            if not _is_finite(values):
                raise UserError(f"{name} holds numbers that are not finite: use another model")
            for stack, part in zip(stacks, stored.split(values, sizes), strict=True):
                stack[layer, : len(part)] = part
        for tensor, stack in zip(stored.ours, stacks, strict=True):
            flat[tensor.path] = jnp.asarray(stack if stored.is_stacked else stack[0])
    unexpected = (*match.report.unexpected, *_untied(match, read))
    return nest(flat), dataclasses.replace(match.report, unexpected=unexpected)


def _is_finite(values: np.ndarray) -> bool:
    """Whether no number is NaN or infinity, without another array of that size."""
    # The extremes are NaN where any number is; two passes that write nothing.
    return not values.size or bool(np.isfinite(values.min()) and np.isfinite(values.max()))


def _aligned_zeros(shape: tuple[int, ...]) -> np.ndarray:
    """Float32 zeros that begin where JAX wants its arrays to: on CPUs it then takes them as they are, uncopied."""
    size = math.prod(shape)
    buffer = np.zeros(size + _ALIGNMENT // 4, np.float32)
    first = -buffer.ctypes.data % _ALIGNMENT // 4
    return buffer[first : first + size].reshape(shape)


def _untied(match: Match, read: Read) -> Iterator[str]:
    for second, first in match.table.tied.items():
        if second in match.file_names and match.file_names.get(first) in match.report.loaded:
            name = match.file_names[second]
            if not np.array_equal(read(name), read(match.file_names[first])):
                yield f"{name} (differs from {match.file_names[first]}, whose numbers BERT uses in its place)"


def disassemble(
    parameters: dict[str, Any], table: Table, config: BertConfig, model_class: str
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the tensors of a file with their names, float32 and contiguous, without the vocabulary's padding.

    The parameters are taken out of the dict as they are used, so that memory does not hold the model twice; those that
    the format has no place for stay there.
    """
    for stored in table.tensors_of(model_class):
        leaves = [take(parameters, tensor.path) for tensor in stored.ours]
        if any(leaf is None for leaf in leaves):
            continue
        arrays = []
        for tensor, leaf in zip(stored.ours, leaves, strict=True):
            array = np.asarray(leaf, np.float32)
            rows = slice(config.vocab_size if tensor.axes[0] == "vocabulary" else None)
            arrays.append(array[stored.first_layer :] if stored.is_stacked else array[None, rows])
        for name, parts in zip(stored.names(config.num_hidden_layers), zip(*arrays, strict=True), strict=True):
            yield name, stored.join(parts)


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """A nested dict of leaves by path."""
    nested: dict[str, Any] = {}
    for path, leaf in flat.items():
        *outer, last = path.split("/")
        inner = nested
        for key in outer:
            inner = inner.setdefault(key, {})
        inner[last] = leaf
    return nested


def take(nested: dict[str, Any], path: str) -> Any:
    """Removes the leaf of that path and returns it, or None if there is none."""
    *outer, last = path.split("/")
    with contextlib.suppress(KeyError):
        for key in outer:
            nested = nested[key]
        return nested.pop(last)
    return None
