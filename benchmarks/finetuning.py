"""Fine-tuning here beside the same recipe in PyTorch: the dev set's metric over several seeds, and wall-clock time.

Runs `launch.finetune` and `benchmarks/finetuning_in_pytorch.py` in turns, each as a process of its own, seed after
seed, so that both see the same machine; times are of whole processes: start, reading, compilation, training, evaluation
and checkpoints. Programs are compiled anew each time: no cache of earlier runs is used.

Example: python -m benchmarks.finetuning --train=train.tsv --dev=dev.tsv --text=sentence --label=label --model=MODEL \
    --pytorch=OTHER_ENVIRONMENT/bin/python --workdir=DIR --seeds=0,1,2 -- --learning_rate=5e-5 --epochs=2
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import numpy as np

_PYTORCH = pathlib.Path(__file__).with_name("finetuning_in_pytorch.py")
_OURS, _THEIRS = "bert_jax", "PyTorch"


def run(command: list[str], output: pathlib.Path) -> float:
    """Runs a command, its output into a file; returns the seconds. A RuntimeError if it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    began = time.perf_counter()
    with output.open("w") as file:
        finished = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
    if finished.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {finished.returncode}: see {output}")
    return time.perf_counter() - began


def our_best(workdir: pathlib.Path, metric: str) -> float:
    """Returns the best of the run's evaluations."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return max(line[metric] for line in lines if line["split"] == "validation")


def main() -> None:
    """Prints a line as each run ends, and a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("train", "dev", "text", "label", "model", "pytorch", "workdir"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--pair")
    parser.add_argument("--metric", default="accuracy", choices=("accuracy", "f1"))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("recipe", nargs="*", help="flags that both understand, after --: --learning_rate=..., ...")
    values = parser.parse_args()
    files = [f"--{name}={getattr(values, name)}" for name in ("train", "dev", "metric")]
    columns = {name: getattr(values, name) for name in ("text", "pair", "label") if getattr(values, name)}
    home = pathlib.Path(values.workdir)
    home.mkdir(parents=True, exist_ok=True)

    metrics: dict[str, list[float]] = {_OURS: [], _THEIRS: []}
    seconds: dict[str, list[float]] = {_OURS: [], _THEIRS: []}
    for seed in values.seeds.split(","):
        for side in (_OURS, _THEIRS):
            workdir = home / f"{side}_{seed}"
            if workdir.exists():
                shutil.rmtree(workdir)
            common = [*files, f"--workdir={workdir}", f"--seed={seed}", *values.recipe]
            output = home / f"{side}_{seed}.txt"
            if side == _OURS:
                launcher = [sys.executable, "-m", "launch.finetune", "--task=classification"]
                named = [f"--{name}_column={column}" for name, column in columns.items()]
                seconds[side].append(run([*launcher, f"--init_from={values.model}", *named, *common], output))
                metrics[side].append(our_best(workdir, values.metric))
            else:
                named = [f"--{name}={column}" for name, column in columns.items()]
                script = [values.pytorch, str(_PYTORCH), f"--model={values.model}"]
                seconds[side].append(run([*script, *named, *common], output))
                last = json.loads(output.read_text().splitlines()[-1])
                metrics[side].append(last["best"][values.metric])
            print(
                f"seed {seed}, {side}: {values.metric} {metrics[side][-1]:.4f}, {seconds[side][-1]:.1f} s", flush=True
            )

    print(f"\n{'':<12}{values.metric + ' by seed':<28}{'mean':>8}{'deviation':>11}{'median s':>10}")
    for side in (_OURS, _THEIRS):
        shown = " ".join(f"{value:.4f}" for value in metrics[side])
        deviation = np.std(metrics[side], ddof=1) if len(metrics[side]) > 1 else float("nan")
        row = f"{np.mean(metrics[side]):>8.4f}{deviation:>11.4f}{np.median(seconds[side]):>10.1f}"
        print(f"{side:<12}{shown:<28}{row}")
    ratios = np.asarray(seconds[_OURS]) / np.asarray(seconds[_THEIRS])
    print(f"\nour seconds over PyTorch's, by seed: {' '.join(f'{ratio:.2f}' for ratio in ratios)}")


if __name__ == "__main__":
    main()
