"""Compares recipes of pre-training, each for the same CPU-minutes, and prints one table; finished ones are kept.

    python -m benchmarks.recipes.screen --data=/tmp/wiki18 --results=wiki18.jsonl --cpu_minutes=4
    python -m benchmarks.recipes.screen --data=/tmp/wiki18 --results=wiki18.jsonl --only=best --only=AdamW --seeds=0,1,2
    python -m benchmarks.recipes.screen --data=/tmp/wiki_books --results=hour.jsonl --only=best --cpu_minutes=120 \
        --shares=0.0833,0.1667,0.3333,0.6667,1

Nothing else should run meanwhile: a shared cache makes every CPU-minute shorter. On two cores, two such processes, each
pinned to one (taskset -c 0, taskset -c 1) and with results of its own, use them best.
"""

import argparse
import json
import pathlib
import statistics
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.recipes.training import Yardstick, train
from benchmarks.recipes.trials import TRIALS
from launch.host_memory import keep_freed_memory


def table(results: list[dict[str, Any]], shares: Sequence[float]) -> str:
    """Returns the losses less the unigram's at each point, the best recipe first; of several seeds, their means."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for one in results:
        by_name.setdefault(one["name"], []).append(one)

    def mean(name: str, point: int, metric: str = "loss") -> float:
        return statistics.fmean(one["points"][point][metric] for one in by_name[name])

    points = "".join(f"{share:>8.0%}" for share in shares)
    lines = [f"{'recipe':<42}{'seeds':>6}{'steps':>7}{points}{'+-':>7}{'right':>8}"]
    for name in sorted(by_name, key=lambda name: mean(name, -1)):
        ends = [one["points"][-1]["loss"] for one in by_name[name]]
        losses = "".join(f"{mean(name, point):>8.3f}" for point in range(len(shares)))
        spread = f"{statistics.stdev(ends):>7.3f}" if len(ends) > 1 else f"{'':>7}"
        right = f"{mean(name, -1, 'accuracy'):>8.1%}"
        lines.append(f"{name:<42}{len(ends):>6}{by_name[name][0]['steps']:>7}{losses}{spread}{right}")
    return "\n".join(lines)


def main() -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=pathlib.Path, required=True, help="directory that benchmarks.recipes.corpus made"
    )
    parser.add_argument(
        "--results", type=pathlib.Path, required=True, help="file of JSON lines; finished ones are read"
    )
    parser.add_argument("--cpu_minutes", type=float, default=4.0)
    parser.add_argument("--shares", default="0.25,0.5,0.75,1", help="of the steps, after which it is scored")
    parser.add_argument("--seeds", default="0", help="numbers between commas")
    parser.add_argument("--only", action="append", help="name of a recipe; may repeat; all if not given")
    arguments = parser.parse_args()
    shares = [float(share) for share in arguments.shares.split(",")]
    names = arguments.only or list(TRIALS)
    unknown = [name for name in names if name not in TRIALS]
    if unknown:
        parser.error(f"--only: no recipe is called {unknown[0]!r}; choose among {', '.join(map(repr, TRIALS))}")
    results = []
    if arguments.results.exists():
        results = [json.loads(line) for line in arguments.results.read_text().splitlines()]
    keep_freed_memory()
    yardstick = Yardstick(arguments.data)
    for seed in map(int, arguments.seeds.split(",")):
        for name in names:
            key = {"name": name, "seed": seed, "cpu_minutes": arguments.cpu_minutes}
            if any(key.items() <= one.items() for one in results):
                continue
            began = time.perf_counter()
            result = train(TRIALS[name], arguments.data, yardstick, arguments.cpu_minutes, seed, shares)
            results.append({**key, **result})
            with arguments.results.open("a") as file:
                file.write(json.dumps(results[-1]) + "\n")
            end = result["points"][-1]
            took = time.perf_counter() - began
            print(f"{name}, seed {seed}: {end['loss']:+.3f}, {end['accuracy']:.1%} in {took:.0f} s", flush=True)
    print(
        f"\nloss over hidden words less the unigram's ({yardstick.unigram:.3f} nats); commonest word right in"
        f" {yardstick.commonest:.1%}; {arguments.cpu_minutes:g} CPU-minutes each"
    )
    chosen = [one for one in results if one["cpu_minutes"] == arguments.cpu_minutes and one["name"] in names]
    print(table(chosen, shares))


if __name__ == "__main__":
    main()
