"""The results of a sweep as a PNG: the metric by learning rate, a line for each batch size, a panel for each epochs."""

import math
import os
from typing import Any

from bert_jax.tasks.sweep_results import SettingResult, SweepResults
from bert_jax.training.figure_file import replace_figure

_COLUMNS = 3
_COLOURS = ("#4878a8", "#d1602a", "#4f9d69", "#8d5ea8", "#b08a2e", "#666666")
# How far the lines of two batch sizes stand apart, where learning rates are 1 apart: error bars do not hide each other.
_APART = 0.12


def draw_sweep(results: SweepResults, image_file: str | os.PathLike[str]) -> None:
    """Draws the mean of each setting, with its sample standard deviation, and every run as a point.

    The file is replaced as a whole.

    Raises:
        UserError: the image cannot be written.
        ValueError: no run has metrics.
    """
    # By objects, not by pyplot, which would keep the figure and choose a window system.
    from matplotlib.figure import Figure

    drawn = [result for result in results.settings() if result.finished]
    if not drawn:
        raise ValueError("no run has metrics")
    panels = sorted({result.setting.epochs for result in drawn})
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(max(4.6, 3.6 * columns), 3.6 * rows + 0.4), dpi=110, layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.remove()
    for number, (axes, epochs) in enumerate(zip(grid, panels, strict=False)):
        _draw_panel(axes, results, drawn, epochs)
        if number % columns == 0:
            axes.set_ylabel(results.metric)
    if handles := grid[0].get_legend_handles_labels()[0]:
        grid[0].legend(handles=handles, fontsize=8, frameon=False)
    several = any(len(result.runs) > 1 for result in drawn)
    about = "mean and standard deviation over the seeds; " if several else ""
    title = f"{results.metric} of the dev set at the best checkpoint of each run"
    figure.suptitle(f"{title}\n({about}points are runs)", fontsize=10)
    replace_figure(figure, image_file)


def _draw_panel(axes: Any, results: SweepResults, drawn: list[SettingResult], epochs: float) -> None:
    # Rates are labels at equal distances: the usual grids are neither linear nor geometric.
    rates = sorted({result.setting.learning_rate for result in drawn})
    batch_sizes = sorted({result.setting.batch_size for result in drawn})
    for number, batch_size in enumerate(batch_sizes):
        colour = _COLOURS[number % len(_COLOURS)]
        shift = (number - (len(batch_sizes) - 1) / 2) * min(_APART, 0.8 / len(batch_sizes))
        line = sorted(
            (result for result in drawn if (result.setting.batch_size, result.setting.epochs) == (batch_size, epochs)),
            key=lambda result: result.setting,
        )
        places = [rates.index(result.setting.learning_rate) + shift for result in line]
        for place, result in zip(places, line, strict=True):
            axes.plot([place] * len(result.values), result.values, "o", color=colour, markersize=3, alpha=0.45)
        axes.errorbar(
            places,
            [result.mean for result in line],
            yerr=[result.deviation or 0.0 for result in line] if any(result.deviation for result in line) else None,
            color=colour,
            marker="s",
            markersize=5,
            linewidth=1.4,
            capsize=3,
            label=f"batches of {batch_size}",
        )
    if results.baseline is not None and _is_near(results.baseline, drawn):
        axes.axhline(results.baseline, color="#666666", linestyle="--", linewidth=1.2, label="not looking at the text")
    axes.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
    axes.set_xlim(-0.5, len(rates) - 0.5)
    axes.set_xlabel("learning rate")
    axes.set_title(f"{epochs:g} epoch{'' if epochs == 1 else 's'}", fontsize=10, loc="left")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _is_near(baseline: float, drawn: list[SettingResult]) -> bool:
    """Whether a line at the baseline leaves the differences between the settings to be seen."""
    values = [value for result in drawn for value in result.values]
    return min(abs(value - baseline) for value in values) <= 1.5 * (max(values) - min(values))
