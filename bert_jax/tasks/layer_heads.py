"""Heads of the task on intermediate layers, whose losses are part of the loss (Lee et al. 2015, deep supervision)."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from bert_jax.models.bert import token_arrays
from bert_jax.models.dropout import fold_in_each
from bert_jax.models.parameters import Parameters, restrict
from bert_jax.tasks.cross_entropy import means, weighted_sums
from bert_jax.tasks.objectives import ModelObjective
from bert_jax.training.task import Batch, Scalars

# The root key of the heads' parameters.
LAYER_HEADS = "layer_heads"
# The place of the first head among those that a row's dropout key is folded with; beside those of `models`, of R-Drop
# and of the pre-training losses.
_FIRST_HEAD = 1 << 23


class LayerHeads:
    """An objective with the losses of further heads in its loss, see `tasks.objectives.Objective`.

    Each head is like that of the task, with a pooler of its own where the task has one, reads the states after one
    layer, and has the task's labels and loss. The encoder is passed once. Without dropout keys, as in evaluations and
    predictions, all is as if they were not there.
    """

    def __init__(self, objective: ModelObjective, layers: Sequence[int], weight: float):
        """Wraps an objective.

        Args:
            objective: of one task.
            layers: whose states the heads read, 1 for the lowest.
            weight: how much the mean loss of each head counts.
        """
        self._objective = objective
        self.model = objective.model
        self._layers = {f"layer_{layer}": layer for layer in layers}
        self._weight = weight
        self._head = objective.layer_head()
        self.term_weights: Mapping[str, float] = {**objective.term_weights, **dict.fromkeys(self._layers, weight)}

    def init(self, key: jax.Array) -> Parameters:
        """Returns initial parameters: those of the objective, and the heads beside them."""
        heads = {
            name: self._head.init(jax.random.fold_in(key, _FIRST_HEAD + layer)) for name, layer in self._layers.items()
        }
        return {**self._objective.init(key), LAYER_HEADS: heads}

    def logical_axes(self) -> Parameters:
        """Returns for each parameter the names of its axes."""
        return {
            **self._objective.logical_axes(),
            LAYER_HEADS: {name: self._head.logical_axes() for name in self._layers},
        }

    def _own(self, parameters: Parameters) -> Parameters:
        """The parameters of the objective."""
        return restrict(parameters, self._objective.logical_axes())

    def loss_weights(self, batch: Batch) -> Scalars:
        """Totals the weights of a batch."""
        weights = self._objective.loss_weights(batch)
        (total,) = weights.values()
        return {**weights, **dict.fromkeys(self._layers, total)}

    def loss(self, parameters: Parameters, batch: Batch, keys: jax.Array | None) -> tuple[Scalars, Scalars]:
        """Sums the losses; see `Task.loss`."""
        if keys is None:
            return self._objective.loss(self._own(parameters), batch, None)
        task, by_layer = self._objective.logits(
            lambda texts, text_keys: self._scores(parameters, texts, text_keys), batch, keys
        )
        sums, statistics = self._objective.sums(task, batch)
        for name, logits in by_layer.items():
            statistics |= weighted_sums(name, *self._objective.losses(logits, batch), self._objective.weights(batch))
            sums[name] = statistics[f"{name}_sum"]
        return sums, statistics

    def _scores(
        self, parameters: Parameters, texts: Batch, keys: jax.Array | None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns the model's logits and those of each layer."""
        own = self._own(parameters)
        states = self.model.apply(own, *token_arrays(texts), keys, method="bert.computed_states")
        by_layer = {
            name: self._head.apply(
                parameters[LAYER_HEADS][name],
                states[layer],
                texts,
                fold_in_each(keys, _FIRST_HEAD + layer),
            )
            for name, layer in self._layers.items()
        }
        return self.model.apply(own, states, texts, keys, method="from_states"), by_layer

    def metrics(self, statistics: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the objective's metrics; of a training batch also task_loss, and layer_N_loss and _accuracy.

        The loss is then the sum of all, each with its weight.
        """
        metrics = self._objective.metrics(statistics)
        for name in self._layers:
            if f"{name}_sum" in statistics:
                metrics.setdefault("task_loss", metrics["loss"])
                metrics |= means(name, statistics)
                metrics["loss"] = metrics["loss"] + self._weight * metrics[f"{name}_loss"]
        return metrics

    def outputs(self, parameters: Parameters, batch: Batch) -> dict[str, jax.Array]:
        """Returns what the objective does."""
        return self._objective.outputs(self._own(parameters), batch)
