"""What several fine-tuning runs came to: which were asked for, what each reached, and the tables that compare them."""

import dataclasses
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True, order=True)
class Setting:
    """What the runs of a sweep differ in beside the seed.

    Attributes:
        learning_rate: the peak.
        batch_size: examples a step.
        epochs: how many times each training example is seen.
    """

    learning_rate: float
    batch_size: int
    epochs: float

    def run_name(self, seed: int) -> str:
        """Returns the folder's name of the run with this seed; no two settings share one."""
        rate, epochs = (repr(float(value)).removesuffix(".0") for value in (self.learning_rate, self.epochs))
        return f"lr{rate}_batch{self.batch_size}_epochs{epochs}_seed{seed}"

    def __str__(self) -> str:
        return f"learning rate {self.learning_rate:g}, batches of {self.batch_size}, {self.describe_epochs()}"

    def describe_epochs(self) -> str:
        """Says how many epochs, for people."""
        return f"{self.epochs:g} epoch{'' if self.epochs == 1 else 's'}"


@dataclasses.dataclass(frozen=True)
class RunResult:
    """One run that is over.

    Attributes:
        setting: its setting.
        seed: its seed.
        metrics: of the dev set at the best checkpoint, the sweep's metric among them; None if the run failed.
        step: of the best checkpoint; None if the run failed.
        seconds: that the run took, with compilation, evaluations and checkpoints; None if it failed.
        failure: why there are no metrics, in one line; None if there are.
    """

    setting: Setting
    seed: int
    metrics: Mapping[str, float] | None = None
    step: int | None = None
    seconds: float | None = None
    failure: str | None = None

    @property
    def name(self) -> str:
        """The run's folder below the sweep's."""
        return self.setting.run_name(self.seed)


@dataclasses.dataclass(frozen=True)
class SettingResult:
    """The runs of one setting.

    Attributes:
        setting: the setting.
        metric: the name of the metric that counts.
        larger_is_better: whether it is.
        runs: those that are over, by seed.
    """

    setting: Setting
    metric: str
    larger_is_better: bool
    runs: Sequence[RunResult]

    @property
    def finished(self) -> list[RunResult]:
        """The runs that have metrics."""
        return [run for run in self.runs if run.metrics is not None]

    @property
    def values(self) -> list[float]:
        """The metric of each finished run."""
        return [run.metrics[self.metric] for run in self.finished]

    @property
    def mean(self) -> float | None:
        """Over the finished runs; None without any."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def deviation(self) -> float | None:
        """The sample standard deviation over the finished runs (n - 1 degrees of freedom); None for fewer than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def best(self) -> RunResult | None:
        """The best finished run; of equal ones the first."""
        best = max if self.larger_is_better else min
        return best(self.finished, key=lambda run: run.metrics[self.metric], default=None)

    @property
    def minutes(self) -> float | None:
        """That a finished run took on average."""
        return statistics.fmean(run.seconds for run in self.finished) / 60 if self.finished else None


@dataclasses.dataclass(frozen=True)
class SweepResults:
    """All runs of a sweep that are over so far.

    Attributes:
        metric: the name of the metric that counts.
        larger_is_better: whether it is.
        runs: in the order in which they were asked for.
        asked_for: how many runs the sweep has in all.
        baseline: the metric of never looking at the text, where there is such an answer.
    """

    metric: str
    larger_is_better: bool
    runs: Sequence[RunResult]
    asked_for: int
    baseline: float | None = None

    def settings(self) -> list[SettingResult]:
        """Returns the settings, the best mean first; of equal ones the smaller setting, those that failed last."""
        by_setting: dict[Setting, list[RunResult]] = {}
        for run in self.runs:
            by_setting.setdefault(run.setting, []).append(run)

        def rank(result: SettingResult) -> tuple[float, Setting]:
            mean = result.mean
            badness = math.inf if mean is None else -mean if self.larger_is_better else mean
            return badness, result.setting

        results = [
            SettingResult(setting, self.metric, self.larger_is_better, runs) for setting, runs in by_setting.items()
        ]
        return sorted(results, key=rank)

    @property
    def best(self) -> SettingResult | None:
        """The setting with the best mean; None where every run failed."""
        return next((result for result in self.settings() if result.finished), None)

    def failures(self) -> list[RunResult]:
        """Returns the runs that failed."""
        return [run for run in self.runs if run.failure is not None]

    def to_json(self) -> dict[str, Any]:
        """Returns everything, for programs."""
        return {
            "metric": self.metric,
            "metric_of": "the best checkpoint of each run",
            "larger_is_better": self.larger_is_better,
            "baseline": self.baseline,
            "runs_asked_for": self.asked_for,
            "settings": [
                {
                    **dataclasses.asdict(result.setting),
                    "mean": result.mean,
                    "standard_deviation": result.deviation,
                    "runs": len(result.finished),
                    "runs_failed": len(result.runs) - len(result.finished),
                    "best": result.best.metrics[self.metric] if result.best else None,
                    "best_run": result.best.name if result.best else None,
                    "minutes_per_run": result.minutes,
                }
                for result in self.settings()
            ],
            "runs": [
                {
                    "name": run.name,
                    **dataclasses.asdict(run.setting),
                    "seed": run.seed,
                    "best_step": run.step,
                    "metrics": run.metrics,
                    "seconds": run.seconds,
                    "failure": run.failure,
                }
                for run in self.runs
            ],
        }

    def table(self) -> list[str]:
        """Returns the lines of a table of the settings, in Markdown that is aligned for the eye too."""
        head = (
            "learning rate",
            "batch",
            "epochs",
            f"{self.metric}, mean",
            "deviation",
            "runs",
            "best",
            "minutes a run",
        )
        rows = []
        for result in self.settings():
            failed = len(result.runs) - len(result.finished)
            rows.append(
                (
                    f"{result.setting.learning_rate:g}",
                    str(result.setting.batch_size),
                    f"{result.setting.epochs:g}",
                    _number(result.mean),
                    _number(result.deviation),
                    f"{len(result.finished)}" + (f" ({failed} failed)" if failed else ""),
                    _number(result.best.metrics[self.metric] if result.best else None),
                    _number(result.minutes, 2),
                )
            )
        return list(_markdown(head, rows))

    def notes(self) -> list[str]:
        """Returns lines that say what the table's numbers are, what is missing, and why."""
        over = len(self.runs) - len(self.failures())
        lines = [
            f"{self.metric} of the dev set at the best checkpoint of each run; mean and sample standard deviation over"
            f" the seeds of a setting. {over} of {self.asked_for} runs are finished."
        ]
        if self.baseline is not None:
            lines.append(f"Never looking at the text: {self.metric} {self.baseline:.4f}.")
        return lines + [f"{run.name} failed: {run.failure}" for run in self.failures()]

    def to_markdown(self) -> str:
        """Returns a page with the table of the settings, what it says, and a table of the runs."""
        head = ("run", self.metric, "best step", "minutes")
        rows = [
            (
                run.name,
                _number(run.metrics[self.metric] if run.metrics else None),
                "-" if run.step is None else str(run.step),
                _number(None if run.seconds is None else run.seconds / 60, 2),
            )
            for run in self.runs
        ]
        best = self.best
        lines = [f"# {self.metric} by setting", "", *self.table(), ""]
        lines += [line for note in self.notes() for line in (note, "")]
        lines += [f"Best: {best.setting}.", ""] if best else []
        return "\n".join([*lines, "## Runs", "", *_markdown(head, rows), ""])


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yields the lines of a table: the first column is aligned to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    ruler = [f":{'-' * (widths[0] - 1)}", *(f"{'-' * (width - 1)}:" for width in widths[1:])]
    for first, *others in (head, ruler, *rows):
        cells = [f"{first:<{widths[0]}}", *(f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True))]
        yield f"| {' | '.join(cells)} |"
