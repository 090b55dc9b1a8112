"""Labels as files write them, the set of labels of a task, and few-shot samples with so many examples of each."""

import collections
import json
import math
import random
from collections.abc import Iterable, Sequence

from bert_jax.errors import UserError
from bert_jax.tasks.examples.example_types import TextExample
from bert_jax.text.json_files import JsonError, json_kind, parse_json

# Several labels, a number, or no labels wanted.
KINDS = ("single", "multi", "float", "none")
_LARGEST = 1e18  # whose square is still a number in single precision
_NAMED = 20  # labels that a message lists


def parse_label(value, kind: str, separator: str) -> str | float | tuple[str, ...]:
    """Returns the label that a field holds.

    Names stay as they are written, without the spaces around them. In JSON the numbers 1 and 1.0 are the name "1", true
    is "true". Several labels are a JSON list (in CSV and TSV too) or names between separators; an empty field, an
    empty list and null are no label at all, and a label that is repeated counts once.

    Args:
        value: a string, or any JSON value.
        kind: "single", "multi" or "float".
        separator: what stands between several labels.

    Raises:
        ValueError: the field holds no such label; the message is the reason.
    """
    if kind == "single":
        return _name(value)
    if kind == "float":
        return _number(value)
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = parse_json(value)
        except JsonError:
            raise ValueError(f"the labels {value!r} begin like a JSON list and are none") from None
    if value is None:
        return ()
    if isinstance(value, str):
        value = [part for part in value.split(separator) if part.strip()]
    if not isinstance(value, list):
        raise ValueError(f"the labels are {json_kind(value)}, neither a list nor names between {separator!r}")
    return tuple(dict.fromkeys(_name(part) for part in value))


def _name(value) -> str:
    if isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float) and not math.isfinite(value):
        # What pandas writes for a label that is missing.
        raise ValueError(f"the label is {value}, no name")
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int | float):
        return str(value)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise ValueError("the label is empty")
    if not isinstance(value, str):
        raise ValueError(f"the label is {json_kind(value)}; for several labels pass --labels=multi")
    return value.strip()


def _number(value) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"the label is {json_kind(value)}, not a number")
    try:
        # float() reads 1_000 too, which no file means.
        number = math.nan if isinstance(value, str) and "_" in value else float(value)
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"the label {value!r} is not a finite number" if value != "" else "the label is empty")
    if abs(number) > _LARGEST:
        raise ValueError(f"the label {value!r} is too large to compute with: scale the numbers")
    return number


def collect_labels(examples: Iterable[TextExample], given: Sequence[str] | None = None) -> tuple[str, ...]:
    """Returns the labels of the training examples: in order of size if all are numbers, else in order of the alphabet.

    Args:
        examples: the training examples, each with one label or several.
        given: the labels that the user lists, in the order to keep.

    Raises:
        UserError: there are fewer than two labels to tell apart (with several labels an example: none), or a label is
            given twice or alone.
    """
    if given is not None:
        twice = [label for label, count in collections.Counter(given).items() if count > 1]
        if twice:
            raise UserError(f"--labels names {twice[0]!r} twice")
        if len(given) < 2:
            raise UserError(f"--labels names {given[0]!r} alone: nothing is to be learnt from one label")
        return tuple(given)
    found: set[str] = set()
    several = False
    for example in examples:
        several |= isinstance(example.label, tuple)
        found.update(_labels_of(example))
    if not found:
        raise UserError("no training example has a label")
    if len(found) == 1 and not several:
        raise UserError(
            f"every training example has the label {next(iter(found))!r:.60}: nothing is to be learnt from them"
        )
    return tuple(sorted(found, key=_order(found)))


def unknown_label(example: TextExample, labels: Sequence[str]) -> str | None:
    """Says of a label of the example that it is not among the task's; None if all are."""
    label = next((label for label in _labels_of(example) if label not in labels), None)
    if label is None:
        return None
    more = f" and {len(labels) - _NAMED} more" if len(labels) > _NAMED else ""
    return f"the label {label!r} is not among those of training, or of --labels ({', '.join(labels[:_NAMED])}{more})"


def few_shot(examples: Iterable[TextExample], per_label: int, seed: int) -> tuple[list[TextExample], list[str]]:
    """Returns the same number of examples of every label, drawn at random, in the order of the file.

    Examples with several labels are drawn by the set of their labels. The draw of one label depends neither on the
    other labels nor on their examples.

    Args:
        examples: labelled examples.
        per_label: examples of each label.
        seed: decides the draw.

    Returns:
        The examples, and lines for people: which labels have fewer than asked.

    Raises:
        UserError: `per_label` is not positive, or the labels are numbers.
    """
    if per_label < 1:
        raise UserError(f"cannot take {per_label} examples of each label: give a number from 1")
    examples = list(examples)
    places: dict[str, list[int]] = {}
    for at, example in enumerate(examples):
        if isinstance(example.label, float):
            raise UserError("few-shot samples need labels to sample by, and regression has none: leave the flag out")
        places.setdefault(" + ".join(sorted(_labels_of(example))) or "no label", []).append(at)
    remarks = []
    chosen: list[int] = []
    for label in sorted(places, key=_order(places)):
        there = places[label]
        if len(there) < per_label:
            plural = "" if len(there) == 1 else "s"
            remarks.append(f"label {label!r} has {len(there)} example{plural}, {per_label} were asked for")
        # A string seeds Python's generator by its SHA-512, the same in every process.
        chosen += random.Random(f"{seed}/{label}").sample(there, min(per_label, len(there)))
    return [examples[at] for at in sorted(chosen)], remarks


def _labels_of(example: TextExample) -> tuple[str, ...]:
    if example.label is None:
        return ()
    return example.label if isinstance(example.label, tuple) else (example.label,)


def _order(labels: Iterable[str]):
    """Returns a sorting key: numbers by size, if all labels are numbers."""
    try:
        numbers = {label: float(label) for label in labels}
    except ValueError:
        return lambda label: label
    if not all(map(math.isfinite, numbers.values())):
        return lambda label: label
    return lambda label: (numbers[label], label)
