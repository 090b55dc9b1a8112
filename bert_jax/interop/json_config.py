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

# The fields whose names are everyone's.
SHARED_FIELDS = (
    *_REQUIRED,
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "max_position_embeddings",
    "type_vocab_size",
    "initializer_range",
    "layer_norm_eps",
)


def bert_config(path: pathlib.Path, fields: Mapping[str, Any], activations: Mapping[str, str]) -> BertConfig:
    """Makes a BertConfig of another's fields.

    Args:
        path: where they come from, for messages.
        fields: what the file holds; fields of no meaning here are ignored.
        activations: our name of each activation that the format knows and we have.

    Raises:
        UserError: a size is missing, or a value is none that a BERT of ours can have.
    """
    absent = [name for name in _REQUIRED if fields.get(name) is None]
    if absent:
        raise UserError(f"{path} has no {', '.join(absent)}: it is not the configuration of a BERT")
    activation = fields.get("hidden_act", "gelu")
    if activation not in tuple(activations):
        known = ", ".join(sorted(activations))
        raise UserError(
            f"{path}: hidden_act is {show_json(activation)}, and a BERT here has one of {known}: use another model"
        )
    try:
        shared = {name: fields[name] for name in SHARED_FIELDS if name in fields}
        return BertConfig(**shared, hidden_act=activations[activation])
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def shared_fields(config: BertConfig) -> dict[str, Any]:
    """The fields of a configuration whose names are everyone's."""
    fields = dataclasses.asdict(config)
    return {name: fields[name] for name in SHARED_FIELDS}
