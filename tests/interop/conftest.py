"""Tiny models of every class with random weights, none of them zero, and a tokenizer for them."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bert_jax.config import BertConfig
from bert_jax.interop import huggingface
from bert_jax.interop.names import CLASSIFIERS, MODEL_PARTS
from bert_jax.models.embeddings import padded_vocab_size
from bert_jax.models.registry import build_model
from bert_jax.text.tokenizers import wrap_vocabulary
from bert_jax.training.initialization import paths

LABELS = ("negative", "neutral", "positive")


@dataclasses.dataclass(frozen=True)
class Example:
    """A model; `parameters()` makes a new dict of its parameters, always of the same numbers."""

    model_class: str
    config: BertConfig

    @property
    def labels(self) -> tuple[str, ...] | None:
        return LABELS if self.model_class in CLASSIFIERS else None

    def abstract(self) -> dict:
        return build_model(
            self.model_class, self.config, num_labels=len(self.labels) if self.labels else None
        ).abstract()

    def parameters(self) -> dict:
        random = np.random.default_rng(7)

        def fill(path, leaf):
            values = random.standard_normal(leaf.shape, np.float32)
            if leaf.shape[0] == padded_vocab_size(self.config.vocab_size):
                values[self.config.vocab_size :] = 0
            return values

        return jax.tree_util.tree_map_with_path(fill, self.abstract())

    def write(self, directory: pathlib.Path, tokenizer=None) -> pathlib.Path:
        """Writes it as a Hugging Face directory."""
        directory.mkdir(parents=True)
        huggingface.write_directory(directory, self.config, self.model_class, self.labels, self.parameters(), tokenizer)
        return directory


@pytest.fixture(scope="session")
def config() -> BertConfig:
    """All sizes differ, so that no axis can pass for another."""
    return BertConfig(
        vocab_size=37,
        hidden_size=12,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=20,
        max_position_embeddings=16,
        initializer_range=0.03,
        hidden_dropout_prob=0.2,
        layer_norm_eps=1e-7,
    )


@pytest.fixture(scope="session")
def example(config):
    """Makes the example of a class."""
    return lambda model_class="BertForPreTraining": Example(model_class, config)


@pytest.fixture(params=list(MODEL_PARTS))
def each_example(request, config) -> Example:
    """The example of every class in turn."""
    return Example(request.param, config)


@pytest.fixture(scope="session")
def same():
    """Whether two nested dicts hold the same arrays under the same names, bit for bit."""

    def compare(one: dict, other: dict) -> bool:
        one, other = paths(one), paths(other)
        return one.keys() == other.keys() and all(
            np.asarray(one[name]).dtype == np.asarray(other[name]).dtype == np.float32
            and np.array_equal(np.asarray(one[name]).view(np.uint32), np.asarray(other[name]).view(np.uint32))
            for name in one
        )

    return compare


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    """37 pieces, as many as the models have embeddings for."""
    file = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    file.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz012345"]))
    return wrap_vocabulary(file, cased=False)


@pytest.fixture
def edit():
    """Edits a Hugging Face directory: fields of config.json (None removes one), and the tensors in place."""

    def change(directory: pathlib.Path, fields: dict | None = None, tensors=None) -> pathlib.Path:
        file = directory / "config.json"
        content = {**json.loads(file.read_text()), **(fields or {})}
        file.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))
        if tensors is not None:
            weights = load_file(directory / "model.safetensors")
            save_file(tensors(weights) or weights, directory / "model.safetensors", metadata={"format": "pt"})
        return directory

    return change
