"""Fine-tuning here beside the same recipe in PyTorch: the dev set's metric over several seeds, and wall-clock time.

Runs `launch.finetune` and `benchmarks/finetuning_in_pytorch.py` in turns, each as a process of its own, seed after
seed, so that both see the same machine; times are of whole processes: start, reading, compilation, training, evaluation
and checkpoints. Programs are compiled anew each time: no cache of earlier runs is used. PyTorch reads the examples that
this project's readers found, and its predictions are scored as its own are.

Flags after -- are those of `launch.finetune`, for classification (one label each), relation or tagging; of the recipe,
PyTorch knows learning rate, epochs, batch size and length.

Example: python -m benchmarks.finetuning --pytorch=OTHER_ENVIRONMENT/bin/python --workdir=DIR --seeds=0,1,2 -- \
    --train=train.tsv --dev=dev.tsv --init_from=MODEL --learning_rate=5e-5 --epochs=2
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

from bert_jax.tasks.finetuning_recipe import FineTune
from bert_jax.tasks.finetuning_task import FineTuningTask
from bert_jax.tasks.relation import RelationExtraction
from bert_jax.tasks.scores.classification import score_classes
from bert_jax.tasks.scores.entities import entity_scores
from bert_jax.tasks.scores.relations import score_relations
from bert_jax.tasks.tagging import Tagging
from launch.configuration import load_finetune
from launch.finetune import define_flags
from launch.finetuning_files import read_task
from launch.finetuning_material import RECIPES

_PYTORCH = pathlib.Path(__file__).with_name("finetuning_in_pytorch.py")
_OURS, _THEIRS = "bert_jax", "PyTorch"
_RECIPE = ("learning_rate", "epochs", "batch_size", "max_seq_len")


def run(command: list[str], output: pathlib.Path) -> float:
    """Runs a command, its output into a file; returns the seconds. A RuntimeError if it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    began = time.perf_counter()
    with output.open("w") as file:
        finished = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
    if finished.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {finished.returncode}: see {output}")
    return time.perf_counter() - began


def write_examples(task: FineTuningTask, examples: Sequence[Any], path: pathlib.Path) -> pathlib.Path:
    """Writes examples for PyTorch, their labels as numbers."""
    numbers = {label: number for number, label in enumerate(task.labels)}
    with path.open("w") as file:
        for example in examples:
            if isinstance(task, Tagging):
                line = {"words": example.words, "labels": [numbers[tag] for tag in example.tags]}
            else:
                pair = {} if example.pair is None else {"pair": example.pair}
                line = {"text": example.text, **pair, "label": numbers[example.label]}
            file.write(json.dumps(line) + "\n")
    return path


def score(task: FineTuningTask, examples: Sequence[Any], predicted: Sequence[Any]) -> float:
    """Returns the task's metric of predictions, numbers of labels."""
    if isinstance(task, Tagging):
        tags = [[task.labels[number] for number in numbers] for numbers in predicted]
        scores = entity_scores([list(example.tags) for example in examples], tags)
    elif isinstance(task, RelationExtraction):
        scores = score_relations([example.label for example in examples], [task.labels[one] for one in predicted])
    else:
        true = np.asarray([task.labels.index(example.label) for example in examples])
        scores = score_classes(true, np.asarray(predicted), task.labels)
    return scores[task.main_metric]


def best_of_ours(workdir: pathlib.Path, metric: str) -> float:
    """Returns the best of the run's evaluations."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return max(line[metric] for line in lines if line["split"] == "validation")


def best_of_theirs(workdir: pathlib.Path, task: FineTuningTask, examples: Sequence[Any]) -> float:
    """Returns the best of the epochs."""
    return max(score(task, examples, json.loads(path.read_text())) for path in workdir.glob("predictions_*.json"))


def read_flags(arguments: Sequence[str]) -> tuple[flags.FlagValues, FineTune]:
    """Parses flags of `launch.finetune`; returns them, and the recipe that they make."""
    values = flags.FlagValues()
    define_flags(values)
    values(["launch.finetune", *arguments])
    overrides = {name: getattr(values, name) for name in _RECIPE}
    recipe, _, _ = load_finetune(values.gin_file or [RECIPES.format(values.task)], values.gin_param, overrides)
    return values, recipe


def main() -> None:
    """Prints a line as each run ends, and a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("pytorch", "workdir"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("flags", nargs="*", help="those of launch.finetune, after --")
    values = parser.parse_args()
    home = pathlib.Path(values.workdir)
    home.mkdir(parents=True, exist_ok=True)
    launcher_flags, recipe = read_flags(values.flags)
    task, training, dev = read_task(launcher_flags)
    markers = ["--markers", *task.markers] if task.markers else []
    their_flags = [
        f"--train={write_examples(task, training, home / 'train.jsonl')}",
        f"--dev={write_examples(task, dev, home / 'dev.jsonl')}",
        f"--num_labels={len(task.labels)}",
        f"--model={launcher_flags.init_from}",
        *(f"--{name}={getattr(recipe, name)}" for name in _RECIPE),
        *markers,
    ]

    metrics: dict[str, list[float]] = {_OURS: [], _THEIRS: []}
    seconds: dict[str, list[float]] = {_OURS: [], _THEIRS: []}
    for seed in values.seeds.split(","):
        for side in (_OURS, _THEIRS):
            workdir = home / f"{side}_{seed}"
            if workdir.exists():
                shutil.rmtree(workdir)
            common = [f"--workdir={workdir}", f"--seed={seed}"]
            output = home / f"{side}_{seed}.txt"
            if side == _OURS:
                seconds[side].append(run([sys.executable, "-m", "launch.finetune", *values.flags, *common], output))
                metrics[side].append(best_of_ours(workdir, task.main_metric))
            else:
                seconds[side].append(run([values.pytorch, str(_PYTORCH), *common, *their_flags], output))
                metrics[side].append(best_of_theirs(workdir, task, dev))
            print(
                f"seed {seed}, {side}: {task.main_metric} {metrics[side][-1]:.4f}, {seconds[side][-1]:.1f} s",
                flush=True,
            )

    print(f"\n{'':<12}{task.main_metric + ' by seed':<28}{'mean':>8}{'deviation':>11}{'median s':>10}")
    for side in (_OURS, _THEIRS):
        shown = " ".join(f"{value:.4f}" for value in metrics[side])
        deviation = np.std(metrics[side], ddof=1) if len(metrics[side]) > 1 else float("nan")
        row = f"{np.mean(metrics[side]):>8.4f}{deviation:>11.4f}{np.median(seconds[side]):>10.1f}"
        print(f"{side:<12}{shown:<28}{row}")
    ratios = np.asarray(seconds[_OURS]) / np.asarray(seconds[_THEIRS])
    print(f"\nour seconds over PyTorch's, by seed: {' '.join(f'{ratio:.2f}' for ratio in ratios)}")


if __name__ == "__main__":
    main()
