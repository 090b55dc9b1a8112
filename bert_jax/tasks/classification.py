"""Classification of texts and pairs: one label, several, or a number (Devlin et al. 2018, section 4.1)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bert_jax.config import BertConfig
from bert_jax.errors import UserError
from bert_jax.models.execution import Execution
from bert_jax.tasks.encoding.encoded_rows import EncodedRows, with_targets
from bert_jax.tasks.encoding.texts import TextEncoder
from bert_jax.tasks.examples.example_types import TextExample
from bert_jax.tasks.examples.labels import check_labels, collect_labels
from bert_jax.tasks.scores import classification, regression
from bert_jax.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from bert_jax.tasks.objectives import TextObjective

# What --labels calls the kinds of answer, and what the objective does.
_ANSWERS = {"single": "classes", "multi": "labels", "float": "value"}
# Of several labels, those that are more likely than not are predicted.
_THRESHOLD = 0.5


class Classification:
    """See the module and `FineTuningTask`.

    A text in several windows gets the mean of their probabilities, or values.
    """

    name = "classification"
    model_class = "BertForSequenceClassification"

    def __init__(
        self,
        kind: str,
        labels: Sequence[str] | None,
        main_metric: str | None = None,
        markers: Sequence[str] = (),
    ):
        """Makes the task.

        Args:
            kind: "single", "multi" or "float".
            labels: their names; None for numbers.
            main_metric: the one that decides; accuracy, micro F1 or Pearson's correlation if None.
            markers: words that are one token each wherever they stand.
        """
        self.kind = kind
        self.labels = tuple(labels) if labels is not None else None
        self.markers = tuple(markers)
        self.main_metric = main_metric or {"single": "accuracy", "multi": "micro_f1", "float": "pearson"}[kind]
        self.larger_is_better = self.main_metric not in ("mse", "loss")
        known = self._metric_names()
        if self.main_metric not in known:
            raise UserError(f"there is no metric {self.main_metric!r} here: choose one of {', '.join(known)}")

    @classmethod
    def of(
        cls,
        training: Sequence[TextExample],
        kind: str,
        labels: Sequence[str] | None = None,
        main_metric: str | None = None,
        markers: Sequence[str] = (),
    ) -> "Classification":
        """Makes the task of training examples, with the labels that they have, or those given."""
        found = None if kind == "float" else collect_labels(training, labels)
        return cls(kind, found, main_metric, markers)

    def to_json(self) -> dict[str, Any]:
        """See `FineTuningTask`."""
        labels = list(self.labels) if self.labels is not None else None
        return {
            "task": self.name,
            "kind": self.kind,
            "labels": labels,
            "main_metric": self.main_metric,
            "markers": list(self.markers),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Classification":
        """Inverse of `to_json`."""
        return cls(values["kind"], values["labels"], values["main_metric"], values["markers"])

    def objective(self, config: BertConfig, execution: Execution) -> "TextObjective":
        """See `FineTuningTask`."""
        from bert_jax.tasks.objectives import TextObjective

        return TextObjective(config, _ANSWERS[self.kind], len(self.labels or ("value",)), execution=execution)

    def check(self, examples: Sequence[TextExample]) -> None:
        """Raises a UserError at the first example with a label that the task does not have."""
        if self.labels is not None:
            check_labels(examples, self.labels)

    def encode(
        self, examples: Sequence[TextExample], tokenizer: Tokenizer, max_seq_len: int, long_texts: str
    ) -> tuple[EncodedRows, list[str]]:
        """See `FineTuningTask`; the target is `labels`, see `TextObjective`."""
        encoder = TextEncoder(tokenizer, max_seq_len, long_texts, self.markers)
        rows = EncodedRows.of(row for _, rows in encoder.encode(examples) for row in rows)
        lines = [encoder.count.report(max_seq_len, long_texts)]
        if examples and examples[0].label is None:
            return rows, lines
        return with_targets(rows, labels=self._true(examples)[rows.examples]), lines

    def score(self, examples: Sequence[TextExample], rows: EncodedRows, outputs: Any) -> dict[str, float]:
        """See `FineTuningTask`."""
        answers, true = self._answers(rows, outputs), self._true(examples)
        if self.kind == "float":
            return regression.score_numbers(true, answers[:, 0])
        if self.kind == "multi":
            return classification.score_label_sets(true > 0.5, answers > _THRESHOLD)
        return classification.score_classes(true, answers.argmax(axis=1), self.labels)

    def baseline(self, training: Sequence[TextExample], examples: Sequence[TextExample]) -> dict[str, float]:
        """See `FineTuningTask`: the most frequent label, or the mean value."""
        seen, true = self._true(training), self._true(examples)
        if self.kind == "float":
            return regression.mean_baseline(seen, true)
        if self.kind == "multi":
            seen, true = seen > 0.5, true > 0.5
        return classification.majority_baseline(seen, true, self.labels)

    def report(self, examples: Sequence[TextExample], rows: EncodedRows, outputs: Any) -> list[str]:
        """See `FineTuningTask`."""
        answers, true = self._answers(rows, outputs), self._true(examples)
        if self.kind == "float":
            return regression.remarks(true, answers[:, 0])
        if self.kind == "multi":
            return classification.class_table(true > 0.5, answers > _THRESHOLD, self.labels)
        return classification.class_table(true, answers.argmax(axis=1), self.labels)

    def confusion_matrix(self, examples: Sequence[TextExample], rows: EncodedRows, outputs: Any) -> np.ndarray | None:
        """Returns the counts `[true label, predicted label]`; None unless each example has one label."""
        if self.kind != "single":
            return None
        predicted = self._answers(rows, outputs).argmax(axis=1)
        return classification.confusion_matrix(self._true(examples), predicted, len(self.labels))

    def predictions(self, examples: Sequence[TextExample], rows: EncodedRows, outputs: Any) -> Iterator[dict[str, Any]]:
        """See `FineTuningTask`: label and probabilities, or labels and probabilities, or a value."""
        for example, answer in zip(examples, self._answers(rows, outputs).tolist(), strict=True):
            if self.kind == "float":
                yield {"id": example.id, "value": answer[0]}
                continue
            probabilities = dict(zip(self.labels, answer, strict=True))
            if self.kind == "multi":
                chosen = [label for label, probability in probabilities.items() if probability > _THRESHOLD]
                yield {"id": example.id, "labels": chosen, "probabilities": probabilities}
            else:
                best = max(probabilities, key=probabilities.__getitem__)
                yield {"id": example.id, "label": best, "probabilities": probabilities}

    def _metric_names(self) -> tuple[str, ...]:
        if self.kind == "float":
            return ("pearson", "spearman", "mse", "loss")
        if self.kind == "multi":
            return ("micro_f1", "macro_f1", "subset_accuracy", "loss")
        names = ("accuracy", "macro_f1", "micro_f1", "matthews", "loss")
        return (*names, "f1") if len(self.labels) == 2 else names

    def _true(self, examples: Sequence[TextExample]) -> np.ndarray:
        """The labels as numbers: of classes int32 `[examples]`, else float32 `[examples, labels]` or `[examples]`."""
        if self.kind == "float":
            return np.asarray([example.label for example in examples], np.float32)
        places = {label: place for place, label in enumerate(self.labels)}
        if self.kind == "single":
            return np.asarray([places[example.label] for example in examples], np.int32)
        true = np.zeros((len(examples), len(self.labels)), np.float32)
        for row, example in enumerate(examples):
            true[row, [places[label] for label in example.label]] = 1
        return true

    def _answers(self, rows: EncodedRows, outputs: Mapping[str, Sequence[np.ndarray]]) -> np.ndarray:
        """Probabilities or values by example, float64 `[examples, labels]`: the means over its windows."""
        logits = np.asarray(outputs["logits"], np.float64)
        if self.kind == "single":
            shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
            logits = shifted / shifted.sum(axis=1, keepdims=True)
        elif self.kind == "multi":
            logits = 1 / (1 + np.exp(-np.clip(logits, -500, 500)))
        sums = np.zeros((int(rows.examples.max(initial=-1)) + 1, logits.shape[1]))
        np.add.at(sums, rows.examples, logits)
        return sums / np.bincount(rows.examples)[:, None]
