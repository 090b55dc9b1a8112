"""python -m launch.pretrain: bad input is one line before anything is compiled, and resuming has rules."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from bert_jax.training.run_lock import lock_run

_ROOT = pathlib.Path(__file__).resolve().parents[2]
# Settings of the small run's length that leave its programs as they are.
_SHORT = ("pretrain.steps = 4", "pretrain.eval_every = 0")


@pytest.fixture
def nothing_is_compiled(monkeypatch):
    """Makes the test fail with a traceback where a train step gets compiled."""
    import bert_jax.training.compilation

    def fail(*arguments):
        raise AssertionError("compiled")

    monkeypatch.setattr(bert_jax.training.compilation, "compile_train_step", fail)


def _files(directory: pathlib.Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def _error(capsys) -> str:
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1, error
    return error


@pytest.mark.parametrize(
    ("bindings", "flags", "message"),
    [
        ([], {"workdir": None}, "--workdir is missing"),
        ([], {"data_dir": None}, "--data_dir is missing"),
        ([], {"data_dir": "nowhere"}, "nowhere"),
        ([], {"data_dir": "."}, "rows.json"),
        ([], {"gin_file": "nowhere.gin"}, "--gin_file=nowhere.gin"),
        (["pretrain.stepz = 3"], {}, "stepz"),
        (["BertConfig.max_position_embeddings = 16"], {}, "max_position_embeddings"),
        (["BertConfig.vocab_size = 8192"], {}, "BertConfig.vocab_size is 8192"),
        (["pretrain.accumulation_steps = 3"], {}, "accumulation_steps"),
        (["Schedule.warmup_steps = 100"], {}, "warm-up"),
        ([], {"profile": "many"}, "--profile=many"),
        ([], {"profile": "3"}, "--profile=3"),
        ([], {"profile": "10:5"}, "over the end of the run"),
        ([], {"init_from": "nowhere"}, "--init_from=nowhere"),
        ([], {"init_from": "."}, "no finished checkpoint"),
        ([], {"workdir": "file"}, "--workdir=file"),
        ([], {"workdir": "file/below"}, "--workdir=file/below"),
        ([], {"compilation_cache_dir": "file"}, "--compilation_cache_dir=file"),
        ([], {"colour": "red"}, "colour"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_bad_input_is_one_line(
    tmp_path, monkeypatch, capsys, nothing_is_compiled, small_data, pretrain_arguments, bindings, flags, message
):
    from launch.pretrain import main

    monkeypatch.chdir(tmp_path)
    pathlib.Path("file").write_text("x")
    arguments = pretrain_arguments("run", *bindings, **flags)
    capsys.readouterr()
    assert main(arguments) == 2
    assert message in _error(capsys)
    # Whatever was wrong, the folder is free for the next try.
    assert _files(tmp_path) == {str(tmp_path / "file"): b"x"}


def test_what_flags_and_paths_show_is_found_before_jax_is_imported(tmp_path, small_data, pretrain_arguments):
    (tmp_path / "file").write_text("x")
    bad = [
        pretrain_arguments("run", data_dir="nowhere"),
        pretrain_arguments("run", "pretrain.stepz = 3"),
        pretrain_arguments("run", "BertConfig.vocab_size = 8192"),
        pretrain_arguments("run", "BertConfig.max_position_embeddings = 16"),
        pretrain_arguments("run", data_dir=[small_data.rows_32, small_data.other_rows_32]),
        pretrain_arguments("file"),
    ]
    code = (
        f"import sys\nfrom launch.pretrain import main\nassert [main(argv) for argv in {bad!r}] == {[2] * len(bad)}\n"
        "print([name for name in ('jax', 'flax', 'orbax', 'tensorflow') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert result.stdout == "[]\n", result.stderr
    assert result.stderr.count("error: ") == result.stderr.count("\n") == len(bad)


@pytest.mark.parametrize(
    ("directories", "bindings", "config", "message"),
    [
        (["rows_32", "rows_64"], [], "config", "need pretrain.phases"),
        (["rows_32", "rows_32"], [], "config", "same length"),
        (["rows_32", "other_rows_32"], [], "config", "another tokenizer"),
        (["rows_32"], [], "phases_config", "wants rows of 64"),
        (["rows_32", "rows_64"], ["pretrain.steps = 3"], "phases_config", "exclude each other"),
        (["rows_32", "rows_64"], ["pretrain.phases = [@short/Phase()]"], "phases_config", "nothing uses the binding"),
        (["rows_32", "rows_64"], ["long/Phase.seq_len = 32"], "phases_config", "no phase uses the rows of 64"),
        (["rows_32", "rows_64"], ["BertConfig.max_position_embeddings = 32"], "phases_config", "32 positions"),
    ],
)
def test_rows_that_do_not_fit(
    tmp_path, capsys, nothing_is_compiled, small_data, pretrain, directories, bindings, config, message
):
    flags = {"data_dir": [getattr(small_data, name) for name in directories], "gin_file": getattr(small_data, config)}
    capsys.readouterr()
    assert pretrain(tmp_path / "run", *bindings, **flags) == 2
    assert message in _error(capsys)
    assert not (tmp_path / "run").exists()


def test_rows_whose_tokenizer_was_exchanged(tmp_path, capsys, nothing_is_compiled, small_data, pretrain):
    rows = tmp_path / "rows"
    shutil.copytree(small_data.rows_32, rows)
    shutil.rmtree(rows / "tokenizer")
    shutil.copytree(pathlib.Path(small_data.other_rows_32) / "tokenizer", rows / "tokenizer")
    capsys.readouterr()
    assert pretrain(tmp_path / "run", data_dir=str(rows)) == 2
    assert "not the one that these rows were made with" in _error(capsys)


@pytest.mark.parametrize(
    "bindings", [["pretrain.batch_size = 4"], ["pretrain.batch_size = 3", "pretrain.accumulation_steps = 3"]]
)
def test_a_batch_that_does_not_divide_over_the_devices(
    tmp_path, monkeypatch, capsys, nothing_is_compiled, pretrain, bindings
):
    import types

    import bert_jax.parallel.mesh

    monkeypatch.setattr(
        bert_jax.parallel.mesh, "make_mesh", lambda *_: types.SimpleNamespace(shape={"data": 3, "fsdp": 1, "tensor": 1})
    )
    capsys.readouterr()
    assert pretrain(tmp_path / "run", *bindings) == 2
    assert "pretrain.batch_size" in (error := _error(capsys)) and "3 devices" in error
    assert _files(tmp_path) == {}


@pytest.mark.parametrize(
    ("bindings", "flags", "message"),
    [
        (["BertConfig.hidden_size = 32"], {}, "BertConfig.hidden_size is 32, but the run in"),
        (["BertConfig.hidden_dropout_prob = 0.0"], {}, "BertConfig.hidden_dropout_prob"),
        (["pretrain.seed = 1"], {}, "pretrain.seed is 1"),
        (["pretrain.batch_size = 8"], {}, "pretrain.batch_size is 8"),
        (["pretrain.learning_rate = 2e-3"], {}, "pretrain.learning_rate is 0.002"),
        (["Schedule.kind = 'constant'"], {}, "Schedule.kind is 'constant'"),
        (["Masking.masked_lm_prob = 0.2"], {}, "Masking.masked_lm_prob"),
        (["Masking.whole_word = True"], {}, "Masking.whole_word"),
        (["Optimizer.kind = 'lamb'"], {}, "Optimizer.kind"),
        (["Execution.dtype = 'bfloat16'"], {}, "Execution.dtype"),
        (["pretrain.steps = 24"], {}, "pass --allow_schedule_change"),
        (["pretrain.steps = 6"], {}, "pretrain.steps is 6"),
        ([], {"data_dir": "rows_64"}, "data.rows_64"),
        ([], {"data_dir": "other_rows_32"}, "but the run in"),
        ([], {"init_from": "."}, "--init_from is for new runs"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_what_must_match_on_resuming(
    capsys, nothing_is_compiled, small_data, pretrain, finished_run, bindings, flags, message
):
    if "data_dir" in flags:
        flags = {"data_dir": getattr(small_data, flags["data_dir"])}
    before = _files(finished_run)
    capsys.readouterr()
    assert pretrain(finished_run, *bindings, **flags) == 2
    assert message in _error(capsys)
    assert _files(finished_run) == before


def test_a_folder_of_other_files(tmp_path, capsys, nothing_is_compiled, pretrain):
    (tmp_path / "thesis.txt").write_text("x")
    capsys.readouterr()
    assert pretrain(tmp_path) == 2
    assert "holds files, but no run" in _error(capsys)
    assert _files(tmp_path) == {str(tmp_path / "thesis.txt"): b"x"}


def test_a_folder_in_use(tmp_path, capsys, nothing_is_compiled, pretrain):
    workdir = tmp_path / "run"
    workdir.mkdir()
    # Another process, here another opening of it, holds the folder.
    with lock_run(workdir):
        assert pretrain(workdir) == 2
        assert f"{workdir} is in use" in _error(capsys)
    assert not any(workdir.iterdir())


def test_a_damaged_run_file(tmp_path, capsys, nothing_is_compiled, pretrain):
    (tmp_path / "run.json").write_text("{")
    capsys.readouterr()
    assert pretrain(tmp_path) == 2
    assert "run.json is damaged" in _error(capsys)


def test_a_complete_run_says_so(capsys, nothing_is_compiled, pretrain, finished_run):
    before = _files(finished_run)
    assert pretrain(finished_run) == 0
    assert "is complete: 12 of 12 steps" in capsys.readouterr().out
    assert _files(finished_run) == before


@pytest.mark.slow
def test_steps_may_grow_and_cadence_may_change(tmp_path, capsys, pretrain, read_log):
    """Under a constant schedule, the longer run is what it would have been from the start."""
    constant = "Schedule.kind = 'constant'"
    assert pretrain(tmp_path / "whole", *_SHORT, constant, "pretrain.steps = 8") == 0
    assert pretrain(tmp_path / "grown", *_SHORT, constant) == 0
    capsys.readouterr()
    cadence = ("pretrain.eval_every = 3", "pretrain.checkpoint_every = 2", "pretrain.keep_checkpoints = 3")
    assert pretrain(tmp_path / "grown", *_SHORT, constant, "pretrain.steps = 8", *cadence) == 0
    assert "resuming from step 4" in capsys.readouterr().out
    assert read_log(tmp_path / "grown", "train") == read_log(tmp_path / "whole", "train")
    assert [line["step"] for line in read_log(tmp_path / "grown", "validation")] == [4, 6, 8]
    assert json.loads((tmp_path / "grown/run.json").read_text())["pretrain.steps"] == 8


def test_log_every_and_profile(tmp_path, pretrain, read_log):
    assert pretrain(tmp_path, *_SHORT, "pretrain.log_every = 2", profile="1:2") == 0
    assert [line["step"] for line in read_log(tmp_path, "train")] == [2, 4]
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_a_changed_schedule_is_accepted_when_asked_for(tmp_path, capsys, pretrain, read_log):
    assert pretrain(tmp_path, *_SHORT) == 0
    capsys.readouterr()
    assert pretrain(tmp_path, *_SHORT, "pretrain.steps = 6", allow_schedule_change="true") == 0
    assert "resuming from step 4" in capsys.readouterr().out
    lines = read_log(tmp_path, "train")
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[4]["learning_rate"] == pytest.approx(1e-3 * (1 - 4 / 6))


def test_accumulation_may_change(tmp_path, pretrain, finished_run, read_log):
    shutil.copytree(finished_run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints/12")
    assert pretrain(tmp_path / "run", "pretrain.accumulation_steps = 2") == 0
    accumulated, whole = read_log(tmp_path / "run", "train"), read_log(finished_run, "train")
    assert [line["step"] for line in accumulated] == list(range(1, 13))
    assert [line["loss"] for line in accumulated] == pytest.approx([line["loss"] for line in whole], rel=1e-5)


@pytest.mark.slow
def test_weights_of_another_run(tmp_path, capsys, pretrain, finished_run, read_log):
    from bert_jax.training.checkpoints import open_model

    shutil.copytree(finished_run, tmp_path / "source")
    flags = {"init_from": str(tmp_path / "source")}
    capsys.readouterr()
    assert pretrain(tmp_path / "run", "pretrain.seed = 5", *_SHORT, **flags) == 0
    output = capsys.readouterr().out
    saved = open_model(finished_run).run["checksums"]
    assert "tensors loaded, 0 missing, 0 unexpected" in output and "loaded:     bert/pooler/dense/kernel" in output
    assert output.count("  loaded: ") == sum(name.startswith("params/") for name in saved)
    # It goes on from a trained model: its first loss lies below that of a run from the start.
    assert pretrain(tmp_path / "scratch", "pretrain.seed = 5", *_SHORT) == 0
    first, scratch = (read_log(tmp_path / name, "train")[0] for name in ("run", "scratch"))
    assert first["mlm_loss"] < scratch["mlm_loss"]
    # The same command resumes, also when its source is gone.
    shutil.rmtree(tmp_path / "source")
    capsys.readouterr()
    assert pretrain(tmp_path / "run", "pretrain.seed = 5", *_SHORT, **flags) == 0
    assert "is complete" in capsys.readouterr().out


def test_weights_of_another_architecture(tmp_path, capsys, nothing_is_compiled, pretrain, finished_run):
    capsys.readouterr()
    assert pretrain(tmp_path / "run", "BertConfig.intermediate_size = 64", init_from=str(finished_run)) == 2
    assert "has shape" in _error(capsys)
    assert _files(tmp_path) == {}


@pytest.mark.slow
def test_as_a_command(tmp_path, pretrain_arguments):
    arguments = pretrain_arguments(tmp_path / "run", "pretrain.steps = 2")[1:]
    arguments.append(f"--compilation_cache_dir={tmp_path / 'cache'}")
    command = [sys.executable, "-m", "launch.pretrain", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    good = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert good.returncode == 0 and "done: 2 steps" in good.stdout, good.stderr
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"run.json", "metrics.jsonl", "tensorboard", "curves.png", "checkpoints"}
    assert any((tmp_path / "cache").iterdir())
    bad = subprocess.run([*command, "--data_dir=x"], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert bad.returncode == 2 and bad.stderr.startswith("error: ") and bad.stderr.count("\n") == 1
