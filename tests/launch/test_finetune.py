"""python -m launch.finetune: what it learns and reports, and that it goes on as if nothing had happened."""

import collections
import csv
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys

import pytest

from bert_jax.tasks.finetuning_defaults import default_learning_rate
from bert_jax.training.saved_models import open_model
from launch.evaluate import main as evaluate
from launch.predict import main as predict

_ROOT = pathlib.Path(__file__).resolve().parents[2]
# The label is whether the text begins with the first of these, which every text does or does not.
_WORDS = ("bana", "kera", "losa", "mita", "tula")


def _write(path: pathlib.Path, count: int, seed: int) -> None:
    draw = random.Random(seed)
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("id", "text", "label"))
        for number in range(count):
            words = draw.choices(_WORDS, k=draw.randint(1, 20))
            table.writerow((f"{path.stem}-{number}", " ".join(words), "yes" if words[0] == _WORDS[0] else "no"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finetune")
    _write(folder / "train.csv", 43, 0)
    _write(folder / "dev.csv", 21, 1)
    return folder


@pytest.fixture(scope="module")
def finetune(files, finished_run, finetuning):
    """The small run; see `finetuning`."""
    return finetuning(
        "finetune.padded_lengths=2",
        train=files / "train.csv",
        dev=files / "dev.csv",
        init_from=finished_run,
        epochs=2,
        batch_size=8,
        max_seq_len=32,
        learning_rate=1e-3,
    )


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, finetune):
    """A run with an evaluation twice an epoch and all checkpoints; not to be changed."""
    workdir = tmp_path_factory.mktemp("tuned") / "run"
    assert finetune(workdir, "finetune.evaluations_per_epoch=2", "finetune.keep_checkpoints=100") == 0
    return workdir


def test_it_logs_every_step_and_scores_the_dev_set(tuned, read_log):
    train = read_log(tuned, "train")
    assert [line["step"] for line in train] == list(range(1, 13)) and {"loss", "accuracy"} <= train[0].keys()
    scores = read_log(tuned, "validation")
    assert [line["step"] for line in scores] == [3, 6, 9, 12]
    assert {"loss", "accuracy", "macro_f1", "micro_f1", "matthews", "f1"} <= scores[0].keys()
    assert (tuned / "curves.png").stat().st_size > 1000


def test_what_the_recipe_leaves_open_is_said_and_kept(tmp_path, finetune, finished_run, capsys):
    """A learning rate by the model's width, and dropout of its own."""
    workdir, width = tmp_path / "run", open_model(finished_run).run["architecture"]["hidden_size"]
    assert finetune(workdir, learning_rate=None, epochs=0.5) == 0
    rate, out = default_learning_rate(width), capsys.readouterr().out
    assert f"learning rate {rate:g}, which suits a width of {width}: --learning_rate" in out
    assert "dropout 0.1, whatever the model was pre-trained with: finetune.hidden_dropout_prob" in out
    identity = json.loads((workdir / "run.json").read_text())
    assert identity["finetune.learning_rate"] == rate and identity["finetune.hidden_dropout_prob"] == 0.1
    assert open_model(workdir).run["architecture"]["attention_probs_dropout_prob"] == 0.1
    # Without a word it goes on, and says nothing that was decided before.
    assert finetune(workdir, learning_rate=None, epochs=0.5) == 0
    assert "which suits" not in capsys.readouterr().out
    assert finetune(workdir, "finetune.hidden_dropout_prob=0.2", learning_rate=None, epochs=0.5) == 2
    assert "hidden_dropout_prob is 0.2" in capsys.readouterr().err


@pytest.mark.parametrize("last", [3, 9])
def test_stopped_and_started_again_it_writes_the_same_losses(tmp_path, tuned, finetune, read_log, last, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(tuned, workdir)
    for checkpoint in (workdir / "checkpoints").iterdir():
        if int(checkpoint.name) > last:
            shutil.rmtree(checkpoint)
    bindings = ("finetune.evaluations_per_epoch=2", "finetune.keep_checkpoints=100")
    assert finetune(workdir, *bindings) == 0
    assert f"resuming from step {last}" in capsys.readouterr().out
    assert read_log(workdir) == read_log(tuned)
    assert finetune(workdir, *bindings) == 0
    assert "is complete: 12 of 12 steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"learning_rate": 2e-3}, "finetune.learning_rate is 0.002"),
        ({"batch_size": 4}, "finetune.batch_size is 4"),
        ({"labels": "no,yes,perhaps"}, "task.labels is"),
        ({"metric": "f1"}, "task.main_metric is 'f1'"),
    ],
)
def test_another_recipe_does_not_resume(tuned, finetune, capsys, flags, named):
    before = sorted((path, path.stat().st_mtime_ns) for path in tuned.rglob("*"))
    bindings = ("finetune.evaluations_per_epoch=2", "finetune.keep_checkpoints=100")
    assert finetune(tuned, *bindings, **flags) == 2
    error = capsys.readouterr().err
    assert named in error and error.count("\n") == 1
    assert sorted((path, path.stat().st_mtime_ns) for path in tuned.rglob("*")) == before


def test_predictions_count_as_the_dev_set_did(tmp_path, files, tuned, read_log):
    output = tmp_path / "predictions.jsonl"
    arguments = [f"--model={tuned}", "--checkpoint=12", f"--input={files / 'dev.csv'}", f"--output={output}"]
    assert predict(["predict", *arguments, "--batch_size=4"]) == 0
    predictions = [json.loads(line) for line in output.read_text().splitlines()]
    truth = list(csv.DictReader((files / "dev.csv").open()))
    assert [row["id"] for row in predictions] == [row["id"] for row in truth]
    right = sum(ours["label"] == row["label"] for ours, row in zip(predictions, truth, strict=True))
    assert right / len(truth) == pytest.approx(read_log(tuned, "validation")[-1]["accuracy"], abs=1e-9)
    for row in predictions:
        assert row["probabilities"].keys() == {"no", "yes"}
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-6)
        assert row["label"] == max(row["probabilities"], key=row["probabilities"].get)


def test_evaluate_scores_as_the_run_did(tmp_path, files, tuned, read_log, capsys):
    figure = tmp_path / "confusion.png"
    arguments = [f"--model={tuned}", "--checkpoint=12", f"--input={files / 'dev.csv'}", f"--figure={figure}"]
    assert evaluate(["evaluate", *arguments]) == 0
    printed = capsys.readouterr().out
    scores = dict(re.findall(r"^(\w+) +(-?[\d.]+)", printed, flags=re.MULTILINE))
    last = read_log(tuned, "validation")[-1]
    for name in ("loss", "accuracy", "macro_f1", "matthews", "f1"):
        assert float(scores[name]) == pytest.approx(last[name], abs=6e-5), name
    assert "precision" in printed and figure.stat().st_size > 1000
    assert evaluate(["evaluate", f"--model={tuned}", "--data_dir=rows", "--input=dev.csv"]) == 2


def test_it_stops_when_it_gets_no_better(tmp_path, finetune, capsys, read_log):
    # Nothing is better by a whole unit.
    bindings = ("finetune.min_delta=1.0", "finetune.evaluations_per_epoch=2")
    assert finetune(tmp_path / "run", *bindings, patience=2) == 0
    printed = capsys.readouterr().out
    assert "stopped early after step 9 of 12: no better for 2 evaluations" in printed
    scores = {line["step"]: line["accuracy"] for line in read_log(tmp_path / "run", "validation")}
    best = max(scores.values())
    found = re.search(r"^the best checkpoint is that of step (\d+), with accuracy ([\d.]+)$", printed, re.MULTILINE)
    assert scores[int(found[1])] == best and float(found[2]) == pytest.approx(best, abs=6e-5)
    assert read_log(tmp_path / "run", "validation")[-1]["step"] == 9
    assert finetune(tmp_path / "run", *bindings, patience=2) == 0
    assert "is complete: 9 of 12 steps, where it no longer became better" in capsys.readouterr().out


def test_frozen_layers_are_said_aloud_and_stay(tmp_path, finetune, finished_run, capsys):
    from bert_jax.interop.pretrained import open_pretrained

    assert finetune(tmp_path / "run", "finetune.frozen_layers=1", epochs=1) == 0
    assert "parameters are trained (" in capsys.readouterr().out
    before = open_pretrained(finished_run).load_parameters()["bert"]
    after = open_pretrained(tmp_path / "run").load_parameters()["bert"]
    kernel = [tree["encoder"]["layers"]["feed_forward"]["output"]["kernel"] for tree in (before, after)]
    assert (kernel[0][0] == kernel[1][0]).all() and (kernel[0][1] != kernel[1][1]).any()
    words = [tree["embeddings"]["word_embeddings"]["embedding"] for tree in (before, after)]
    assert (words[0] == words[1]).all()


def test_a_random_start(tmp_path, finetune, small_data, capsys):
    tokenizer = pathlib.Path(small_data.rows_32).parent / "tokenizer"
    flags = {"init_from": "none", "tokenizer": tokenizer, "epochs": 1}
    model = ("BertConfig.hidden_size=16", "BertConfig.num_hidden_layers=1", "BertConfig.num_attention_heads=2")
    sizes = ("BertConfig.intermediate_size=16", "BertConfig.max_position_embeddings=32", "BertConfig.vocab_size=None")
    assert finetune(tmp_path / "run", *model, *sizes, **flags) == 0
    assert "loaded" not in capsys.readouterr().out


def test_single_texts_are_not_evaluated_on_pairs(tmp_path, files, finetune, capsys):
    dev = tmp_path / "dev.csv"
    dev.write_text("sentence1,sentence2,label\nal fed,bob fled,yes\n")
    assert finetune(tmp_path / "run", dev=dev) == 2
    error = capsys.readouterr().err
    assert f"{dev}:2: this is a pair of texts, and what is learned is to label a single text" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"init_from": None}, "--init_from is missing"),
        ({"init_from": "none"}, "--init_from=none needs an architecture"),
        ({"init_from": "no_such"}, "--init_from=no_such: no model at"),
        ({"train": None}, "--train is missing"),
        ({"train": "no_such.csv"}, "no_such.csv"),
        ({"max_seq_len": 1000}, "max_seq_len is 1000, and the model has 64 positions"),
        ({"label_column": "mood"}, "no column 'mood'"),
        ({"epochs": -1}, "epochs must be above 0"),
        ({"metric": "bleu"}, "there is no metric 'bleu' here"),
        ({"labels": "yes,perhaps"}, "the label 'no' is not among those of training, or of --labels (yes, perhaps)"),
        ({"epochs": 1e9}, "are 6,000,000,000 steps, and a run has at most 2,147,483,647"),
        ({"mesh": "data:3"}, "--mesh=data:3 needs 3 devices"),
    ],
)
def test_bad_input_is_one_line(tmp_path, finetune, capsys, flags, message):
    assert finetune(tmp_path / "run", **flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_dev_label_that_train_never_had(tmp_path, files, finetune, capsys):
    dev = tmp_path / "dev.csv"
    dev.write_text("id,text,label\n1,bana kera,yes\n2,kera,perhaps\n")
    assert finetune(tmp_path / "run", dev=dev) == 2
    assert f"{dev}:3: the label 'perhaps' is not among those of training" in capsys.readouterr().err
    dev.write_text('id,text,label\n1,bana,yes\n2,"",no\n3,kera,no\n')
    assert finetune(tmp_path / "run", dev=dev) == 2
    assert f"{dev}:3: the text is empty" in capsys.readouterr().err


def test_labels_of_another_task_are_skipped_and_counted(tmp_path, files, finetune, capsys):
    dev = tmp_path / "dev.csv"
    dev.write_text("text,label\nbana kera,yes\nkera,perhaps\nlosa,no\n")
    said = f"1 row skipped: {dev}:3 (the label 'perhaps' is not among those of training, or of --labels (no, yes))"
    flags = {"dev": dev, "on_bad_row": "skip", "epochs": 0.2, "label_column": "label"}
    assert finetune(tmp_path / "run", labels="no, yes", **flags) == 0
    assert f"{dev}: {said}" in capsys.readouterr().out
    arguments = ["evaluate", f"--model={tmp_path / 'run'}", f"--input={dev}"]
    assert evaluate(arguments) == 2
    assert f"{dev}:3: the label 'perhaps'" in capsys.readouterr().err
    assert evaluate([*arguments, "--on_bad_row=skip"]) == 0
    assert said in capsys.readouterr().out
    dev.write_text("text,label\nkera,perhaps\n")
    assert evaluate([*arguments, "--on_bad_row=skip"]) == 2
    error = capsys.readouterr().err
    assert "has no example that can be used; 1 row skipped" in error and error.count("\n") == 1


@pytest.mark.parametrize("name", ["confusion.jsonl", "folder.png", "no_such/confusion.png"])
def test_a_figure_is_a_png_where_one_can_be(tmp_path, files, tuned, capsys, name):
    """Found before anything is scored, and nothing else is overwritten."""
    (tmp_path / "confusion.jsonl").write_text("mine\n")
    (tmp_path / "folder.png").mkdir()
    arguments = [f"--model={tuned}", f"--input={files / 'dev.csv'}", f"--figure={tmp_path / name}"]
    assert evaluate(["evaluate", *arguments]) == 2
    said = capsys.readouterr()
    assert "must be a .png file in a folder that exists" in said.err and "examples" not in said.out
    assert (tmp_path / "confusion.jsonl").read_text() == "mine\n"


def test_predictions_of_cut_texts_are_counted(tmp_path, tuned, capsys):
    new = tmp_path / "new.csv"
    new.write_text("text\nbana\n" + "kera " * 40 + "\n")
    assert predict(["predict", f"--model={tuned}", f"--input={new}", f"--output={tmp_path / 'out.jsonl'}"]) == 0
    assert "1 of 2 texts are longer than 32 tokens" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"model": None}, "--model is missing"),
        ({"output": "/proc/predictions.jsonl"}, "cannot write /proc/predictions.jsonl"),
        ({"output": f"{'x' * 300}.jsonl"}, "File name too long"),
        ({"null_threshold": "nan"}, "--null_threshold=nan: must be a finite number"),
        ({"input": "no_such.csv"}, "no_such.csv"),
        ({"output": "no_such/predictions.jsonl"}, "there is no folder"),
    ],
)
def test_bad_input_of_predict(tmp_path, files, tuned, capsys, flags, message):
    given = {"model": tuned, "input": files / "dev.csv", "output": tmp_path / "predictions.jsonl", **flags}
    assert predict(["predict", *(f"--{name}={value}" for name, value in given.items() if value is not None)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error and list(tmp_path.iterdir()) == []


def test_predict_overwrites_nothing_and_takes_no_pretrained_model(tmp_path, files, tuned, finished_run, capsys):
    output = tmp_path / "predictions.jsonl"
    output.write_text("mine\n")
    arguments = [f"--input={files / 'dev.csv'}", f"--output={output}"]
    assert predict(["predict", f"--model={tuned}", *arguments]) == 2
    assert "exists already" in capsys.readouterr().err and output.read_text() == "mine\n"
    output.unlink()
    assert predict(["predict", f"--model={finished_run}", *arguments]) == 2
    assert "is not fine-tuned for a task" in capsys.readouterr().err


@pytest.mark.slow
def test_as_a_command(tmp_path, files, finished_run):
    """One process each; and on eight devices every dev example counts once."""
    environment = {**os.environ, "PYTHONPATH": str(_ROOT), "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    flags = [f"--train={files / 'train.csv'}", f"--dev={files / 'dev.csv'}", f"--init_from={finished_run}"]
    flags += ["--epochs=1", "--batch_size=8", "--max_seq_len=32", f"--workdir={tmp_path / 'run'}"]
    command = [sys.executable, "-m", "launch.finetune", *flags, "--gin_param=finetune.padded_lengths=1"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "on 8 cpu device(s)" in done.stdout and "dev set" in done.stdout
    output = tmp_path / "predictions.jsonl"
    arguments = [f"--model={tmp_path / 'run'}", f"--input={files / 'dev.csv'}", f"--output={output}"]
    done = subprocess.run(
        [sys.executable, "-m", "launch.predict", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    labels = [json.loads(line)["label"] for line in output.read_text().splitlines()]
    truth = [row["label"] for row in csv.DictReader((files / "dev.csv").open())]
    counts = collections.Counter(ours == label for ours, label in zip(labels, truth, strict=True))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    (scores,) = (line for line in lines if line["split"] == "validation")
    assert scores["accuracy"] == pytest.approx(counts[True] / len(truth), abs=1e-9)
