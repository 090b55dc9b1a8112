"""Classification of texts and pairs: one label, several, or a number (Devlin et al. 2018, section 4.1)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bert_jax.config import BertConfig
from bert_jax.errors import UserError
from bert_jax.models.execution import Execution
from bert_jax.tasks.encoding.encoded_rows import EncodedRows
from bert_jax.tasks.encoding.texts import TextEncoder
from bert_jax.tasks.examples.example_types import TextExample
from bert_jax.tasks.examples.labels import collect_labels, unknown_label
from bert_jax.tasks.examples.places import BadRows
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
        is_pair: bool | None = None,
    ):
        """Makes the task.

        Args:
            kind: "single", "multi" or "float".
            labels: their names; None for numbers.
            main_metric: the one that decides; accuracy, micro F1 or Pearson's correlation if None.
            markers: words that are one token each wherever they stand.
            is_pair: whether examples are pairs of texts; None where that is not known.
        """
        self.kind = kind
        self.is_pair = is_pair
        self.labels = tuple(labels) if labels is not None else None
        self.markers = tuple(markers)
        self.main_metric = main_metric or {"single": "accuracy", "multi": "micro_f1", "float": "pearson"}[kind]
        self.larger_is_better = self.main_metric not in ("mse", "loss")
        known = self._metric_names()
        if self.main_metric not in known:
            raise UserError(f"there is no metric {self.main_metric!r:.60} here: choose one of {', '.join(known)}")

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
        return cls(kind, found, main_metric, markers, training[0].pair is not None)

    def to_json(self) -> dict[str, Any]:
        """See `FineTuningTask`."""
        labels = list(self.labels) if self.labels is not None else None
        return {
            "task": self.name,
            "kind": self.kind,
            "labels": labels,
            "main_metric": self.main_metric,
            "markers": list(self.markers),
            "is_pair": self.is_pair,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Classification":
        """Inverse of `to_json`."""
        return cls(values["kind"], values["labels"], values["main_metric"], values["markers"], values.get("is_pair"))

    def objective(self, config: BertConfig, execution: Execution) -> "TextObjective":
        """See `FineTuningTask`."""
        from bert_jax.tasks.objectives import TextObjective

        return TextObjective(config, _ANSWERS[self.kind], len(self.labels or ("value",)), execution=execution)

    def usable(self, examples: Iterable[TextExample], bad_rows: BadRows) -> Iterator[TextExample]:
        """See `FineTuningTask`: those whose labels the task has."""
        for example in examples:
            is_pair = example.pair is not None
            if self.is_pair not in (None, is_pair):
                shapes = {True: "a pair of texts", False: "a single text"}
                raise UserError(
                    f"{example.place}: this is {shapes[is_pair]}, and what is learned is to label"
                    f" {shapes[self.is_pair]}: say with --text_column and --pair_column which columns are meant"
                )
            if self.labels is not None and (reason := unknown_label(example, self.labels)):
                bad_rows.reject(example.place, reason)
                continue
            yield example

    def encoder(self, tokenizer: Tokenizer, max_seq_len: int, long_texts: str) -> TextEncoder:
        """See `FineTuningTask`; the target is `labels`, see `TextObjective`."""
        return TextEncoder(tokenizer, max_seq_len, long_texts, self.markers, self._targets)

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

    def confusion_matrix(self, examples: Sequence[TextExample], rows: EncodedRows, outputs: Any) -> np.ndarray:
        """Returns the counts `[true label, predicted label]`, where each example has one label."""
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

    def _targets(self, example: TextExample, tokens: Sequence[int]) -> dict[str, Any]:
        """The target of a row of an example; none where labels were not read."""
        return {} if example.label is None else {"labels": self._true([example])[0]}

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
