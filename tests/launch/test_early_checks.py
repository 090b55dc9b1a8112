"""Meshes that do not fit, and what cannot be frozen: said before any data are read, and before there is a folder."""

import json

import pytest
from jax.sharding import AbstractMesh

from bert_jax.errors import UserError
from bert_jax.parallel.mesh_spec import AXES
from launch.finetune import main as finetune
from launch.run_folder import RunFolder

_FOUR_DEVICES = AbstractMesh((4, 1, 1), AXES)
_WRONG = {
    "devices": (["--mesh=data:3"], "--mesh=data:3 needs 3 devices, and there are 1"),
    "heads": (["--mesh=data:-1,tensor:3"], "attention heads do not divide over it"),
    "pattern": (["--gin_param=finetune.frozen=['*/no_such/*']"], "'*/no_such/*' fits no parameter"),
    "layers": (["--gin_param=finetune.frozen_layers=9"], "frozen_layers must be from 0 to the model's 3, not 9"),
    "everything": (["--gin_param=finetune.frozen=['*']"], "nothing is left to train"),
    "head of a layer": (
        ["--gin_param=finetune.auxiliary_layers=[1]", "--gin_param=finetune.frozen=['layer_heads/layer_2/*']"],
        "'layer_heads/layer_2/*' fits no parameter",
    ),
}


@pytest.fixture
def unread(monkeypatch):
    """Fails the test where examples are read."""

    def read(*_):
        pytest.fail("the data are read")

    monkeypatch.setattr("launch.finetuning_files._read_all", read)


@pytest.fixture
def refused(tmp_path, repository_root, capsys, unread):
    """Runs launch.finetune; returns its line, once there is no folder."""

    def call(*arguments):
        workdir = tmp_path / "run"
        model = f"--init_from={repository_root / 'tests' / 'golden' / 'BertModel'}"
        assert finetune(["finetune", model, f"--workdir={workdir}", "--max_seq_len=16", *arguments]) == 2
        assert not workdir.exists()
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return call


@pytest.fixture
def tasks_file(tmp_path):
    path = tmp_path / "tasks.json"
    tasks = {
        name: {"task": task, "train": "x", "dev": "x"} for name, task in (("a", "classification"), ("b", "tagging"))
    }
    path.write_text(json.dumps(tasks))
    return path


@pytest.mark.parametrize("wrong", _WRONG)
def test_one_task(refused, wrong):
    arguments, message = _WRONG[wrong]
    assert message in refused("--train=x", "--dev=x", *arguments)


@pytest.mark.parametrize("wrong", ["devices", "heads", "pattern", "layers", "everything"])
def test_several_tasks(refused, tasks_file, wrong):
    arguments, message = _WRONG[wrong]
    assert message in refused(f"--tasks={tasks_file}", *arguments)


@pytest.mark.parametrize("wrong", ["devices", "pattern"])
def test_a_sweep(refused, wrong):
    arguments, message = _WRONG[wrong]
    assert message in refused("--train=x", "--dev=x", "--seeds=2", *arguments)


def test_names_of_all_tasks_and_heads_are_known(tmp_path, refused, tasks_file, monkeypatch):
    """Patterns that fit lead on to the data."""
    kept = ("tasks/a/classifier/*", "tasks/b/classifier/*", "bert/pooler/*", "bert/embeddings/*")
    with pytest.raises(pytest.fail.Exception, match="the data are read"):
        refused(f"--tasks={tasks_file}", f"--gin_param=finetune.frozen={list(kept)}")
    own = ("span/*", "masked_lm/*")
    with pytest.raises(pytest.fail.Exception, match="the data are read"):
        refused(
            "--task=question_answering",
            "--train=x",
            "--dev=x",
            "--gin_param=finetune.mlm_weight=0.1",
            f"--gin_param=finetune.frozen={list(own)}",
        )


@pytest.mark.parametrize("sweep", [[], ["--seeds=2"]])
def test_batches_that_do_not_divide(refused, monkeypatch, sweep):
    for module in ("mesh_flags", "finetuning_sweep"):
        monkeypatch.setattr(f"launch.{module}.make_mesh_from_flags", lambda values: _FOUR_DEVICES)
    line = refused("--train=x", "--dev=x", "--batch_size=6", *sweep)
    assert "(6) does not divide over 4 devices" in line


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"mesh": "data:3"}, "--mesh=data:3 needs 3 devices, and there are 1"),
        ({"mesh": "data:-1,tensor:3"}, "attention heads do not divide over it"),
    ],
)
def test_pretraining_leaves_no_folder(tmp_path, pretrain, capsys, flags, message):
    assert pretrain(tmp_path / "run", **flags) == 2
    assert not (tmp_path / "run").exists()
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_folder_that_was_made_is_taken_away_unless_it_holds_anything(tmp_path):
    (tmp_path / "there").mkdir()
    for name, is_kept in (("there", True), ("parents/empty", False), ("used", True)):
        path = tmp_path / name
        with pytest.raises(UserError), RunFolder(path, None, {}).made():
            assert path.is_dir()
            if name == "used":
                (path / "run.json").touch()
            raise UserError("it cannot begin")
        assert path.exists() == is_kept


def test_one_of_several_processes_asks_for_no_devices(monkeypatch, refused):
    """A process must meet the others first; heads need no devices."""

    def devices(values):
        pytest.fail("devices were asked for")

    monkeypatch.setattr("launch.mesh_flags.make_mesh_from_flags", devices)
    several = ("--train=x", "--dev=x", "--coordinator=localhost:1", "--num_processes=2", "--process_id=0")
    assert "attention heads" in refused(*several, "--mesh=data:-1,tensor:3")
    with pytest.raises(pytest.fail.Exception, match="the data are read"):
        refused(*several, "--mesh=data:3", "--gin_param=finetune.frozen=['no_such']")
