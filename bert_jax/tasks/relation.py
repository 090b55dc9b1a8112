"""Relation extraction: how two marked entities of a sentence relate, as classification with marker tokens.

The markers, a token each before and after either entity, tell the model which two are meant (Baldini Soares et al.
2019, section 3.2, "entity markers"). The recipe says what is read: the vectors of the two opening markers joined, or
that of [CLS] (`BertConfig.pooling`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bert_jax.tasks.classification import Classification
from bert_jax.tasks.encoding.encoded_rows import EncodedRows
from bert_jax.tasks.encoding.texts import TextEncoder
from bert_jax.tasks.examples.example_types import TextExample
from bert_jax.tasks.examples.semeval import MARKERS
from bert_jax.tasks.scores.classification import majority_class
from bert_jax.tasks.scores.relations import relation_table, score_relations
from bert_jax.text.tokenizer import Tokenizer


class RelationExtraction(Classification):
    """Classification of relations, scored as SemEval-2010 task 8 is: macro F1 of directed relations, without Other."""

    name = "relation"

    def __init__(
        self,
        kind: str = "single",
        labels: Sequence[str] | None = None,
        main_metric: str | None = None,
        markers: Sequence[str] = MARKERS,
        is_pair: bool | None = False,
    ):
        """Makes the task; arguments as of `Classification`, the official macro F1 decides if `main_metric` is None."""
        super().__init__(kind, labels, main_metric or "macro_f1", markers, is_pair)

    def encoder(self, tokenizer: Tokenizer, max_seq_len: int, long_texts: str) -> TextEncoder:
        """See `FineTuningTask`; rows also say where the entities begin, `entity_positions` int32 `[rows, 2]`.

        An entity that was cut off with the end of a long text is read at [CLS].
        """
        openings = [tokenizer.token_to_id(marker) for marker in self.markers[::2]]

        def targets(example: TextExample, tokens: Sequence[int]) -> dict[str, Any]:
            places = [tokens.index(opening) if opening in tokens else 0 for opening in openings]
            return {**self._targets(example, tokens), "entity_positions": np.asarray(places, np.int32)}

        return TextEncoder(tokenizer, max_seq_len, long_texts, self.markers, targets)

    def score(self, examples: Sequence[TextExample], rows: EncodedRows, outputs: Any) -> dict[str, float]:
        """See `FineTuningTask` and `score_relations`."""
        return score_relations(_names(examples), self._predicted(examples, rows, outputs))

    def baseline(self, training: Sequence[TextExample], examples: Sequence[TextExample]) -> dict[str, float]:
        """See `FineTuningTask`: the most frequent label."""
        most_frequent = self.labels[majority_class(self._true(training), len(self.labels))]
        return score_relations(_names(examples), [most_frequent] * len(examples))

    def report(self, examples: Sequence[TextExample], rows: EncodedRows, outputs: Any) -> list[str]:
        """See `FineTuningTask`: the scores of each relation."""
        return relation_table(_names(examples), self._predicted(examples, rows, outputs))

    def _metric_names(self) -> tuple[str, ...]:
        return ("macro_f1", "micro_f1", "accuracy", "loss")

    def _predicted(self, examples: Sequence[TextExample], rows: EncodedRows, outputs: Any) -> list[str]:
        best: np.ndarray = self._answers(rows, outputs).argmax(axis=1)
        return [self.labels[label] for label in best.tolist()]


def _names(examples: Sequence[TextExample]) -> list[str]:
    return [example.label for example in examples]
