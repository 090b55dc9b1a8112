"""A family of models, such as BERT: all that it takes to open and to write it as Hugging Face's directories."""

import dataclasses
import pathlib
from collections.abc import Callable, Container, Mapping
from typing import Any

from bert_jax.config import BertConfig
from bert_jax.interop.names import MODEL_PARTS, Table
from bert_jax.text.tokenizer import Tokenizer

# gelu_new and gelu_pytorch_tanh are the same function; gelu_new is the name that every version of transformers knows.
ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "silu": "silu"}
ACTIVATION_NAMES = {"gelu": "gelu", "gelu_tanh": "gelu_new", "silu": "silu"}

# A model answers well without these, which help in pre-training alone.
_DISPENSABLE_PARTS = ("pooler", "next_sentence")


@dataclasses.dataclass(frozen=True)
class Family:
    """Architectures with one `model_type`.

    Attributes:
        name: as people call it.
        model_type: as config.json calls it.
        table: the tensors.
        options: the fields of BertConfig that are options, with the values that the family can be.
        read_config: makes a BertConfig of config.json, given its path, for messages, and its fields; a UserError says
            what ours cannot be.
        write_config: makes fields of config.json, all that are about the architecture and the tokenizer, if there is
            one.
        finish_tokenizer: changes the files of a tokenizer, given their directory, where the models need others.
    """

    name: str
    model_type: str
    table: Table
    options: Mapping[str, Container[Any]]
    read_config: Callable[[pathlib.Path, Mapping[str, Any]], BertConfig]
    write_config: Callable[[BertConfig, Tokenizer | None], dict[str, Any]]
    finish_tokenizer: Callable[[pathlib.Path], None] = lambda directory: None

    def lacks(self, config: BertConfig) -> list[str]:
        """The options of an architecture that the family does not have, as NAME=VALUE."""
        values = {name: getattr(config, name) for name in self.options}
        return [f"{name}={value!r}" for name, value in values.items() if value not in self.options[name]]

    def written_class(self, model_class: str) -> str | None:
        """Returns as which of our classes a model is written: itself, or the one that holds most of its parts.

        None if a part would be left out that the model is of no use without.
        """
        own = MODEL_PARTS[model_class]
        within = {name: self.table.parts_of(name) for name in self.table.class_names}
        fitting = {name: parts for name, parts in within.items() if set(parts) <= set(own)}
        written = max(fitting, key=lambda name: (name == model_class, len(fitting[name])))
        return written if set(own) - set(fitting[written]) <= set(_DISPENSABLE_PARTS) else None
