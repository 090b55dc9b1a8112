"""A run goes on wherever its folder, or the model that it began with, has come to; without a checkpoint it begins."""

import json
import shutil

import pytest

from bert_jax.training.run_identity import read_identity
from launch.predict import main as predict
from launch.run_folder import model_to_describe, noted_source


@pytest.mark.parametrize("problem", ["missing", "emptied", "half", "of another kind"])
def test_run_json_is_restored_from_a_checkpoint(tmp_path, capsys, pretrain, finished_run, problem):
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    path = run / "run.json"
    if problem == "missing":
        path.unlink()
    else:
        path.write_text({"emptied": "", "half": path.read_text()[:100], "of another kind": "[1]"}[problem])
    capsys.readouterr()
    assert pretrain(run, "pretrain.seed = 5") == 2
    assert "pretrain.seed is 5, but the run in" in capsys.readouterr().err
    assert pretrain(run) == 0
    output = capsys.readouterr().out
    assert f"{path} is {'missing' if problem == 'missing' else 'damaged'}: checkpoint 12 says what the run is" in output
    assert read_identity(run) == read_identity(finished_run)


def test_without_a_checkpoint_a_run_may_begin_with_another_batch_size(tmp_path, capsys, pretrain, read_log):
    """As after a first try that ran out of memory."""
    assert pretrain(tmp_path / "wanted", "pretrain.batch_size = 2") == 0
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(tmp_path / "wanted/metrics.jsonl", run)
    identity = read_identity(tmp_path / "wanted")
    (run / "run.json").write_text(json.dumps({**identity, "pretrain.batch_size": 64, "numerics": 0}))
    (run / "checkpoints").mkdir()
    capsys.readouterr()
    assert pretrain(run, "pretrain.batch_size = 2") == 0
    output = capsys.readouterr().out
    assert "has no checkpoint yet: it begins again, with another pretrain.batch_size, numerics" in output
    assert read_identity(run) == identity and read_log(run) == read_log(tmp_path / "wanted")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for name, count in (("train", 12), ("dev", 6)):
        rows = [f"{word} kera losa,{word == 'bana'}" for word in ["bana", "mita", "tula"] * (count // 3)]
        (folder / f"{name}.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    return folder


@pytest.fixture(scope="module")
def tune(finetuning, files):
    """Fine-tunes for three steps; `init_from` and the workdir are to be given."""
    return finetuning(
        "finetune.keep_checkpoints=9",
        "finetune.padded_lengths=1",
        train=files / "train.csv",
        dev=files / "dev.csv",
        epochs=1,
        batch_size=4,
        max_seq_len=16,
    )


def _go_back(run, step: int) -> None:
    for checkpoint in (run / "checkpoints").iterdir():
        if int(checkpoint.name) > step:
            shutil.rmtree(checkpoint)


def test_a_run_goes_on_without_the_model_that_it_began_with(tmp_path, capsys, finished_run, tune, read_log, files):
    """Left out, gone, moved or reached by another path; another model is refused."""
    base, run = tmp_path / "base", tmp_path / "run"
    shutil.copytree(finished_run / "checkpoints/12", base)
    each_epoch = "finetune.evaluations_per_epoch=3"
    assert tune(run, each_epoch, init_from=base) == 0
    whole = read_log(run)

    (tmp_path / "link").symlink_to(base)
    (tmp_path / "a").mkdir()
    shutil.copytree(base, tmp_path / "other")
    capsys.readouterr()
    _go_back(run, 1)
    assert tune(run, each_epoch, init_from=tmp_path / "other") == 2
    error = capsys.readouterr().err
    assert "is for new runs" in error and f"one that began with {base}, not {tmp_path}/other: leave it out" in error

    for init_from in (tmp_path / "link", tmp_path / "a/../base", None):
        _go_back(run, 1)
        assert tune(run, each_epoch, init_from=init_from) == 0
        output = capsys.readouterr().out
        assert "resuming from step 1" in output and (init_from is None or "is not read" in output)
        assert read_log(run) == whole

    base.rename(tmp_path / "moved")
    for init_from in (base, tmp_path / "moved", None):
        _go_back(run, 1)
        assert tune(run, each_epoch, init_from=init_from) == 0
        assert "resuming from step 1" in capsys.readouterr().out and read_log(run) == whole

    shutil.rmtree(tmp_path / "moved")
    run.rename(tmp_path / "elsewhere")
    _go_back(tmp_path / "elsewhere", 2)
    assert tune(tmp_path / "elsewhere", each_epoch) == 0 and read_log(tmp_path / "elsewhere") == whole
    assert (
        predict(["predict", f"--model={tmp_path}/elsewhere", f"--input={files}/dev.csv", f"--output={tmp_path}/out"])
        == 0
    )


def test_a_new_run_needs_its_model(tmp_path, capsys, tune):
    for init_from, message in ((None, "--init_from is missing"), (tmp_path / "gone", "no model at")):
        assert tune(tmp_path / "run", init_from=init_from) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_that_began_with_random_weights(tmp_path, capsys, small_data, tune, read_log):
    """Its architecture may be said again or left out; another one is another run."""
    tokenizer = f"{small_data.rows_32}/tokenizer"
    random = {"init_from": "none", "tokenizer": tokenizer, "gin_file": "gin_configs/finetune/classification.gin"}
    tiny = [f"BertConfig.{name}={size}" for name, size in (("hidden_size", 16), ("num_attention_heads", 2))]
    tiny += ["BertConfig.num_hidden_layers=1", "BertConfig.intermediate_size=16", "finetune.evaluations_per_epoch=3"]
    run = tmp_path / "run"
    assert tune(run, *tiny, **random) == 0
    whole = read_log(run)
    for bindings, flags in ((tiny, random), (tiny, {**random, "init_from": None}), (tiny[-1:], {})):
        _go_back(run, 1)
        capsys.readouterr()
        assert tune(run, *bindings, **flags) == 0
        assert "resuming from step 1" in capsys.readouterr().out and read_log(run) == whole
    assert tune(run, *tiny, "BertConfig.num_hidden_layers=2", **{**random, "init_from": None}) == 2
    assert "BertConfig.num_hidden_layers is 2, but the run in" in capsys.readouterr().err


def test_which_model_a_run_began_with(tmp_path):
    here, gone = tmp_path / "here", tmp_path / "gone"
    here.mkdir()
    (tmp_path / "link").symlink_to(here)
    (tmp_path / "google.index").touch()
    assert noted_source(str(here), str(tmp_path / "link")) == str(here)
    assert noted_source(str(gone), str(here)) == str(gone)
    assert noted_source(str(here), str(tmp_path)) == str(tmp_path)
    assert noted_source(str(tmp_path / "google"), str(here)) == str(here)
    assert noted_source(None, str(here)) == str(here) and noted_source(str(here), None) is None
    # A folder without a checkpoint has nothing to say.
    assert model_to_describe(str(gone), tmp_path) == str(gone) and model_to_describe(None, tmp_path) is None


def test_the_best_among_those_that_can_be_read_predicts(tmp_path, capsys, finished_run, tune, files):
    run = tmp_path / "run"
    assert tune(run, "finetune.evaluations_per_epoch=3", init_from=finished_run) == 0
    arguments = ["predict", f"--model={run}", f"--input={files}/dev.csv"]
    capsys.readouterr()
    assert predict([*arguments, f"--output={tmp_path}/before"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    best = first.partition("checkpoints/")[2].partition(" ")[0]
    assert first == f"{run}/checkpoints/{best} (bert_jax, classification, step {best}, the best by accuracy)"
    other = next(path for path in (run / "checkpoints").iterdir() if path.name != best)
    (other / "run/metadata").write_text("")
    assert predict([*arguments, f"--output={tmp_path}/after"]) == 0
    output = capsys.readouterr()
    assert output.out.splitlines()[0] == first
    assert f"warning: checkpoint {other.name} is passed over, as it cannot be read: run/metadata" in output.err
    assert (tmp_path / "after").read_bytes() == (tmp_path / "before").read_bytes()
