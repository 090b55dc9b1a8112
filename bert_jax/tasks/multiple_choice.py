"""Multiple choice: which of several texts goes on, or answers (Devlin et al. 2018, section 4.4; SWAG, RACE)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bert_jax.config import BertConfig
from bert_jax.errors import UserError
from bert_jax.models.execution import Execution
from bert_jax.tasks.encoding.choices import ChoiceEncoder
from bert_jax.tasks.encoding.encoded_rows import EncodedRows
from bert_jax.tasks.examples.example_types import ChoiceExample
from bert_jax.tasks.examples.places import BadRows
from bert_jax.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from bert_jax.tasks.objectives import ChoiceObjective

_METRICS = ("accuracy", "loss")


class MultipleChoice:
    """See the module and `FineTuningTask`. The choices of an example are one unit of its rows."""

    name = "multiple_choice"
    model_class = "BertForSequenceClassification"
    labels: Sequence[str] | None = None
    markers: Sequence[str] = ()

    def __init__(self, num_choices: int, main_metric: str | None = None):
        """Makes the task.

        Args:
            num_choices: of an example at most.
            main_metric: the one that decides; accuracy if None.
        """
        self.num_choices = num_choices
        self.main_metric = main_metric or "accuracy"
        self.larger_is_better = self.main_metric != "loss"
        if self.main_metric not in _METRICS:
            raise UserError(f"there is no metric {self.main_metric!r:.60} here: choose one of {', '.join(_METRICS)}")

    @classmethod
    def of(cls, examples: Sequence[ChoiceExample], main_metric: str | None = None) -> "MultipleChoice":
        """Makes the task for as many choices as the examples have."""
        return cls(max(len(example.choices) for example in examples), main_metric)

    def to_json(self) -> dict[str, Any]:
        """See `FineTuningTask`."""
        return {"task": self.name, "num_choices": self.num_choices, "main_metric": self.main_metric}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "MultipleChoice":
        """Inverse of `to_json`."""
        return cls(values["num_choices"], values["main_metric"])

    def objective(self, config: BertConfig, execution: Execution) -> "ChoiceObjective":
        """See `FineTuningTask`."""
        from bert_jax.tasks.objectives import ChoiceObjective

        return ChoiceObjective(config, execution=execution)

    def usable(self, examples: Iterable[ChoiceExample], bad_rows: BadRows) -> Iterator[ChoiceExample]:
        """See `FineTuningTask`: those with no more choices than the task has."""
        for example in examples:
            if len(example.choices) > self.num_choices:
                reason = f"{len(example.choices)} choices, and the model was tuned for {self.num_choices} at most"
                bad_rows.reject(example.place, reason)
                continue
            yield example

    def encoder(self, tokenizer: Tokenizer, max_seq_len: int, long_texts: str) -> ChoiceEncoder:
        """See `FineTuningTask`; the target is `labels`, see `ChoiceObjective`."""
        return ChoiceEncoder(tokenizer, max_seq_len, self.num_choices, long_texts)

    def score(self, examples: Sequence[ChoiceExample], rows: EncodedRows, outputs: Any) -> dict[str, float]:
        """See `FineTuningTask`."""
        chosen = self._probabilities(examples, outputs).argmax(axis=1)
        return {"accuracy": float((chosen == _answers(examples)).mean())}

    def baseline(self, training: Sequence[ChoiceExample], examples: Sequence[ChoiceExample]) -> dict[str, float]:
        """See `FineTuningTask`: the choice at the place where the right one stands most often."""
        place = np.bincount(_answers(training)).argmax()
        return {"accuracy": float((_answers(examples) == place).mean())}

    def report(self, examples: Sequence[ChoiceExample], rows: EncodedRows, outputs: Any) -> list[str]:
        """See `FineTuningTask`: nothing beyond the accuracy."""
        return []

    def predictions(
        self, examples: Sequence[ChoiceExample], rows: EncodedRows, outputs: Any
    ) -> Iterator[dict[str, Any]]:
        """See `FineTuningTask`: the choice by its number from 0, its text, and the probabilities of all."""
        for example, probabilities in zip(examples, self._probabilities(examples, outputs), strict=True):
            best = int(probabilities.argmax())
            yield {
                "id": example.id,
                "answer": best,
                "text": example.choices[best],
                "probabilities": probabilities[: len(example.choices)].tolist(),
            }

    def _probabilities(self, examples: Sequence[ChoiceExample], outputs: Any) -> np.ndarray:
        """Float64 `[examples, choices]`; 0 where an example has no such choice."""
        logits = np.asarray(outputs["logits"], np.float64).reshape(len(examples), self.num_choices)
        counts = np.asarray([len(example.choices) for example in examples])
        logits = np.where(np.arange(self.num_choices) < counts[:, None], logits, -np.inf)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        return weights / weights.sum(axis=1, keepdims=True)


def _answers(examples: Sequence[ChoiceExample]) -> np.ndarray:
    return np.asarray([example.answer for example in examples], np.int64)
