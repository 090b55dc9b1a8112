"""Which of several evaluations is the best, and when there is no more to hope for, or to ask for."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class BestBy:
    """The metric of the validation split that decides.

    Attributes:
        metric: its name.
        larger_is_better: whether it is.
    """

    metric: str = "loss"
    larger_is_better: bool = False

    @classmethod
    def of_run(cls, run: Mapping[str, Any]) -> "BestBy":
        """Reads what a checkpoint notes; those of before there was a choice went by the loss."""
        return cls(**run["best_by"]) if "best_by" in run else cls()

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint notes."""
        return {"best_by": dataclasses.asdict(self)}

    def badness(self, validation: Mapping[str, float]) -> float:
        """The metric, turned so that the smallest is the best; what is not a number is worse than all."""
        value = float(validation[self.metric])
        if math.isnan(value):
            return math.inf
        return -value if self.larger_is_better else value


@dataclasses.dataclass(frozen=True)
class LossGoal:
    """Ends a run that is good enough: once every loss of an evaluation is below a threshold.

    Attributes:
        below: the threshold.
        losses: the metrics that must be below it.
    """

    below: float
    losses: Sequence[str] = ("loss",)

    def is_reached(self, validation: Mapping[str, float]) -> bool:
        """Whether an evaluation's losses are all below; one that is no number is not."""
        return all(validation[name] < self.below for name in self.losses)

    def describe(self) -> str:
        """Says what was reached."""
        return f"{' and '.join(self.losses)} of the dev set below {self.below:g}"


class EarlyStopping:
    """Ends a run that has not become better for some evaluations."""

    def __init__(self, patience: int, min_delta: float = 0.0, record: Mapping[str, Any] | None = None):
        """Begins, or goes on where a checkpoint's record ends.

        Args:
            patience: evaluations without a better metric before the run ends.
            min_delta: by how much better counts.
            record: what `to_json` returned when the checkpoint was saved.
        """
        self._patience = patience
        self._min_delta = min_delta
        self._best: float | None = (record or {}).get("best")
        self._since = (record or {}).get("evaluations_since", 0)

    def add(self, badness: float) -> bool:
        """Takes an evaluation, the smaller the better; returns whether the run ends."""
        if self._best is None or badness < self._best - self._min_delta:
            self._best, self._since = badness, 0
        else:
            self._since += 1
        return self._since >= self._patience

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"best": self._best, "evaluations_since": self._since}
