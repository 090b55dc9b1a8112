"""Hugging Face directories: config.json, weights in safetensors (one file or shards), and a tokenizer's files.

Neither torch nor transformers is needed. What is written opens there by `from_pretrained`, and no weight is missing or
unexpected. A family of models, such as BERT, has a file of its own that says how it lies there.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from bert_jax.config import BertConfig
from bert_jax.durable_files import library_os_errors
from bert_jax.errors import UserError
from bert_jax.interop.bert import BERT
from bert_jax.interop.model_family import Family
from bert_jax.interop.modernbert import MODERNBERT
from bert_jax.interop.tensor_files import Match, disassemble, match_tensors
from bert_jax.text.files import is_file_name
from bert_jax.text.json_files import expect_type, read_json_object, show_json
from bert_jax.text.tokenizer import Tokenizer, write_json

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")

# A model is written as the first that can be its architecture.
FAMILIES = (BERT, MODERNBERT)

_FLOATS = ("F64", "F32", "F16", "BF16")

# Where a model that was converted keeps in its configuration what it was tuned for; others leave the entry alone.
_RECORD = "bert_jax"
# What transformers calls the kinds of answer of a classifier.
PROBLEM_TYPES = {
    "single": "single_label_classification",
    "multi": "multi_label_classification",
    "float": "regression",
}

# Bytes of what a file of weights says of its tensors, some hundred for each; a BERT of 24 layers has 400.
_LONGEST_HEADER = 8 << 20


class SafetensorsReader:
    """The tensors of one or several safetensors files.

    A file is mapped into memory anew for each tensor, so that the pages of those already read do not pile up.

    Attributes:
        shapes: of the floating-point tensors, by name.
    """

    def __init__(self, files: Mapping[str, pathlib.Path]):
        """Takes the file of each tensor."""
        self._files = files
        self.shapes: dict[str, tuple[int, ...]] = {}
        by_file: dict[pathlib.Path, list[str]] = {}
        for name, path in files.items():
            by_file.setdefault(path, []).append(name)
        for path, tensor_names in by_file.items():
            with _open(path) as file:
                absent = sorted(set(tensor_names) - set(file.keys()))
                if absent:
                    raise UserError(
                        f"{path} lacks {show_json(absent[0])}, which {INDEX_FILE} says it holds: copy both again"
                    )
                for name in tensor_names:
                    view = file.get_slice(name)
                    if view.get_dtype() in _FLOATS:
                        self.shapes[name] = tuple(view.get_shape())

    def read(self, name: str) -> np.ndarray:
        """Reads one tensor as float32."""
        import ml_dtypes  # noqa: F401, teaches numpy what bfloat16 is

        with _open(self._files[name]) as file:
            return file.get_tensor(name).astype(np.float32, copy=False)


def _open(path: pathlib.Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for who writes into it
            raise UserError(f"{path} is not a file: copy the model again")
        _check_header(path)
        return safe_open(path, framework="np")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; copy the model again") from error
    except SafetensorError as error:
        raise UserError(f"{path} is truncated or damaged ({error}): copy it again") from error


def _check_header(path: pathlib.Path) -> None:
    """Raises a UserError for a header longer than that of any BERT, which would take long to read."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
    # The library says so where it is longer than the file.
    if _LONGEST_HEADER < length < path.stat().st_size:
        raise UserError(
            f"{path} has a header of {length >> 20} MiB, and {_LONGEST_HEADER >> 20} MiB hold the names of more tensors"
            " than a BERT has: use another model"
        )


def is_directory_of(path: pathlib.Path) -> bool:
    """Whether a directory looks like a Hugging Face model, or would with its configuration."""
    return any((path / name).is_file() for name in (CONFIG_FILE, WEIGHTS_FILE, INDEX_FILE, *_PICKLED))


def open_directory(directory: pathlib.Path) -> tuple[Match, SafetensorsReader]:
    """Reads configuration and headers, no weights.

    Raises:
        UserError: the directory does not hold a model of one of FAMILIES, or not all of it.
    """
    path = directory / CONFIG_FILE
    fields = read_json_object(path)
    family = _family_of(path, fields)
    config = family.read_config(path, fields)
    files, source = _tensor_files(directory)
    reader = SafetensorsReader(files)
    declared = expect_type(fields.get("architectures"), list[str] | None, f"{path}: architectures")
    match = match_tensors(
        family.table,
        reader.shapes,
        config,
        str(source),
        declared_class=declared[0] if declared else None,
        labels=_labels(path, fields),
    )
    return match, reader


def _family_of(path: pathlib.Path, fields: Mapping[str, Any]) -> Family:
    model_type = fields.get("model_type", BERT.model_type)
    for family in FAMILIES:
        if family.model_type == model_type:
            return family
    known = " and ".join(family.name for family in FAMILIES)
    raise UserError(f"{path} describes a model of type {show_json(model_type)}: only {known} can be read")


def _tensor_files(directory: pathlib.Path) -> tuple[dict[str, pathlib.Path], pathlib.Path]:
    """Where each tensor lies, and the file that says so."""
    weights, index = directory / WEIGHTS_FILE, directory / INDEX_FILE
    if weights.is_file():
        with _open(weights) as file:
            return dict.fromkeys(file.keys(), weights), weights
    if index.is_file():
        weight_map = read_json_object(index).get("weight_map")
        if not isinstance(weight_map, dict) or not all(
            isinstance(shard, str) and is_file_name(shard) for shard in weight_map.values()
        ):
            raise UserError(f"{index} is damaged (weight_map does not name files beside it): copy it again")
        return {name: directory / shard for name, shard in weight_map.items()}, index
    for name in _PICKLED:
        if (directory / name).is_file():
            raise UserError(
                f"{directory / name} is pickled, and unpickling runs code: convert it where torch and transformers are"
                " installed, by AutoModel.from_pretrained(DIR).save_pretrained(NEW_DIR)"
            )
    raise UserError(f"{directory} has a {CONFIG_FILE} but no weights: neither {WEIGHTS_FILE} nor {INDEX_FILE}")


def _labels(path: pathlib.Path, fields: Mapping[str, Any]) -> tuple[str, ...] | None:
    place = f"{path}: id2label"
    by_id = expect_type(fields.get("id2label"), dict[str, str | float | bool] | None, place, "mend it")
    if by_id is None:
        return None
    try:
        labels = {int(index): str(label) for index, label in by_id.items()}
        return tuple(labels[index] for index in range(len(labels))) or None
    except (KeyError, ValueError) as error:
        raise UserError(f"{place} must name the labels 0, 1, 2 and so on: mend it") from error


def read_task(directory: pathlib.Path, model_class: str) -> dict[str, Any]:
    """Returns what a configuration says of the task that a model was tuned for.

    Args:
        directory: of the model.
        model_class: what its tensors make.

    Returns:
        `finetuning`, what a model of ours was tuned for, unless others saved it since with another head, without one,
        or with other labels; and `problem_type`, one of the values of PROBLEM_TYPES. Each only if it is there.

    Raises:
        UserError: what stands in the place of the record is not one.
    """
    path = directory / CONFIG_FILE
    fields = read_json_object(path)
    found = {}
    if fields.get("problem_type") in PROBLEM_TYPES.values():
        found["problem_type"] = fields["problem_type"]
    record = expect_type(fields.get(_RECORD), dict | None, f"{path}: {_RECORD}") or {}
    finetuning = expect_type(record.get("finetuning"), dict | None, f"{path}: {_RECORD}.finetuning")
    written_class = expect_type(record.get("model_class"), str | None, f"{path}: {_RECORD}.model_class")
    if finetuning is not None and written_class == model_class:
        place = f"{path}: {_RECORD}.finetuning.labels"
        labels = tuple(expect_type(finetuning.get("labels"), list[str] | None, place) or ()) or None
        if _written_labels(finetuning, labels) == _labels(path, fields):
            found["finetuning"] = finetuning
    return found


def _written_labels(finetuning: Mapping[str, Any], labels: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Returns the labels with one for a number or a choice's score: without names there are two for transformers."""
    is_number = finetuning.get("kind") == "float" or "num_choices" in finetuning
    return ("LABEL_0",) if is_number else labels


def family_to_write(config: BertConfig, model_class: str) -> tuple[Family, str]:
    """Returns the family as which a model can be written, and the class: of ours, and without a head or two perhaps.

    Raises:
        UserError: there is none; says what each family lacks.
    """
    reasons = []
    for family in FAMILIES:
        lacking = family.lacks(config)
        written_class = family.written_class(model_class)
        if not lacking and written_class is not None:
            return family, written_class
        reasons.append(f"{family.name} has no {', '.join(lacking) or f'head like that of a {model_class}'}")
    raise UserError(f"Hugging Face's {'; its '.join(reasons)}: keep this model in the format bert_jax")


def write_directory(
    directory: pathlib.Path,
    config: BertConfig,
    model_class: str,
    labels: tuple[str, ...] | None,
    parameters: dict[str, Any],
    tokenizer: Tokenizer | None,
    task: Mapping[str, Any] | None = None,
) -> None:
    """Writes a model for `from_pretrained`.

    Args:
        directory: exists.
        config: the architecture, one that a family has (see `family_to_write`).
        model_class: its class.
        labels: of a classifier.
        parameters: used up: they are taken out of the dict as they are written. Those that the family has no place for
            are left there.
        tokenizer: its files are written too, unless None.
        task: what `read_task` is to find.
    """
    from safetensors.numpy import save_file

    family, model_class = family_to_write(config, model_class)
    fields: dict[str, Any] = {
        "architectures": [family.table.class_names[model_class]],
        "model_type": family.model_type,
        **family.write_config(config, tokenizer),
        "dtype": "float32",
    }
    task = task or {}
    finetuning, problem_type = task.get("finetuning"), task.get("problem_type")
    if finetuning is not None:
        fields[_RECORD] = {"model_class": model_class, "finetuning": dict(finetuning)}
        labels = _written_labels(finetuning, labels)
        problem_type = PROBLEM_TYPES.get(finetuning.get("kind"))
    if problem_type is not None:
        fields["problem_type"] = problem_type
    if labels is not None:
        fields["id2label"] = {str(index): label for index, label in enumerate(labels)}
        fields["label2id"] = {label: index for index, label in enumerate(labels)}
    write_json(directory / CONFIG_FILE, fields)
    tensors = dict(disassemble(parameters, family.table, config, model_class))
    if model_class == "BertModel":
        # The class itself is saved without the prefix that it has inside the others.
        tensors = {name.removeprefix(family.table.prefix): array for name, array in tensors.items()}
    with library_os_errors():
        save_file(tensors, directory / WEIGHTS_FILE, metadata={"format": "pt"})
    if tokenizer is not None:
        write_tokenizer(tokenizer, directory)
        family.finish_tokenizer(directory)


def write_tokenizer(tokenizer: Tokenizer, directory: pathlib.Path) -> None:
    """Saves a tokenizer's files into a directory that holds other files already."""
    apart = directory / "tokenizer_files"
    tokenizer.save(apart)
    for path in apart.iterdir():
        path.rename(directory / path.name)
    apart.rmdir()
