"""The fixtures of the launchers' tests, and a run that goes through two phases."""

import importlib.util
import pathlib

import pytest

_path = pathlib.Path(__file__).parents[1] / "launch" / "conftest.py"
_specification = importlib.util.spec_from_file_location("launch_fixtures", _path)
_fixtures = importlib.util.module_from_spec(_specification)
_specification.loader.exec_module(_fixtures)

small_data = _fixtures.small_data
pretrain_arguments = _fixtures.pretrain_arguments
pretrain = _fixtures.pretrain
read_log = _fixtures.read_log
finished_run = _fixtures.finished_run


@pytest.fixture
def signal_at(monkeypatch):
    """Sends this process a signal when the line of a step has been written to the log."""
    import os

    from bert_jax.training.metric_writers import MetricWriter

    def arrange(step: int, number: int) -> None:
        write = MetricWriter.write

        def write_and_signal(self, at: int, split: str, values) -> None:
            write(self, at, split, values)
            if at == step and split == "train":
                os.kill(os.getpid(), number)

        monkeypatch.setattr(MetricWriter, "write", write_and_signal)

    yield arrange
