"""The learning curves of a run, drawn from its metrics.jsonl to a PNG."""

import math
import os
from collections import defaultdict
from typing import Any

import numpy as np

from bert_jax.errors import UserError
from bert_jax.text.json_files import is_type
from bert_jax.training import metric_writers
from bert_jax.training.figure_file import replace_figure

# Metric, title, and whether it is one of the training split only.
PANELS = (
    ("loss", "loss", False),
    ("mlm_loss", "masked-word loss", False),
    ("mlm_hidden_loss", "loss of hidden words", False),
    ("mlm_hidden_accuracy", "accuracy of hidden words", False),
    ("mlm_accuracy", "masked-word accuracy", False),
    ("nsp_accuracy", "next-sentence accuracy", False),
    ("learning_rate", "learning rate", True),
)
# What follows the metric's name in the validation lines, what it is, and how it is dashed.
BASELINES = (
    ("_baseline", "frequencies alone", "--"),
    ("_copier_baseline", "copying without context", ":"),
    ("_bigram_baseline", "nearest neighbours, counted", "-."),
)
TRAIN_COLOUR, VALIDATION_COLOUR, BASELINE_COLOUR = "#4878a8", "#d1602a", "#666666"

# (split, metric) -> steps [points], values [points]
Curves = dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]


def read_curves(metrics_file: str | os.PathLike[str]) -> Curves:
    """Returns the metrics of a run: steps and values [points] by (split, metric), in the order of the steps.

    Values that are no number (null) are left out, and so are torn lines: the run may be writing.
    """
    points: dict[tuple[str, str], tuple[list[int], list[float]]] = defaultdict(lambda: ([], []))
    try:
        with open(metrics_file, "rb") as lines:
            for record in filter(None, map(metric_writers.parse_line, lines)):
                for metric, value in record.items():
                    if metric != "step" and is_type(value, float) and is_type(record["step"], int):
                        steps, values = points[record["split"], metric]
                        steps.append(record["step"])
                        values.append(value)
    except OSError as error:
        raise UserError(f"cannot read {metrics_file}: {error.strerror or error}") from error
    return {key: (np.asarray(steps), np.asarray(values, float)) for key, (steps, values) in points.items()}


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Returns the mean of each value and the `window` // 2 on either side of it, as far as there are any [points]."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    centre = np.arange(len(values))
    first = np.maximum(centre - window // 2, 0)
    end = np.minimum(centre + window // 2 + 1, len(values))
    return (sums[end] - sums[first]) / (end - first)


def draw_curves(metrics_file: str | os.PathLike[str], image_file: str | os.PathLike[str]) -> None:
    """Draws loss, accuracies and learning rate over the steps to a PNG; a metric that the run lacks gets no panel.

    Of a run of several tasks, the loss of each has a panel too. Training is a thin line with its smoothed course over
    it, validation are points, and what is reached without a model (BASELINES, such as `mlm_accuracy_baseline` of the
    validation lines) is dashed. The file is replaced as a whole.

    Raises:
        UserError: the metrics cannot be read, hold nothing to draw, or the image cannot be written.
    """
    # By objects, not by pyplot, which would keep the figure and choose a window system.
    from matplotlib.figure import Figure

    curves = read_curves(metrics_file)
    of_tasks = dict.fromkeys(metric for _, metric in curves if metric.endswith("/loss"))
    known = [*PANELS, *((metric, f"loss of {metric.removesuffix('/loss')}", False) for metric in of_tasks)]
    panels = [panel for panel in known if any((split, panel[0]) in curves for split in ("train", "validation"))]
    if not panels:
        raise UserError(f"{metrics_file}: no line with a metric to draw; train for a step first")
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(5.6 * columns, 3.5 * rows), dpi=110, layout="constrained")
    last_step = max(steps[-1] for steps, _ in curves.values())
    for position, (metric, title, train_only) in enumerate(panels):
        axes = figure.add_subplot(rows, columns, position + 1)
        _draw_panel(axes, curves, metric, title, train_only)
        axes.set_xlim(0, max(last_step, 1) * 1.02)
        if position >= len(panels) - columns:
            axes.set_xlabel("step")
    replace_figure(figure, image_file)


def _draw_panel(axes: Any, curves: Curves, metric: str, title: str, train_only: bool) -> None:
    empty = (np.empty(0), np.empty(0))
    steps, values = curves.get(("train", metric), empty)
    marker = "o" if len(steps) == 1 else None
    if train_only:
        axes.plot(steps, values, color=TRAIN_COLOUR, marker=marker)
    elif len(steps):
        axes.plot(steps, values, color=TRAIN_COLOUR, linewidth=0.6, alpha=0.35)
        window = len(values) // 50
        smoothed = smooth(values, window)
        axes.plot(steps, smoothed, color=TRAIN_COLOUR, linewidth=1.6, marker=marker, label="training")
    steps, values = curves.get(("validation", metric), empty)
    if len(steps) and not train_only:
        axes.plot(
            steps, values, "o-", color=VALIDATION_COLOUR, markersize=4, linewidth=1.2, label="validation", zorder=3
        )
        title = f"{title}: validation {values[-1]:.3f}"
    for suffix, what, dashes in BASELINES:
        steps, baseline = curves.get(("validation", metric + suffix), empty)
        if len(steps):
            label = f"{what}: {baseline[-1]:.3f}"
            axes.axhline(baseline[-1], color=BASELINE_COLOUR, linestyle=dashes, linewidth=1.2, label=label, zorder=1)
    axes.set_title(title, fontsize=10, loc="left")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.ticklabel_format(axis="y", scilimits=(-3, 4))
    if metric in ("mlm_accuracy", "mlm_hidden_accuracy", "learning_rate"):
        axes.set_ylim(bottom=0)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, frameon=False)
