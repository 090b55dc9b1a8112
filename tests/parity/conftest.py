"""Golden models, read by bert_jax from the directories that transformers wrote, and what transformers computed."""

import functools
import importlib.util
import json
import pathlib
import shutil
import types
from typing import Any, NamedTuple

import numpy as np
import pytest

from bert_jax.config import BertConfig
from bert_jax.interop.pretrained import open_pretrained
from bert_jax.models.parameters import Functional
from bert_jax.models.registry import build_model

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden"


class GoldenModel(NamedTuple):
    """A model that was read, as functions, its parameters and its architecture."""

    functions: Functional
    parameters: dict[str, Any]
    config: BertConfig


@pytest.fixture(scope="session")
def golden() -> pathlib.Path:
    """The folder that tests/golden/make_golden.py fills."""
    return GOLDEN


@pytest.fixture(scope="session")
def inputs() -> types.ModuleType:
    """The module that makes what the golden results were computed on."""
    spec = importlib.util.spec_from_file_location("golden_inputs", GOLDEN / "golden_inputs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def read_model(tmp_path_factory):
    """Reads a golden model by class and activation, Hugging Face's name of it."""

    @functools.cache
    def read(model_class: str, hidden_act: str = "gelu") -> GoldenModel:
        directory = GOLDEN / model_class
        if hidden_act != "gelu":
            # The weights are the same for both activations; a word of the configuration differs.
            directory = tmp_path_factory.mktemp("golden") / model_class
            shutil.copytree(GOLDEN / model_class, directory)
            fields = json.loads((directory / "config.json").read_text())
            (directory / "config.json").write_text(json.dumps({**fields, "hidden_act": hidden_act}))
        pretrained = open_pretrained(directory)
        assert pretrained.model_class == model_class
        parameters = pretrained.load_parameters()
        assert not (pretrained.report.missing or pretrained.report.unexpected or pretrained.report.other_shapes)
        num_labels = len(pretrained.labels) if pretrained.labels else None
        functions = build_model(model_class, pretrained.config, num_labels=num_labels)
        return GoldenModel(functions, parameters, pretrained.config)

    return read


@pytest.fixture(scope="session")
def read_results():
    """Reads golden results by the name of their file."""

    @functools.cache
    def read(name: str) -> dict[str, np.ndarray]:
        with np.load(GOLDEN / f"{name}.npz") as archive:
            return dict(archive)

    return read
