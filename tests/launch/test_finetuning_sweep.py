"""python -m launch.finetune --seeds and --sweep: what the table says, and that nothing is trained twice."""

import contextlib
import io
import json
import os
import pathlib
import random
import re
import shlex
import shutil
import signal
import types

import numpy as np
import pytest
from absl import flags

from bert_jax.parallel.memory import MemoryShortage
from bert_jax.tasks.finetuning_recipe import FineTune
from bert_jax.training import metric_writers
from bert_jax.training.best import BestBy
from launch.finetune import define_flags, main
from launch.finetuning_sweep import sweep
from launch.predict import main as predict

_WORDS = ("bana", "kera", "losa", "mita", "tula")


def _write(path: pathlib.Path, count: int, seed: int) -> None:
    draw = random.Random(seed)
    rows = [draw.choices(_WORDS, k=draw.randint(1, 8)) for _ in range(count)]
    lines = [f"{' '.join(words)},{'yes' if words[0] in _WORDS[:2] else 'no'}" for words in rows]
    path.write_text("\n".join(["text,label", *lines]) + "\n")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    _write(folder / "train.csv", 16, 0)
    _write(folder / "dev.csv", 23, 1)
    return folder


@pytest.fixture(scope="module")
def finetune(files, finished_run):
    """Runs the launcher in this process: two steps with an evaluation and a checkpoint after each."""

    def call(workdir, *arguments, **replaced):
        flags = {
            "train": files / "train.csv",
            "dev": files / "dev.csv",
            "init_from": finished_run,
            "workdir": workdir,
            "max_seq_len": 16,
            "epochs": 1,
            "batch_size": 8,
            **replaced,
        }
        bindings = ("padded_lengths=1", "log_every=1", "evaluations_per_epoch=2", "keep_checkpoints=9")
        given = [f"--{name}={value}" for name, value in flags.items() if value is not None]
        return main(["finetune", *arguments, *given, *(f"--gin_param=finetune.{one}" for one in bindings)])

    return call


# Two learning rates, whatever else the recipe says.
_RATES = ("--sweep", "--sweep_learning_rates=1e-3,3e-2", "--sweep_batch_sizes=", "--sweep_epochs=")


@pytest.fixture(scope="module")
def swept(tmp_path_factory, finetune):
    """Four runs, and what was printed; not to be changed."""
    workdir = tmp_path_factory.mktemp("swept") / "sweep"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert finetune(workdir, *_RATES, seeds=2) == 0
    return workdir, printed.getvalue()


def _state(folder: pathlib.Path) -> dict:
    """Everything below a folder, with the times of its last changes."""
    return {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


def _without_clock(workdir: pathlib.Path) -> dict:
    results = json.loads((workdir / "results.json").read_text())
    for entry in [*results["settings"], *results["runs"]]:
        assert entry.pop("minutes_per_run", entry.pop("seconds", None)) is not None
    return results


def _best(read_log, run: pathlib.Path) -> float:
    return max(line["accuracy"] for line in read_log(run, "validation"))


def test_the_table_is_what_the_logs_say(swept, read_log):
    workdir, printed = swept
    results = json.loads((workdir / "results.json").read_text())
    assert results["metric"] == "accuracy" and len(results["runs"]) == results["runs_asked_for"] == 4
    expected = {}
    for rate, name in ((1e-3, "lr0.001"), (3e-2, "lr0.03")):
        runs = [f"{name}_batch8_epochs1_seed{seed}" for seed in (0, 1)]
        values = [_best(read_log, workdir / run) for run in runs]
        expected[rate] = np.mean(values), np.std(values, ddof=1), max(values)
        (setting,) = (setting for setting in results["settings"] if setting["learning_rate"] == rate)
        found = [setting[name] for name in ("mean", "standard_deviation", "best")]
        assert found == pytest.approx(expected[rate], abs=1e-9)
        assert (setting["batch_size"], setting["epochs"], setting["runs"]) == (8, 1, 2)
        # The checkpoint's time is read just after the log's.
        logged = np.mean([_logged_seconds(workdir / run) for run in runs])
        assert logged <= 60 * setting["minutes_per_run"]
        seconds = [run["seconds"] for run in results["runs"] if run["name"] in runs]
        assert setting["minutes_per_run"] == pytest.approx(np.mean(seconds) / 60, abs=1e-9)
    means = [setting["mean"] for setting in results["settings"]]
    assert means == sorted(means, reverse=True)
    rows = re.findall(r"^\| ([\d.]+) +\| +8 \| +1 \| +([\d.]+) \| +([\d.]+) \| +2 \| +([\d.]+) \|", printed, re.M)
    for rate, *numbers in rows:
        assert [float(number) for number in numbers] == pytest.approx(expected[float(rate)], abs=5.1e-5)
    assert [float(row[1]) for row in rows] == pytest.approx(means, abs=5.1e-5)
    page = (workdir / "results.md").read_text()
    assert all(run["name"] in page for run in results["runs"]) and "best checkpoint of each run" in page
    assert (workdir / "results.png").read_bytes().startswith(b"\x89PNG") and not list(workdir.glob("*.unfinished"))


def _logged_seconds(run: pathlib.Path) -> float:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["split"] == "goodput"][-1]
    return sum(value for name, value in last.items() if name.endswith("_seconds"))


def test_files_are_read_once_and_runs_are_ordinary_ones(swept, finetune, capsys):
    workdir, printed = swept
    assert printed.count("16 examples") == 1 and printed.count("done: 2 steps") == 4
    before = _state(workdir)
    assert finetune(workdir / "lr0.001_batch8_epochs1_seed1", learning_rate=1e-3, seed=1) == 0
    assert "is complete: 2 of 2 steps" in capsys.readouterr().out and _state(workdir) == before


def test_the_command_that_it_prints_predicts(tmp_path, files, swept):
    workdir, printed = swept
    command = shlex.split(re.search(r"^ *python -m launch\.(predict .*)$", printed, re.M)[1])
    output = tmp_path / "predictions.jsonl"
    replaced = {"--input=FILE": f"--input={files / 'dev.csv'}", "--output=predictions.jsonl": f"--output={output}"}
    assert replaced.keys() <= set(command)
    assert predict([replaced.get(argument, argument) for argument in command]) == 0
    answers = [json.loads(line)["label"] for line in output.read_text().splitlines()]
    truth = [line.split(",")[1] for line in (files / "dev.csv").read_text().splitlines()[1:]]
    best = json.loads((workdir / "results.json").read_text())["settings"][0]
    assert f"--model={workdir / best['best_run']}" in command
    assert np.mean(np.array(answers) == truth) == pytest.approx(best["best"], abs=1e-9)


def test_started_again_it_trains_what_is_missing_and_nothing_else(tmp_path, swept, finetune, capsys):
    workdir = tmp_path / "sweep"
    shutil.copytree(swept[0], workdir)
    expected = _without_clock(workdir)
    names = [run["name"] for run in expected["runs"]]
    shutil.rmtree(workdir / names[0])
    shutil.rmtree(workdir / names[2] / "checkpoints" / "2")
    (workdir / "results.json").unlink()
    untouched = {name: _state(workdir / name) for name in (names[1], names[3])}
    assert finetune(workdir, *_RATES, seeds=2) == 0
    printed = capsys.readouterr().out
    assert "2 of 4 runs are finished already" in printed and printed.count("resuming from step 1") == 1
    assert printed.count("done: 2 steps") == 2
    assert _without_clock(workdir) == expected
    assert {name: _state(workdir / name) for name in untouched} == untouched
    runs = {name: _state(workdir / name) for name in names}
    assert finetune(workdir, *_RATES, seeds=2) == 0
    assert "4 of 4 runs are finished already" in capsys.readouterr().out
    assert _without_clock(workdir) == expected and {name: _state(workdir / name) for name in names} == runs


@pytest.mark.parametrize(("step", "is_over"), [(1, False), (2, True)])
def test_a_signal_stops_the_sweep_which_goes_on_and_may_grow(
    tmp_path, swept, finetune, capsys, monkeypatch, step, is_over
):
    """At the last step the run itself is over, but not the sweep."""
    write = metric_writers.MetricWriter.write

    def write_and_stop(self, at, split, values):
        write(self, at, split, values)
        if (at, split) == (step, "train"):
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(metric_writers.MetricWriter, "write", write_and_stop)
        assert finetune(tmp_path / "run", learning_rate=1e-3, seeds=2) == 143
    assert f"stopped by SIGTERM: runs left: {1 if is_over else 2}" in capsys.readouterr().out
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [run["name"] for run in results["runs"]] == ["lr0.001_batch8_epochs1_seed0"] * is_over
    assert not (tmp_path / "run" / "lr0.001_batch8_epochs1_seed1").exists()
    if is_over:
        assert finetune(tmp_path / "run", learning_rate=1e-3, seeds=2) == 0
        assert "1 of 2 runs are finished already" in capsys.readouterr().out
    else:
        # What is asked for may grow.
        assert finetune(tmp_path / "run", *_RATES, seeds=2) == 0
        assert "resuming from step 1" in capsys.readouterr().out
    ours, uninterrupted = _without_clock(tmp_path / "run"), _without_clock(swept[0])
    assert [run for run in uninterrupted["runs"] if run in ours["runs"]] == ours["runs"]
    assert [setting for setting in uninterrupted["settings"] if setting in ours["settings"]] == ours["settings"]
    assert is_over or ours == uninterrupted


def test_a_setting_that_fails_is_noted_and_the_others_go_on(tmp_path, finetune, capsys):
    flags = ("--sweep", "--sweep_learning_rates=1e38,1e-3", "--sweep_batch_sizes=", "--sweep_epochs=")
    assert finetune(tmp_path / "sweep", *flags) == 1
    captured = capsys.readouterr()
    assert "error: lr1e+38_batch8_epochs1_seed0: " in captured.err and "best: learning rate 0.001" in captured.out
    assert re.search("lr1e[+]38_batch8_epochs1_seed0 failed: .* at step [12] ", captured.out)
    results = json.loads((tmp_path / "sweep" / "results.json").read_text())
    assert [(setting["learning_rate"], setting["runs"]) for setting in results["settings"]] == [(1e-3, 1), (1e38, 0)]
    assert results["settings"][1]["mean"] is None and results["settings"][0]["standard_deviation"] is None


_SHORTAGES = (
    RuntimeError("RESOURCE_EXHAUSTED: out of memory"),
    MemoryError("cannot allocate"),
    MemoryShortage("not enough memory"),
)


@pytest.mark.parametrize(("few_shot", "prepared"), [(None, [0]), (4, [0, 1])])
def test_examples_drawn_by_the_seed_are_read_for_each_and_no_memory_is_no_end(tmp_path, few_shot, prepared):
    seeds, trained = [], []

    def prepare(values, recipe, architecture):
        seeds.append(recipe.seed)
        return types.SimpleNamespace(
            best_by=BestBy("f1", larger_is_better=True),
            training_data=("data.train",),
            baseline=dict,
            training_examples=recipe.seed,
            total_steps=lambda recipe: 1,
            identity=lambda recipe: recipe.identity() | {"data.train": recipe.seed},
        )

    def fine_tune(values, recipe, operative_config, material, goodput):
        trained.append((pathlib.Path(values.workdir).name, material.training_examples))
        raise _SHORTAGES[len(trained) % len(_SHORTAGES)]

    values = flags.FlagValues()
    define_flags(values)
    grid = ("--sweep", "--sweep_learning_rates=", "--sweep_batch_sizes=8,16", "--sweep_epochs=", "--seeds=2")
    values(["finetune", f"--workdir={tmp_path}", "--init_from=model", *grid])
    load = lambda **changed: (FineTune(**{"few_shot": few_shot, "learning_rate": 1e-3, **changed}), None, "")  # noqa: E731
    for _ in range(2):
        assert sweep(values, load, prepare, fine_tune) == 1
        assert seeds == prepared and len({name for name, _ in trained}) == len(trained) == 4
        assert {(name[-1], material) for name, material in trained} == {("0", 0), ("1", prepared[-1])}
        results = json.loads((tmp_path / "results.json").read_text())
        assert [run["failure"] for run in results["runs"]] == [str(_SHORTAGES[at % 3]) for at in (1, 2, 3, 4)]
        seeds.clear()
        trained.clear()


def test_a_dry_run_trains_nothing(tmp_path, finetune, capsys):
    assert finetune(tmp_path / "sweep", "--dry_run", *_RATES) == 0
    printed = capsys.readouterr().out
    assert "a dry run of lr0.001_batch8_epochs1_seed0" in printed
    assert "dry run: nothing was trained" in printed and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"max_seq_len": 12}, "finetune.max_seq_len is 12, but the run in"),
        ({"metric": "f1"}, "task.main_metric is 'f1', but the run in"),
        ({"seeds": 1}, "has the seeds 1, which this one has not"),
        ({"sweep_learning_rates": "1e-3"}, "has the learning rate 0.03, which this one has not"),
        ({"sweep_epochs": "2"}, "epochs is what --sweep varies"),
        ({"epochs": None}, "has the epochs 1.0, which this one has not"),
    ],
)
def test_a_folder_of_another_sweep(swept, finetune, capsys, flags, message):
    before = _state(swept[0])
    assert finetune(swept[0], *_RATES, **{"seeds": 2, **flags}) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and _state(swept[0]) == before


def test_a_folder_of_something_else(tmp_path, swept, finetune, capsys):
    run = swept[0] / "lr0.001_batch8_epochs1_seed0"
    (tmp_path / "notes.txt").write_text("mine")
    before = _state(swept[0]) | _state(tmp_path)
    for workdir, seeds, message in (
        (run, 2, "holds a single run: give --sweep and --seeds another folder"),
        (tmp_path, 2, "holds files, but no sweep"),
        (swept[0], None, "holds files, but no run"),
    ):
        assert finetune(workdir, seeds=seeds) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert finetune(tmp_path, "--sweep", batch_size=None, epochs=None) == 2
    assert f"18 runs in {tmp_path}: settings: 18, seeds of each: 0\n" in capsys.readouterr().out
    assert _state(swept[0]) | _state(tmp_path) == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--sweep_epochs=2",), "is for --sweep: add it"),
        (("--sweep", "--learning_rate=1e-3"), "--learning_rate is what --sweep varies"),
        (("--sweep", "--gin_param=finetune.epochs=2"), "--gin_param=finetune.epochs is what --sweep varies"),
        (("--sweep", "--sweep_batch_sizes=8,big"), "--sweep_batch_sizes=8,big: must be whole numbers, such as 16,32"),
        (("--sweep", "--sweep_batch_sizes=0"), "batch_size must be a whole number from 1 to 2147483647, not 0"),
        (("--sweep", "--sweep_learning_rates=1e-3,-1"), "learning_rate"),
        (("--seeds=2", "--seed=2147483647"), "seed must be a whole number from 0 to 2147483647"),
        (
            ("--seeds=2", "--coordinator=localhost:1", "--num_processes=2", "--process_id=0"),
            "--sweep and --seeds train in one process",
        ),
    ],
)
def test_bad_input_is_one_line(tmp_path, finetune, capsys, flags, message):
    assert finetune(tmp_path / "sweep", *flags, batch_size=None, epochs=None) == 2
    error = capsys.readouterr().err
    assert (
        message in error and error.strip().count("\n") <= message.startswith("seeds") and not list(tmp_path.iterdir())
    )
