"""Tagging: entities in sentences, a tag for each word (Devlin et al. 2018, section 5.3)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bert_jax.config import BertConfig
from bert_jax.errors import UserError
from bert_jax.models.execution import Execution
from bert_jax.tasks.encoding.encoded_rows import EncodedRows
from bert_jax.tasks.encoding.words import WordEncoder, gather_words, tag_names, tagging_prediction
from bert_jax.tasks.examples.example_types import TaggedExample
from bert_jax.tasks.examples.places import BadRows
from bert_jax.tasks.examples.tag_schemes import OUTSIDE
from bert_jax.tasks.scores.entities import entity_scores, entity_table
from bert_jax.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from bert_jax.tasks.objectives import TokenObjective

_METRICS = ("f1", "precision", "recall", "token_accuracy", "loss")


class Tagging:
    """See the module and `FineTuningTask`.

    Tags are IOB2, whatever scheme a file has. Long sentences are always read in windows: each word needs its tag.
    """

    name = "tagging"
    model_class = "BertForTokenClassification"
    markers: Sequence[str] = ()

    def __init__(self, labels: Sequence[str], main_metric: str | None = None, context_len: int = 0):
        """Makes the task.

        Args:
            labels: IOB2 tags, in the order of the logits.
            main_metric: the one that decides; F1 of entities if None.
            context_len: tokens of its document, at most, that are read on either side of a sentence.
        """
        self.labels = tuple(labels)
        self.context_len = context_len
        self.main_metric = main_metric or "f1"
        self.larger_is_better = self.main_metric != "loss"
        if self.main_metric not in _METRICS:
            raise UserError(f"there is no metric {self.main_metric!r:.60} here: choose one of {', '.join(_METRICS)}")

    @classmethod
    def of(cls, training: Sequence[TaggedExample], main_metric: str | None = None, context_len: int = 0) -> "Tagging":
        """Makes the task of training examples, with the types of entities that they have."""
        labels = tag_names(training)
        if labels == [OUTSIDE]:
            raise UserError(f"every word of the training examples has the tag {OUTSIDE}: nothing is to be learnt")
        if context_len and all(example.document is None for example in training):
            raise UserError(
                "--context_len reads what stands around a sentence in its document, and the training examples have no"
                " documents: CoNLL files part them by lines that begin with -DOCSTART-; leave it out"
            )
        return cls(labels, main_metric, context_len)

    def to_json(self) -> dict[str, Any]:
        """See `FineTuningTask`."""
        # As it was before there was a context, where there is none: runs go on.
        context = {"context_len": self.context_len} if self.context_len else {}
        return {"task": self.name, "labels": list(self.labels), "main_metric": self.main_metric, **context}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Tagging":
        """Inverse of `to_json`."""
        return cls(values["labels"], values["main_metric"], values.get("context_len", 0))

    def objective(self, config: BertConfig, execution: Execution) -> "TokenObjective":
        """See `FineTuningTask`."""
        from bert_jax.tasks.objectives import TokenObjective

        return TokenObjective(config, len(self.labels), execution=execution)

    def usable(self, examples: Iterable[TaggedExample], bad_rows: BadRows) -> Iterator[TaggedExample]:
        """See `FineTuningTask`: those whose tags the task has."""
        known = set(self.labels)
        for example in examples:
            tag = next((tag for tag in example.tags or () if tag not in known), None)
            if tag is not None:
                word = example.tags.index(tag)
                reason = f"the tag {tag!r} of word {word + 1}, {example.words[word]!r}, is not among those of training"
                bad_rows.reject(example.place, f"{reason} ({', '.join(self.labels)})")
                continue
            yield example

    def encoder(self, tokenizer: Tokenizer, max_seq_len: int, long_texts: str) -> WordEncoder:
        """See `FineTuningTask`; the target is `labels`, see `TokenObjective`."""
        return WordEncoder(tokenizer, max_seq_len, self.labels, self.context_len)

    def score(self, examples: Sequence[TaggedExample], rows: EncodedRows, outputs: Any) -> dict[str, float]:
        """See `FineTuningTask`: of entities, over all types."""
        return entity_scores([example.tags for example in examples], self._tags(examples, rows, outputs))

    def baseline(self, training: Sequence[TaggedExample], examples: Sequence[TaggedExample]) -> dict[str, float]:
        """See `FineTuningTask`: the most frequent tag for every word."""
        places = {label: place for place, label in enumerate(self.labels)}
        counts = np.bincount([places[tag] for example in training for tag in example.tags], minlength=len(places))
        most_frequent = self.labels[int(counts.argmax())]
        gold = [example.tags for example in examples]
        return entity_scores(gold, [[most_frequent] * len(tags) for tags in gold])

    def report(self, examples: Sequence[TaggedExample], rows: EncodedRows, outputs: Any) -> list[str]:
        """See `FineTuningTask`: the scores of each type."""
        return entity_table([example.tags for example in examples], self._tags(examples, rows, outputs))

    def predictions(
        self, examples: Sequence[TaggedExample], rows: EncodedRows, outputs: Any
    ) -> Iterator[dict[str, Any]]:
        """See `FineTuningTask`: words with tags, and entities as spans of characters; see `tagging_prediction`."""
        for example, logits in zip(examples, gather_words(examples, rows, outputs["logits"]), strict=True):
            shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
            # Of the best tag, whose shifted logit is 0.
            probabilities = 1 / np.exp(shifted).sum(axis=-1)
            yield tagging_prediction(example, self._named(logits.argmax(axis=-1)), probabilities.tolist())

    def _tags(self, examples: Sequence[TaggedExample], rows: EncodedRows, outputs: Any) -> list[list[str]]:
        """The predicted tags of every example's words."""
        best = [np.asarray(logits).argmax(axis=-1) for logits in outputs["logits"]]
        return [self._named(tags) for tags in gather_words(examples, rows, best)]

    def _named(self, tags: np.ndarray) -> list[str]:
        return [self.labels[tag] for tag in tags.tolist()]
