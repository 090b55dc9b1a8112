"""Configurations that others keep as JSON, read as a BertConfig."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from bert_jax.config import BertConfig
from bert_jax.errors import UserError
from bert_jax.text.json_files import show_json

# What decides shapes and is never left to a default.
_REQUIRED = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")

# The fields that every format has, most of them under the same names.
SHARED_FIELDS = (
    *_REQUIRED,
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "max_position_embeddings",
    "type_vocab_size",
    "initializer_range",
    "layer_norm_eps",
)
_ACTIVATION = "hidden_act"
_SAME_NAMES: Mapping[str, str] = {}


def bert_config(
    path: pathlib.Path,
    fields: Mapping[str, Any],
    activations: Mapping[str, str],
    names: Mapping[str, str] = _SAME_NAMES,
    **options: Any,
) -> BertConfig:
    """Makes a BertConfig of another's fields.

    Args:
        path: where they come from, for messages.
        fields: what the file holds; fields of no meaning here are ignored.
        activations: our name of each activation that the format knows and we have.
        names: the format's names of our fields, where they differ.
        **options: fields of the BertConfig that the format says in a way of its own.

    Raises:
        UserError: a size is missing, or a value is none that a BERT of ours can have.
    """
    absent = [name for name in _REQUIRED if fields.get(name) is None]
    if absent:
        raise UserError(f"{path} has no {', '.join(absent)}: it is not the configuration of a BERT")
    place = names.get(_ACTIVATION, _ACTIVATION)
    activation = fields.get(place, "gelu")
    if activation not in tuple(activations):
        known = ", ".join(sorted(activations))
        raise UserError(
            f"{path}: {place} is {show_json(activation)}, and a BERT here has one of {known}: use another model"
        )
    try:
        theirs = {name: names.get(name, name) for name in SHARED_FIELDS}
        shared = {name: fields[place] for name, place in theirs.items() if place in fields}
        return BertConfig(**{**shared, **options}, hidden_act=activations[activation])
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def shared_fields(config: BertConfig, names: Mapping[str, str] = _SAME_NAMES) -> dict[str, Any]:
    """The fields of a configuration that every format has, under the format's names; see `bert_config`."""
    fields = dataclasses.asdict(config)
    return {names.get(name, name): fields[name] for name in SHARED_FIELDS}
