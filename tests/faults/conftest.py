"""The inputs of the verbs, made once."""

import pathlib

import pytest

from benchmarks.faults.verbs import make_inputs


@pytest.fixture(scope="package")
def inputs(tmp_path_factory) -> pathlib.Path:
    """The folder of `make_inputs`."""
    folder = tmp_path_factory.mktemp("inputs")
    make_inputs(folder)
    return folder
