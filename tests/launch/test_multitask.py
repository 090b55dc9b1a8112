"""python -m launch.finetune --tasks: several tasks in one run, its log, its resuming, and the models that it makes."""

import csv
import json
import math
import os
import shutil
import subprocess
import sys

import pytest

from launch.convert import main as convert
from launch.evaluate import main as evaluate
from launch.finetune import main
from launch.predict import main as predict

_MOODS = [("bob fed al", "no"), ("kala is in mu", "yes"), ("li led ma and lo", "no"), ("no al", "no")] * 3
_SCORES = [("bob fed al", "bob fed", 4.5), ("kala mu", "li led", 0.5), ("ma and lo", "ma lo", 3.0)] * 2
_TAGS = "bob B-PER\nis O\nin O\nkala B-LOC\n\nno O\nal B-PER\n\nli B-PER\nled O\n"
_FLAGS = {"epochs": 2, "batch_size": 4, "max_seq_len": 16, "learning_rate": 1e-2}
_BINDINGS = ("finetune.padded_lengths=1", "finetune.log_every=1", "finetune.keep_checkpoints=100")
# Of moods, scores and tags in batches of four: the larger task's, and the sum.
_STEPS = {"sum": 3, "proportional": 3 + 2 + 1}


def _write(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("multitask")
    _write(
        folder / "moods.csv", [("text", "label"), *((f"{text} {at}", mood) for at, (text, mood) in enumerate(_MOODS))]
    )
    _write(folder / "scores.csv", [("sentence1", "sentence2", "score"), *_SCORES])
    (folder / "tags.conll").write_text(_TAGS)
    return folder


@pytest.fixture(scope="module")
def entries(files):
    """What the file of --tasks says."""
    both = lambda name: {"train": str(files / name), "dev": str(files / name)}  # noqa: E731
    return {
        "moods": both("moods.csv"),
        "scores": {**both("scores.csv"), "labels": "float", "weight": 0.5},
        "tags": {"task": "tagging", **both("tags.conll"), "weight": 2},
    }


@pytest.fixture(scope="module")
def tune(entries, tmp_path_factory, repository_root):
    """Fine-tunes the small golden BERT on the tasks; flags replace those of the small run, None leaves one out."""
    folder = tmp_path_factory.mktemp("tasks")

    def call(workdir, *bindings, tasks=entries, tasks_file=True, **replaced):
        path = folder / f"{len(list(folder.iterdir()))}.json"
        path.write_text(tasks if isinstance(tasks, str) else json.dumps(tasks))
        model = repository_root / "tests" / "golden" / "BertModel"
        flags = {"tasks": path if tasks_file is True else tasks_file or None, "init_from": model, "workdir": workdir}
        flags |= {**_FLAGS, **replaced}
        arguments = [f"--{name}={value}" for name, value in flags.items() if value is not None]
        return main(["finetune", *arguments, *(f"--gin_param={binding}" for binding in (*_BINDINGS, *bindings))])

    return call


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, tune):
    """A run with each mixing, with an evaluation each half epoch; not to be changed."""
    workdirs = {mixing: tmp_path_factory.mktemp(mixing) / "run" for mixing in _STEPS}
    for mixing, workdir in workdirs.items():
        assert tune(workdir, "finetune.evaluations_per_epoch=2", mixing=mixing) == 0
    return workdirs


def test_every_step_of_a_sum_has_the_weighted_loss_of_all(tuned, read_log):
    lines = read_log(tuned["sum"], "train")
    assert [line["step"] for line in lines] == list(range(1, 7))
    for line in lines:
        parts = line["moods/loss"] + 0.5 * line["scores/loss"] + 2 * line["tags/loss"]
        assert line["loss"] == pytest.approx(parts, rel=1e-5)
        assert line["grad_norm"] > 0 and line["moods/accuracy"] <= 1


def test_in_proportion_a_step_has_one_task_and_an_epoch_all_batches(tuned, read_log):
    lines = read_log(tuned["proportional"], "train")
    weights = {"moods": 1.0, "scores": 0.5, "tags": 2.0}
    seen = []
    for line in lines:
        (name,) = (name for name in weights if f"{name}/loss" in line)
        assert line["loss"] == pytest.approx(weights[name] * line[f"{name}/loss"], rel=1e-5)
        seen.append(name)
    for epoch in (seen[:6], seen[6:]):
        assert sorted(epoch) == ["moods"] * 3 + ["scores"] * 2 + ["tags"]


@pytest.mark.parametrize("mixing", _STEPS)
def test_all_tasks_are_scored(tuned, read_log, mixing):
    scores = read_log(tuned[mixing], "validation")[-1]
    mean = (scores["moods/accuracy"] + scores["scores/pearson"] + scores["tags/f1"]) / 3
    assert scores["mean_score"] == pytest.approx(mean)
    shares = (1, 1, 1) if mixing == "sum" else (3 / 6, 2 / 6, 1 / 6)
    losses = (scores["moods/loss"], 0.5 * scores["scores/loss"], 2 * scores["tags/loss"])
    assert scores["loss"] == pytest.approx(sum(share * loss for share, loss in zip(shares, losses, strict=True)))
    assert (tuned[mixing] / "curves.png").stat().st_size > 1000


@pytest.mark.parametrize("mixing", _STEPS)
def test_stopped_and_started_again_it_writes_the_same(tmp_path, tuned, tune, read_log, capsys, mixing):
    workdir, every = tmp_path / "run", math.ceil(_STEPS[mixing] / 2)
    shutil.copytree(tuned[mixing], workdir)
    for checkpoint in (workdir / "checkpoints").iterdir():
        if int(checkpoint.name) > every:
            shutil.rmtree(checkpoint)
    bindings = ("finetune.evaluations_per_epoch=2",)
    assert tune(workdir, *bindings, mixing=mixing) == 0
    assert f"resuming from step {every}" in capsys.readouterr().out
    assert read_log(workdir) == read_log(tuned[mixing])
    assert tune(workdir, *bindings, mixing=mixing) == 0
    assert f"is complete: {2 * _STEPS[mixing]} of {2 * _STEPS[mixing]} steps" in capsys.readouterr().out


def test_other_weights_tasks_or_mixing_do_not_resume(tuned, tune, entries, capsys):
    bindings = ("finetune.evaluations_per_epoch=2",)
    for changed, flags, named in (
        (entries, {"mixing": "proportional"}, "finetune.mixing is 'proportional'"),
        ({**entries, "tags": {**entries["tags"], "weight": 3}}, {}, "tasks.tags.weight is 3.0"),
        ({name: entries[name] for name in ("moods", "scores")}, {}, "tasks is ['moods', 'scores']"),
    ):
        assert tune(tuned["sum"], *bindings, tasks=changed, **flags) == 2
        error = capsys.readouterr().err
        assert named in error and error.count("\n") == 1


def test_the_tables_stand_beside_the_baselines(tmp_path, tune, capsys):
    assert tune(tmp_path / "run", epochs=1) == 0
    printed = capsys.readouterr().out
    for name, metric in (("moods", "accuracy"), ("scores", "pearson"), ("tags", "f1")):
        table = printed[printed.index(f"dev set of {name}") :]
        assert f"\n{metric} " in table
    assert "---- tags, weight 2" in printed and "mixing sum: 3 steps an epoch; batches of each: moods 3" in printed
    assert "missing:    tasks/moods/classifier/kernel" in printed
    assert "the best checkpoint is that of step 3, with mean_score" in printed


def test_it_stops_once_every_loss_is_low_enough(tmp_path, tuned, tune, read_log, capsys):
    before = read_log(tuned["sum"], "validation")
    losses = [max(line[f"{name}/loss"] for name in ("moods", "scores", "tags")) for line in before]
    # Reached for the first time in the middle of the run, and by the last of the tasks.
    first = next(at for at in range(1, len(losses)) if losses[at] < min(losses[:at]))
    below = (losses[first] + min(losses[:first])) / 2
    bindings = ("finetune.evaluations_per_epoch=2", f"finetune.stop_below_loss={below}")
    workdir = tmp_path / "run"
    assert tune(workdir, *bindings, mixing="sum") == 0
    step = before[first]["step"]
    if step < 6:
        assert (
            f"stopped early after step {step} of 6: moods/loss and scores/loss and tags/loss" in capsys.readouterr().out
        )
    assert read_log(workdir, "validation") == before[: first + 1]
    assert tune(workdir, *bindings, mixing="sum") == 0
    assert f"is complete: {step} of 6 steps" in capsys.readouterr().out


def test_one_task_stops_below_a_loss_too(tmp_path, entries, tune, read_log, capsys):
    alone = {"tasks_file": False, **entries["moods"]}
    assert tune(tmp_path / "run", "finetune.stop_below_loss=100.0", **alone) == 0
    assert "stopped early after step 3 of 6: loss of the dev set below 100" in capsys.readouterr().out
    assert tune(tmp_path / "run", "finetune.stop_below_loss=100.0", **alone) == 0
    assert "is complete: 3 of 6 steps, with loss of the dev set below 100" in capsys.readouterr().out
    assert tune(tmp_path / "other", "finetune.stop_below_loss=1e-9", **alone) == 0
    assert read_log(tmp_path / "other", "train")[-1]["step"] == 6


def test_each_task_predicts_as_its_dev_set_was_scored(tmp_path, files, tuned, read_log, capsys):
    scores = read_log(tuned["sum"], "validation")[-1]
    common = [f"--model={tuned['sum']}", "--checkpoint=6"]
    output = tmp_path / "moods.jsonl"
    arguments = [*common, "--task_name=moods", f"--input={files / 'moods.csv'}"]
    assert predict(["predict", *arguments, f"--output={output}"]) == 0
    predicted = [json.loads(line)["label"] for line in output.read_text().splitlines()]
    right = sum(ours == mood for ours, (_, mood) in zip(predicted, _MOODS, strict=True))
    assert right / len(_MOODS) == pytest.approx(scores["moods/accuracy"])
    capsys.readouterr()
    for name, file, metric in (("scores", "scores.csv", "pearson"), ("tags", "tags.conll", "f1")):
        assert evaluate(["evaluate", *common, f"--task_name={name}", f"--input={files / file}"]) == 0
        lines = dict(line.split()[:2] for line in capsys.readouterr().out.splitlines() if len(line.split()) in (2, 3))
        assert float(lines[metric]) == pytest.approx(scores[f"{name}/{metric}"], abs=6e-5)
        assert float(lines["loss"]) == pytest.approx(scores[f"{name}/loss"], abs=6e-5)


def test_one_task_is_exported(tmp_path, files, tuned, repository_root):
    from bert_jax.interop.pretrained import open_pretrained

    exported = tmp_path / "exported"
    arguments = [f"--from={tuned['sum']}", f"--to={exported}", "--format=huggingface"]
    assert convert(["convert", *arguments, "--task_name=moods"]) == 0
    model = open_pretrained(exported)
    assert (model.model_class, model.labels) == ("BertForSequenceClassification", ("no", "yes"))
    assert "pooler" in model.load_parameters()["bert"]
    arguments[1] = f"--to={tmp_path / 'tags'}"
    assert convert(["convert", *arguments, "--task_name=tags"]) == 0
    assert open_pretrained(tmp_path / "tags").model_class == "BertForTokenClassification"


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (None, "is a model of the tasks moods, scores, tags: choose one by --task_name=moods"),
        ("mods", "--task_name=mods: "),
    ],
)
def test_which_of_the_tasks_must_be_said(tmp_path, files, tuned, capsys, task, message):
    flag = [f"--task_name={task}"] if task else []
    arguments = [f"--model={tuned['sum']}", f"--input={files / 'moods.csv'}", f"--output={tmp_path / 'out.jsonl'}"]
    assert predict(["predict", *arguments, *flag]) == 2
    error = capsys.readouterr().err
    assert message in error and "moods, scores, tags" in error and error.count("\n") == 1
    assert convert(["convert", f"--from={tuned['sum']}", f"--to={tmp_path / 'x'}", "--format=bert_jax", *flag]) == 2
    assert message in capsys.readouterr().err


def test_a_run_begins_with_the_heads_of_another(tmp_path, tuned, tune, entries, capsys):
    moods = {"moods": entries["moods"]}
    assert tune(tmp_path / "run", tasks=moods, init_from=tuned["sum"], epochs=1) == 0
    printed = capsys.readouterr().out
    assert "loaded:     tasks/moods/classifier/kernel" in printed
    assert "unexpected: tasks/tags/classifier/kernel (not used)" in printed
    # Of one task, the name need not be said.
    output = tmp_path / "out.jsonl"
    arguments = [f"--model={tmp_path / 'run'}", f"--input={entries['moods']['dev']}", f"--output={output}"]
    assert predict(["predict", *arguments]) == 0 and len(output.read_text().splitlines()) == len(_MOODS)


@pytest.mark.slow
def test_on_eight_devices_it_is_the_same_run(tmp_path, tune, entries, repository_root, read_log):
    flags = {"batch_size": 8, "epochs": 1}
    assert tune(tmp_path / "one", **flags) == 0
    (tmp_path / "tasks.json").write_text(json.dumps(entries))
    model = repository_root / "tests" / "golden" / "BertModel"
    flags = {**_FLAGS, **flags, "tasks": tmp_path / "tasks.json", "init_from": model, "workdir": tmp_path / "eight"}
    arguments = [f"--{name}={value}" for name, value in {**flags, "mesh": "data:4,fsdp:2"}.items()]
    arguments += [f"--gin_param={binding}" for binding in _BINDINGS]
    devices = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-m", "launch.finetune", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(repository_root), "XLA_FLAGS": devices},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "on 8 cpu device(s)" in done.stdout
    logs = [read_log(tmp_path / workdir, "train") for workdir in ("eight", "one")]
    assert len(logs[0]) == len(logs[1]) == 2
    for ours, theirs in zip(*logs, strict=True):
        assert ours.pop("split") == theirs.pop("split")
        assert ours == pytest.approx(theirs, rel=1e-3)


def test_several_seeds(tmp_path, tune, capsys):
    assert tune(tmp_path / "runs", epochs=1, seeds=2) == 0
    assert "mean_score" in capsys.readouterr().out
    results = json.loads((tmp_path / "runs" / "results.json").read_text())
    assert results["metric"] == "mean_score"


def test_words_and_pairs_begin_with_the_heads_of_pre_training(tmp_path, tune, repository_root, capsys):
    model = repository_root / "tests" / "golden" / "BertForPreTraining"
    assert tune(tmp_path / "run", "finetune.mlm_weight=0.1", init_from=model, epochs=1) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    named = {status: [line[1] for line in lines if line[:1] == [status]] for status in ("loaded:", "missing:")}
    for task in ("moods", "scores", "tags"):
        assert f"tasks/{task}/masked_lm/transform/kernel" in named["loaded:"]
        assert f"tasks/{task}/classifier/kernel" in named["missing:"]
    assert not any("masked_lm" in name for name in named["missing:"])


def test_what_the_recipe_adds_works_for_each_task(tmp_path, tune, read_log, capsys, entries):
    tasks = {name: entries[name] for name in ("moods", "tags")}
    bindings = ("ema_decay=0.5", "mask_probability=0.2", "frozen_layers=1", "layer_decay=0.9", "mlm_weight=0.1")
    assert tune(tmp_path / "run", *(f"finetune.{binding}" for binding in bindings), tasks=tasks, epochs=1) == 0
    assert "parameters are trained" in capsys.readouterr().out
    assert read_log(tmp_path / "run", "train")[0]["tags/mlm_loss"] > 0


@pytest.mark.parametrize(
    ("change", "flags", "message"),
    [
        (lambda tasks: "{", {}, "no valid JSON"),
        (lambda tasks: "[]", {}, "no JSON object, but a list"),
        (lambda tasks: "{}", {}, "must be a JSON object of at least one task"),
        (lambda tasks: "[" * 100_000, {}, "nested too deeply"),
        (lambda tasks: {"moods": {**tasks["moods"], "weight": 10**400}}, {}, "a number of more than 64 bits"),
        (lambda tasks: '{"a": {}, "a": {}}', {}, "'a' stands there twice"),
        (lambda tasks: {"my task": tasks["moods"]}, {}, "a task cannot be called 'my task'"),
        (lambda tasks: {"layers": tasks["moods"]}, {}, "a task cannot be called 'layers'"),
        (lambda tasks: {"moods": "moods.csv"}, {}, "moods is 'moods.csv', not an object: write"),
        (
            lambda tasks: {"moods": {**tasks["moods"], "weigth": 2}},
            {},
            "moods: unknown key 'weigth': did you mean 'weight'?",
        ),
        (
            lambda tasks: {"moods": {**tasks["moods"], "weight": -1}},
            {},
            "moods: weight must be a number above 0, not -1",
        ),
        (
            lambda tasks: {"moods": {**tasks["moods"], "header": True}},
            {},
            "header is true, not a string or a whole number",
        ),
        (lambda tasks: {"moods": {"dev": "x.csv"}}, {}, "moods: train is missing"),
        (lambda tasks: {"moods": {**tasks["moods"], "task": "parsing"}}, {}, "moods: flag --task=parsing"),
        (lambda tasks: {"moods": {**tasks["moods"], "train": "no.csv"}}, {}, "moods: no such file: no.csv"),
        (lambda tasks: {"moods": {**tasks["moods"], "doc_stride": 3}}, {}, "moods: --doc_stride is for"),
        (lambda tasks: tasks, {"train": "train.csv"}, "--train says something of one task"),
        (lambda tasks: tasks, {"task": "tagging"}, "--task says something of one task"),
        (lambda tasks: tasks, {"partitioner": "pmap"}, "use --partitioner=jit"),
        (lambda tasks: tasks, {"mixing": "mean"}, "mixing must be one of sum, proportional"),
        (lambda tasks: tasks, {"few_shot": 2}, "scores: finetune.few_shot is for texts with labels"),
        (lambda tasks: tasks, {"tasks_file": "no_such.json"}, "--tasks=no_such.json: no such file"),
        (lambda tasks: tasks, {"tasks_file": False, "mixing": "sum", "train": "x", "dev": "x"}, "is for several tasks"),
    ],
)
def test_mistakes_are_one_line(tmp_path, tune, entries, capsys, change, flags, message):
    assert tune(tmp_path / "run", tasks=change(entries), **flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert not (tmp_path / "run").exists()
