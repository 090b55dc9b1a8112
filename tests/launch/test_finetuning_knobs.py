"""Choices of the fine-tuning recipe that are off by default, through the launchers: each changes what it says."""

import csv
import json
import re
import shutil

import pytest

from launch.evaluate import main as evaluate
from launch.predict import main as predict

# Three of twelve are the label "yes".
_TEXTS = [("bob fed al", "no"), ("kala is in mu", "yes"), ("li led ma and lo", "no"), ("no al", "no")] * 3
_NO_DROPOUT = ("finetune.hidden_dropout_prob=0.0", "finetune.attention_probs_dropout_prob=0.0")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("knobs") / "table.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *((f"{text} {at}", y) for at, (text, y) in enumerate(_TEXTS))])
    return path


@pytest.fixture(scope="module")
def tune(table, repository_root, finetuning):
    """Fine-tunes the small golden BERT: three steps of four rows."""
    return finetuning(
        "finetune.padded_lengths=1",
        train=table,
        dev=table,
        init_from=repository_root / "tests" / "golden" / "BertModel",
        epochs=1,
        batch_size=4,
        max_seq_len=16,
        learning_rate=1e-2,
    )


@pytest.fixture(scope="module")
def plain(tmp_path_factory, tune):
    """A run without any of the choices, with an evaluation at each step; not to be changed."""
    workdir = tmp_path_factory.mktemp("plain") / "run"
    assert tune(workdir, "finetune.evaluations_per_epoch=3") == 0
    return workdir


@pytest.fixture
def losses(tmp_path, tune, read_log):
    """Trains without dropout on all rows at once, and returns the loss of each step."""

    def call(*bindings):
        workdir = tmp_path / str(len(list(tmp_path.iterdir())))
        assert tune(workdir, *_NO_DROPOUT, *bindings, batch_size=12) == 0
        return [line["loss"] for line in read_log(workdir, "train")]

    return call


def test_class_weights_go_into_the_loss(losses, capsys):
    (mean,) = losses()
    (balanced,) = losses("finetune.class_weights='balanced'")
    assert "class weights: no 0.6667, yes 2" in capsys.readouterr().out
    (listed,) = losses("finetune.class_weights=[1, 3.0]")
    (reversed_,) = losses("finetune.class_weights=[3.0, 1]")
    assert balanced == pytest.approx(listed, rel=1e-5)
    # From mean = (9 no + 3 yes) / 12 and balanced = (no + yes) / 2.
    yes = 3 * balanced - 2 * mean
    no = 2 * balanced - yes
    assert reversed_ == pytest.approx((27 * no + 3 * yes) / 30, rel=1e-4)
    assert abs(mean - balanced) > 1e-3


def test_few_shot_trains_on_so_many_of_each_label(tmp_path, tune, read_log, capsys):
    assert tune(tmp_path / "run", few_shot=2) == 0
    printed = capsys.readouterr().out
    assert "few-shot: 4 training examples, seed 0" in printed and "table.csv: 12 examples" in printed
    assert [line["step"] for line in read_log(tmp_path / "run", "train")] == [1]


def test_tokens_are_masked_in_training_alone(tmp_path, tune, plain, read_log):
    workdir = tmp_path / "run"
    assert tune(workdir, "finetune.mask_probability=0.5", "finetune.evaluations_per_epoch=3", learning_rate=1e-20) == 0
    masked, whole = read_log(workdir, "train")[0], read_log(plain, "train")[0]
    assert masked["loss"] != whole["loss"] and masked["learning_rate"] < whole["learning_rate"]
    # Nothing is learnt: the dev set, which is not masked, has the loss of the beginning at every step.
    assert len({line["loss"] for line in read_log(workdir, "validation")}) == 1


def test_another_pooling_and_mixture_of_layers(tmp_path, table, tune, plain, read_log, capsys):
    from bert_jax.interop.pretrained import open_pretrained

    workdir, output = tmp_path / "run", tmp_path / "predictions.jsonl"
    assert tune(workdir, "finetune.pooling='mean'", "finetune.encoder_output='mixture'") == 0
    assert re.search(r"missing: +bert/layer_mixture/\w+ \(keeps its initial value\)", capsys.readouterr().out)
    config = open_pretrained(workdir).config
    assert (config.pooling, config.encoder_output) == ("mean", "mixture")
    assert open_pretrained(plain).config.pooling == "cls"
    assert read_log(workdir, "train")[0]["loss"] != read_log(plain, "train")[0]["loss"]
    assert predict(["predict", f"--model={workdir}", f"--input={table}", f"--output={output}"]) == 0
    predicted = [json.loads(line)["label"] for line in output.read_text().splitlines()]
    right = sum(ours == label for ours, (_, label) in zip(predicted, _TEXTS, strict=True))
    assert right / 12 == pytest.approx(read_log(workdir, "validation")[-1]["accuracy"])


def test_a_tuned_model_is_tuned_for_other_labels(tmp_path, table, tune, plain, read_log, capsys):
    other = tmp_path / "other.csv"
    other.write_text(table.read_text().replace("mu 5,yes", "mu 5,perhaps"))
    assert tune(tmp_path / "run", init_from=plain, train=other, dev=other) == 0
    printed = capsys.readouterr().out
    assert "other head: classifier/kernel (keeps its initial value)" in printed
    assert "other head: classifier/bias" in printed and "loaded:     bert/pooler/dense/kernel" in printed
    assert len(read_log(tmp_path / "run", "train")) == 3


@pytest.mark.parametrize("last", [None, 1])
def test_the_average_is_evaluated_and_predicted_with(tmp_path, table, tune, plain, read_log, capsys, last):
    bindings = ("finetune.evaluations_per_epoch=3", "finetune.keep_checkpoints=9", "finetune.ema_decay=0.5")
    workdir = tmp_path / "run"
    assert tune(workdir, *bindings) == 0
    log = read_log(workdir)
    assert read_log(workdir, "train") == read_log(plain, "train")
    ours, theirs = (read_log(run, "validation") for run in (workdir, plain))
    # The first average is the first parameters.
    assert ours[0]["loss"] == pytest.approx(theirs[0]["loss"], abs=1e-5)
    assert all(abs(ours[at]["loss"] - theirs[at]["loss"]) > 1e-4 for at in (1, 2))
    if last is not None:
        for checkpoint in (workdir / "checkpoints").iterdir():
            if int(checkpoint.name) > last:
                shutil.rmtree(checkpoint)
        assert tune(workdir, *bindings) == 0
        assert f"resuming from step {last}" in capsys.readouterr().out and read_log(workdir) == log
        return
    capsys.readouterr()
    assert evaluate(["evaluate", f"--model={workdir}", "--checkpoint=3", f"--input={table}"]) == 0
    (loss,) = re.findall(r"^loss +([\d.]+)", capsys.readouterr().out, flags=re.MULTILINE)
    assert float(loss) == pytest.approx(ours[2]["loss"], abs=6e-5)


def test_r_drop_pulls_two_predictions_together(tmp_path, tune, plain, read_log):
    assert tune(tmp_path / "run", "finetune.r_drop=2.0") == 0
    lines = read_log(tmp_path / "run", "train")
    assert all(line["divergence"] > 0 for line in lines)
    assert lines[0]["loss"] != read_log(plain, "train")[0]["loss"]


@pytest.mark.parametrize(
    "binding",
    [
        "class_weights='balanced'",
        "few_shot=3",
        "mask_probability=0.1",
        "pooling='max'",
        "encoder_output='mixture'",
        "ema_decay=0.9",
        "r_drop=1.0",
    ],
)
def test_with_another_choice_a_run_is_not_resumed(tune, plain, capsys, binding):
    assert tune(plain, "finetune.evaluations_per_epoch=3", f"finetune.{binding}") == 2
    error = capsys.readouterr().err
    assert f"{binding.split('=')[0]} is " in error and str(plain) in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("bindings", "flags", "message"),
    [
        (["class_weights='equal'"], {}, "class_weights must be 'balanced' or a list of numbers, not 'equal'"),
        (["class_weights=[1, 2, 3]"], {}, "class_weights has 3 numbers, and there are 2 labels"),
        (["class_weights=['no']"], {}, "must be a list such as [1.0, 2.5] or a string or None"),
        (["class_weights='balanced'"], {"labels": "multi"}, "finetune.class_weights is for texts with one label each"),
        (["r_drop=1.0"], {"labels": "multi"}, "finetune.r_drop is for texts with one label each"),
        (["r_drop=0.0"], {}, "r_drop must be above 0"),
        (["mask_probability=1.0"], {}, "mask_probability must be above 0 and below 1"),
        (["ema_decay=1.0"], {}, "ema_decay must be above 0 and below 1"),
        (["pooling='median'"], {}, "BertConfig.pooling must be one of cls, mean, max, last_four"),
        (["encoder_output=99"], {}, "BertConfig.encoder_output must be"),
        ([], {"few_shot": 0}, "few_shot must be a whole number from 1 to 2147483647"),
    ],
)
def test_bad_choices_are_one_line(tmp_path, tune, capsys, bindings, flags, message):
    assert tune(tmp_path / "run", *(f"finetune.{binding}" for binding in bindings), **flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert not (tmp_path / "run").exists()


def test_entities_are_those_of_relations(tmp_path, tune, capsys):
    assert tune(tmp_path / "run", "finetune.pooling='entities'") == 2
    error = capsys.readouterr().err
    assert "finetune.pooling='entities' is for --task=relation, and this is --labels=single" in error


@pytest.mark.parametrize("binding", ["class_weights='balanced'", "few_shot=1", "r_drop=1.0", "pooling='mean'"])
def test_choices_that_say_nothing_to_the_task(tmp_path, tune, capsys, binding):
    data = tmp_path / "train.conll"
    data.write_text("bob B-PER\nis O\n\nkala B-LOC\n")
    assert tune(tmp_path / "run", f"finetune.{binding}", task="tagging", train=data, dev=data) == 2
    error = capsys.readouterr().err
    assert f"finetune.{binding.split('=')[0]} is for " in error and "this is --task=tagging: leave it out" in error
