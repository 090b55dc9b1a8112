"""Losses beside the task's, through the launchers: they are logged, resumed, and not seen by what uses the model."""

import contextlib
import csv
import io
import json
import shutil

import pytest

from launch.convert import main as convert
from launch.inspect import main as inspect
from launch.predict import main as predict

_PAIRS = [("bob fed al", "al is fed", "yes"), ("kala is in mu", "no mu", "no"), ("li led ma", "ma and lo", "yes")] * 4
_ALL = (
    "finetune.mlm_weight=0.5",
    "finetune.nsp_weight=0.25",
    "finetune.auxiliary_layers=[1]",
    "finetune.evaluations_per_epoch=3",
    "finetune.keep_checkpoints=9",
)
_SQUAD = {
    "data": [
        {
            "paragraphs": [
                {"context": f"bob fed al in {place}.", "qas": [_question]}
                for place, _question in (
                    ("ka", {"id": "q1", "question": "who?", "answers": [{"text": "bob", "answer_start": 0}]}),
                    ("mu", {"id": "q2", "question": "where?", "answers": [{"text": "mu", "answer_start": 14}]}),
                )
            ]
        }
    ]
}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("auxiliary") / "pairs.csv"
    with path.open("w", newline="") as file:
        rows = [(first, f"{second} {at}", label) for at, (first, second, label) in enumerate(_PAIRS)]
        csv.writer(file).writerows([("sentence1", "sentence2", "label"), *rows])
    return path


@pytest.fixture(scope="module")
def tune(table, repository_root, finetuning):
    """Fine-tunes the small golden BERT with its pre-training heads: three steps of four rows."""
    return finetuning(
        "finetune.padded_lengths=1",
        train=table,
        dev=table,
        init_from=repository_root / "tests" / "golden" / "BertForPreTraining",
        epochs=1,
        batch_size=4,
        max_seq_len=24,
        learning_rate=1e-2,
    )


@pytest.fixture(scope="module")
def first_run(tmp_path_factory, tune):
    """A run with all of them, and what it printed."""
    workdir, printed = tmp_path_factory.mktemp("tuned") / "run", io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert tune(workdir, *_ALL) == 0
    return workdir, printed.getvalue()


@pytest.fixture(scope="module")
def tuned(first_run):
    """The folder of that run; not to be changed."""
    return first_run[0]


def test_each_loss_is_logged_and_adds_up(tuned, read_log):
    train = read_log(tuned, "train")
    assert len(train) == 3
    for line in train:
        parts = line["task_loss"] + 0.5 * line["mlm_loss"] + 0.25 * line["nsp_loss"] + 0.3 * line["layer_1_loss"]
        assert line["loss"] == pytest.approx(parts, rel=1e-5)
        assert {"mlm_accuracy", "nsp_accuracy", "layer_1_accuracy"} <= line.keys()
    assert all("mlm_loss" not in line and "loss" in line for line in read_log(tuned, "validation"))


def test_heads_of_pretraining_are_loaded(first_run):
    _, printed = first_run
    for name in ("masked_lm/transform/kernel", "next_sentence/dense/kernel", "bert/pooler/dense/kernel"):
        assert f"loaded:     {name}" in printed
    assert "missing:    layer_heads/layer_1/output/kernel (keeps its initial value)" in printed


def test_heads_of_such_a_run_are_loaded(tmp_path, tune, tuned, capsys):
    assert tune(tmp_path / "run", "finetune.mlm_weight=0.5", "finetune.auxiliary_layers=[1]", init_from=tuned) == 0
    printed = capsys.readouterr().out
    for name in ("masked_lm/transform/kernel", "layer_heads/layer_1/output/kernel", "classifier/kernel"):
        assert f"loaded:     {name}" in printed
    assert "unexpected: next_sentence/dense/kernel (not used)" in printed


@pytest.mark.parametrize("last", [1, 2])
def test_stopped_and_started_again_it_writes_the_same_losses(tmp_path, tune, tuned, read_log, capsys, last):
    workdir = tmp_path / "run"
    shutil.copytree(tuned, workdir)
    for checkpoint in (workdir / "checkpoints").iterdir():
        if int(checkpoint.name) > last:
            shutil.rmtree(checkpoint)
    assert tune(workdir, *_ALL) == 0
    assert f"resuming from step {last}" in capsys.readouterr().out and read_log(workdir) == read_log(tuned)


def test_predictions_and_conversion_are_those_of_the_task_alone(tmp_path, table, tuned, capsys):
    found = []
    for format in ("huggingface", "bert_jax"):
        target = tmp_path / format
        assert convert(["convert", f"--from={tuned}", f"--to={target}", f"--format={format}", "--checkpoint=best"]) == 0
        printed = capsys.readouterr().out
        assert "left out, as a BertForSequenceClassification has no such parts: " in printed
        assert all(name in printed for name in ("masked_lm/bias", "next_sentence/dense/kernel", "layer_heads/layer_1/"))
    for model in (tuned, tmp_path / "huggingface"):
        output = tmp_path / f"{len(found)}.jsonl"
        arguments = [f"--input={table}", f"--output={output}", "--pair_column=sentence2"]
        assert predict(["predict", f"--model={model}", *arguments]) == 0
        found.append([json.loads(line)["probabilities"] for line in output.read_text().splitlines()])
    ours, theirs = found
    assert len(ours) == 12 and ours == [pytest.approx(row, abs=1e-6) for row in theirs]
    assert inspect(["inspect", f"--model={tuned}", "--text=bob fed al", "--attention="]) == 0


def test_pairs_of_a_task_without_pooler(tmp_path, tune, read_log, capsys):
    data, output = tmp_path / "train.json", tmp_path / "predictions.jsonl"
    data.write_text(json.dumps(_SQUAD))
    flags = {"task": "question_answering", "train": data, "dev": data, "max_question_len": 6, "batch_size": 2}
    assert tune(tmp_path / "run", "finetune.nsp_weight=0.5", **flags) == 0
    assert "loaded:     bert/pooler/dense/kernel" in capsys.readouterr().out
    assert read_log(tmp_path / "run", "train")[0]["nsp_loss"] > 0
    assert predict(["predict", f"--model={tmp_path / 'run'}", f"--input={data}", f"--output={output}"]) == 0
    assert len(output.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    "binding", ["mlm_weight=0.4", "nsp_weight=None", "auxiliary_layers=[]", "auxiliary_weight=0.2"]
)
def test_with_another_choice_a_run_is_not_resumed(tune, tuned, capsys, binding):
    assert tune(tuned, *_ALL, f"finetune.{binding}") == 2
    error = capsys.readouterr().err
    assert f"finetune.{binding.split('=')[0]} is " in error and str(tuned) in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("bindings", "flags", "message"),
    [
        (["mlm_weight=-1.0"], {}, "mlm_weight must be above 0, or None for off, not -1.0"),
        (["mlm_weight='much'"], {}, "finetune.mlm_weight must be a number or None, not 'much'"),
        (["auxiliary_layers=1"], {}, "finetune.auxiliary_layers must be a list such as [1, 2], not 1"),
        (["auxiliary_layers=[9]"], {}, "9 is none below the last"),
        (["auxiliary_layers=[1]", "r_drop=1.0"], {}, "auxiliary_layers and r_drop do not go together"),
    ],
)
def test_bad_choices_are_one_line(tmp_path, tune, capsys, bindings, flags, message):
    assert tune(tmp_path / "run", *(f"finetune.{binding}" for binding in bindings), **flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert not (tmp_path / "run").exists()


def test_next_sentences_need_pairs(tmp_path, tune, capsys):
    single, tagged = tmp_path / "single.csv", tmp_path / "train.conll"
    single.write_text("text,label\nbob fed al,yes\nkala,no\n")
    tagged.write_text("bob B-PER\nis O\n\nkala B-LOC\n")
    assert tune(tmp_path / "run", "finetune.nsp_weight=1.0", train=single, dev=single) == 2
    assert "finetune.nsp_weight is for pairs of texts, and the training examples are" in capsys.readouterr().err
    assert tune(tmp_path / "run", "finetune.nsp_weight=1.0", task="tagging", train=tagged, dev=tagged) == 2
    assert "finetune.nsp_weight is for pairs of texts, and this is --task=tagging" in capsys.readouterr().err
