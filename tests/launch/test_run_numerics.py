"""A run goes on with the numerics that it was begun with; a new one has the latest, and both are recorded."""

import json
import shutil

import pytest

from bert_jax.numerics import Numerics
from bert_jax.training.saved_models import open_model

_FROZEN = ("finetune.frozen_layers=2", "finetune.frozen=['bert/pooler/*']", "finetune.evaluations_per_epoch=2")


@pytest.fixture(scope="module")
def tune(tmp_path_factory, repository_root, finetuning):
    table = tmp_path_factory.mktemp("numerics") / "table.csv"
    table.write_text("text,label\n" + "bob fed al,no\nkala is in mu,yes\n" * 8)
    model = repository_root / "tests" / "golden" / "BertModel"
    flags = {"train": table, "dev": table, "init_from": model, "epochs": 1, "batch_size": 4, "max_seq_len": 16}
    return finetuning(*_FROZEN, "finetune.keep_checkpoints=2", **flags)


@pytest.fixture(scope="module")
def new_run(tmp_path_factory, tune):
    """Four steps, with checkpoints after two and four; not to be changed."""
    workdir = tmp_path_factory.mktemp("new") / "run"
    assert tune(workdir) == 0
    return workdir


def identity(workdir):
    return json.loads((workdir / "run.json").read_text())


def moments(workdir):
    """The parameters that a checkpoint has moments of."""
    return {name.partition("/mu/")[2] for name in open_model(workdir).run["checksums"] if "/mu/" in name}


@pytest.fixture(scope="module")
def old_run(tmp_path_factory, tune):
    """The same run as a version of before there were numerics began it; not to be changed."""
    workdir = tmp_path_factory.mktemp("old") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Numerics, "of_run", lambda *_: Numerics(0))
        assert tune(workdir) == 0
    return workdir


def test_a_new_run_keeps_no_state_of_what_is_frozen_and_says_so(new_run):
    assert identity(new_run)["numerics"] == open_model(new_run).run["identity"]["numerics"] == 1
    kept = moments(new_run)
    assert kept and not any(name.startswith(("bert/embeddings/", "bert/pooler/")) for name in kept)


def test_a_run_begun_before_keeps_state_of_what_is_frozen_and_learns_the_same(old_run, new_run, read_log):
    before = {name: value for name, value in identity(new_run).items() if name != "numerics"}
    assert identity(old_run) == open_model(old_run).run["identity"] == before
    checksums = open_model(old_run).run["checksums"]
    parameters = {name.removeprefix("params/") for name in checksums if name.startswith("params/")}
    assert moments(old_run) == parameters > moments(new_run)
    assert read_log(old_run) == read_log(new_run)


@pytest.mark.parametrize("age", ["old", "new"])
def test_each_is_resumed_with_what_it_was_begun_with(tmp_path, tune, age, request, read_log, capsys):
    run = request.getfixturevalue(f"{age}_run")
    workdir = tmp_path / "run"
    shutil.copytree(run, workdir)
    shutil.rmtree(workdir / "checkpoints" / "4")
    capsys.readouterr()
    assert tune(workdir) == 0
    assert "resuming from step 2" in capsys.readouterr().out
    assert read_log(workdir) == read_log(run)
    assert moments(workdir) == moments(run)
    assert identity(workdir) == open_model(workdir).run["identity"] == identity(run)


def test_a_run_without_a_checkpoint_begins_with_the_latest(tmp_path, tune, old_run, new_run):
    workdir = tmp_path / "run"
    workdir.mkdir()
    shutil.copy(old_run / "run.json", workdir)
    assert tune(workdir) == 0
    assert identity(workdir) == identity(new_run)


def test_a_run_of_a_newer_version_is_refused_in_one_line(tmp_path, tune, new_run, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(new_run, workdir)
    (workdir / "run.json").write_text(json.dumps({**identity(new_run), "numerics": 99}))
    assert tune(workdir) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"error: the run in {workdir} was begun by a newer bert_jax") and line.count("\n") == 1


def test_a_sweep_goes_on_with_runs_begun_before(tmp_path, tune, new_run, capsys):
    assert tune(tmp_path / "sweep", seeds=1) == 0
    (path,) = (tmp_path / "sweep").glob("*/run.json")
    path.write_text(
        json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != "numerics"})
    )
    capsys.readouterr()
    assert tune(tmp_path / "sweep", seeds=1) == 0
    assert "1 of 1 runs are finished already" in capsys.readouterr().out
