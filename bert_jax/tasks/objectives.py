"""What the tasks of fine-tuning minimise, and what predictions are made from: models with heads, and their losses.

An objective is a `bert_jax.training.task.Task` that also gives `outputs`, row by row. Its batches come from
`EncodedRows.batch`; `row_weights` `[batch]` says how much a row counts, 0 for one that fills up the batch.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from bert_jax.config import BertConfig
from bert_jax.models.execution import Execution
from bert_jax.models.parameters import Functional, Parameters
from bert_jax.models.registry import build_layer_head, build_model
from bert_jax.tasks.cross_entropy import cross_entropy
from bert_jax.training.task import Batch, Scalars, Task

# The kinds of answer for a whole text: one of the classes, any number of labels, or a value.
CLASSES, LABELS, VALUE = ANSWERS = ("classes", "labels", "value")
_TERM = "task"
# From texts and dropout keys to logits, see `ModelObjective.logits`.
Score = Callable[[Batch, jax.Array | None], Any]


class Objective(Task, Protocol):
    """A task whose predictions can be looked at."""

    def outputs(self, parameters: Parameters, batch: Batch) -> dict[str, jax.Array]:
        """Returns what predictions are made from, float32 `[batch, ...]` each."""


class ModelObjective:
    """A model of the registry with one loss, the weighted mean over rows or tokens."""

    term_weights: Mapping[str, float] = {_TERM: 1.0}

    def __init__(
        self,
        model_class: str,
        config: BertConfig,
        num_labels: int | None = None,
        execution: Execution | None = None,
    ):
        """Describes the model; arguments as of `build_model`."""
        self._model_class, self._config = model_class, config
        self._options = {"num_labels": num_labels, "execution": execution}
        self.model = build_model(model_class, config, **self._options)

    def layer_head(self) -> Functional:
        """Describes a head like the model's for the states of one layer; see `LayerHead`."""
        return build_layer_head(self._model_class, self._config, **self._options)

    def init(self, key: jax.Array) -> Parameters:
        """Returns initial parameters."""
        return self.model.init(key)

    def logical_axes(self) -> Parameters:
        """Returns for each parameter the names of its axes."""
        return self.model.logical_axes()

    def logits(self, score: Score, batch: Batch, keys: jax.Array | None) -> Any:
        """Returns what `score` makes of the batch's texts, each laid out as `losses` takes logits.

        Args:
            score: from arrays `[texts, length]` and dropout keys `[texts]` or None to a tree of logits `[texts, ...]`,
                such as the model.
            batch: as of `Task.loss`.
            keys: as of `Task.loss`.
        """
        return score(batch, keys)

    def _logits(self, parameters: Parameters, batch: Batch, keys: jax.Array | None) -> jax.Array:
        """Returns the model's logits `[batch, ...]`."""
        return self.logits(functools.partial(self.model.apply, parameters), batch, keys)

    def weights(self, batch: Batch) -> jax.Array:
        """How much each loss counts."""
        return batch["row_weights"]

    def loss_weights(self, batch: Batch) -> Scalars:
        """Totals the weights of a batch."""
        return {_TERM: self.weights(batch).sum()}

    def losses(self, logits: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Returns the losses, and how right the predictions are (for the log): arrays like the weights."""
        raise NotImplementedError

    def loss(self, parameters: Parameters, batch: Batch, keys: jax.Array | None) -> tuple[Scalars, Scalars]:
        """Sums the losses; see `Task.loss`."""
        return self.sums(self._logits(parameters, batch, keys), batch)

    def sums(self, logits: jax.Array, batch: Batch) -> tuple[Scalars, Scalars]:
        """Returns what `loss` does, from the logits."""
        return self.totals(*self.losses(logits, batch), batch)

    def totals(self, losses: jax.Array, correct: jax.Array, batch: Batch) -> tuple[Scalars, Scalars]:
        """Returns what `loss` does, from what `losses` returns."""
        weights = self.weights(batch)
        statistics = {
            "sum": jnp.sum(losses * weights),
            "correct": jnp.sum(correct * weights),
            "weight": jnp.sum(weights),
            "tokens": jnp.sum(batch["segment_ids"] > 0).astype(jnp.float32),
        }
        return {_TERM: statistics["sum"]}, statistics

    def metrics(self, statistics: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the mean loss, the share of right predictions, and the tokens (not counting padding)."""
        weight = statistics["weight"] + (statistics["weight"] == 0)
        return {
            "loss": statistics["sum"] / weight,
            "accuracy": statistics["correct"] / weight,
            "tokens": statistics["tokens"],
        }

    def outputs(self, parameters: Parameters, batch: Batch) -> dict[str, jax.Array]:
        """Returns the logits."""
        return {"logits": self._logits(parameters, batch, None)}


class TextObjective(ModelObjective):
    """One answer for a text or a pair (Devlin et al. 2018, figure 4 a and b).

    Batches have `labels`: int32 `[batch]` of classes, float32 `[batch, labels]` of 0 and 1, or float32 `[batch]` of
    values. The losses are the cross-entropy, the mean binary cross-entropy over the labels, and the squared error.
    """

    def __init__(self, config: BertConfig, answer: str, num_labels: int, *, execution: Execution | None = None):
        """Describes the model.

        Args:
            config: the architecture.
            answer: one of ANSWERS.
            num_labels: of classes or labels; 1 for a value.
            execution: how it is computed.
        """
        super().__init__("BertForSequenceClassification", config, num_labels, execution)
        self.answer = answer

    def losses(self, logits: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """See `ModelObjective`."""
        labels = batch["labels"]
        if self.answer == CLASSES:
            return cross_entropy(logits, labels)
        if self.answer == LABELS:
            # log(1 + exp(x)) - x y, without overflow.
            losses = jnp.maximum(logits, 0) - logits * labels + jnp.log1p(jnp.exp(-jnp.abs(logits)))
            return losses.mean(axis=-1), jnp.all((logits > 0) == (labels > 0.5), axis=-1)
        errors = logits[:, 0] - labels
        # Half a unit off is right, for a figure in the log.
        return jnp.square(errors), jnp.abs(errors) < 0.5


class TokenObjective(ModelObjective):
    """One label for each word, at its first piece (Devlin et al. 2018, figure 4 d).

    Batches have `labels` int32 `[batch, length]`, negative where there is none; the loss is the mean cross-entropy of
    the labelled tokens.
    """

    def __init__(self, config: BertConfig, num_labels: int, *, execution: Execution | None = None):
        """Describes the model; arguments as of `TextObjective`."""
        super().__init__("BertForTokenClassification", config, num_labels, execution)

    def weights(self, batch: Batch) -> jax.Array:
        """See `ModelObjective`."""
        return batch["row_weights"][:, None] * (batch["labels"] >= 0)

    def losses(self, logits: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """See `ModelObjective`."""
        return cross_entropy(logits, jnp.maximum(batch["labels"], 0))


class SpanObjective(ModelObjective):
    """Where an answer begins and ends (Devlin et al. 2018, sections 4.2 and 4.3).

    Batches have `start_positions` and `end_positions` int32 `[batch]`, those of [CLS] where there is no answer; the
    loss is the mean of both cross-entropies over the row's tokens.
    """

    def __init__(self, config: BertConfig, *, execution: Execution | None = None):
        """Describes the model; arguments as of `TextObjective`."""
        super().__init__("BertForQuestionAnswering", config, None, execution)

    def losses(self, logits: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """See `ModelObjective`."""
        # A row that fills up the batch has no token at all; its loss counts nothing, but must be a number.
        logits = jnp.where(batch["segment_ids"][..., None] > 0, logits, -1e9)
        start, right_start = cross_entropy(logits[..., 0], batch["start_positions"])
        end, right_end = cross_entropy(logits[..., 1], batch["end_positions"])
        return (start + end) / 2, right_start & right_end


class ChoiceObjective(ModelObjective):
    """Which of several texts is right (Devlin et al. 2018, section 4.4): a logit for each, and the softmax over them.

    The model is a regression of single texts. Batches have arrays `[batch, choices, length]`, and `labels` int32
    `[batch]`. A choice without tokens is none.
    """

    def __init__(self, config: BertConfig, *, execution: Execution | None = None):
        """Describes the model; arguments as of `TextObjective`."""
        super().__init__("BertForSequenceClassification", config, 1, execution)

    def logits(self, score: Score, batch: Batch, keys: jax.Array | None) -> Any:
        """See there: the choices of a question are texts of their own, and make a row of logits."""
        rows, choices, length = batch["input_ids"].shape
        tokens = ("input_ids", "token_type_ids", "position_ids", "segment_ids")
        flat = {name: batch[name].reshape(rows * choices, length) for name in tokens}
        if keys is not None:
            folded = jax.vmap(lambda key: jax.vmap(lambda choice: jax.random.fold_in(key, choice))(jnp.arange(choices)))
            keys = folded(keys).reshape(rows * choices)
        is_there = (batch["segment_ids"] > 0).any(axis=-1)
        return jax.tree.map(lambda logits: jnp.where(is_there, logits.reshape(rows, choices), -1e9), score(flat, keys))

    def losses(self, logits: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """See `ModelObjective`."""
        return cross_entropy(logits, batch["labels"])
