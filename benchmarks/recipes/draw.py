"""Draws what `benchmarks.recipes.screen` found: how the recipes learn, and what changing one factor costs.

python -m benchmarks.recipes.draw wiki18.jsonl --output=docs/recipe.png
"""

import argparse
import json
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.recipes.trials import FACTORS, OF_2018
from bert_jax.training.figure_file import replace_figure

_BEST = "best"
_BETTER, _WORSE = "#4878a8", "#d1602a"


def read(paths: Sequence[pathlib.Path]) -> dict[str, list[dict[str, Any]]]:
    """Returns the results of each recipe, one for each seed."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in paths:
        for line in path.read_text().splitlines():
            result = json.loads(line)
            found.setdefault(result["name"], []).append(result)
    return found


def end(results: Sequence[dict[str, Any]]) -> float:
    """Returns the mean over the seeds of the last loss less the unigram's."""
    return statistics.fmean(result["points"][-1]["loss"] for result in results)


def draw(found: dict[str, list[dict[str, Any]]], output: pathlib.Path) -> None:
    """Draws curves on the left, and on the right each factor's end beside that of the best recipe."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7.5), dpi=100, layout="constrained")
    curves, bars = figure.subplots(1, 2, width_ratios=(1, 1.25))
    minutes = found[_BEST][0]["cpu_minutes"]
    for name in (_BEST, *OF_2018):
        if name in found:
            points = found[name][0]["points"]
            shares = [0.0, *(point["share"] * minutes for point in points)]
            losses = [0.0, *(point["loss"] for point in points)]
            style = {"linewidth": 2.6, "color": "black"} if name == _BEST else {"linewidth": 1.4}
            curves.plot(shares, losses, "o-", markersize=4, label=name, **style)
    curves.axhline(0, color="#666666", linestyle="--", linewidth=1.2)
    curves.set_xlabel(f"CPU-minutes (each schedule ends at {minutes:g})")
    curves.set_title("loss over hidden words less the unigram's, nats", fontsize=10, loc="left")
    curves.legend(fontsize=8, frameon=False, loc="lower left")

    factors = sorted((name for name in FACTORS if name in found), key=lambda name: -end(found[name]))
    differences = [end(found[name]) - end(found[_BEST]) for name in factors]
    colours = [_WORSE if difference > 0 else _BETTER for difference in differences]
    bars.barh(factors, differences, color=colours)
    bars.axvline(0, color="black", linewidth=1)
    bars.set_title("one factor changed: nats more (worse) or less (better) at the end", fontsize=10, loc="left")
    bars.tick_params(axis="y", labelsize=8)
    for axes in (curves, bars):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    replace_figure(figure, output)


def main() -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=pathlib.Path, nargs="+", help="of benchmarks.recipes.screen")
    parser.add_argument("--output", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    draw(read(arguments.results), arguments.output)


if __name__ == "__main__":
    main()
