"""R-Drop: two predictions of each text, under different dropout, are pulled together (Liang et al. 2021)."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from bert_jax.models.dropout import fold_in_each
from bert_jax.models.parameters import Parameters
from bert_jax.tasks.objectives import CLASSES, TextObjective
from bert_jax.training.task import Batch, Scalars

# The place of the second pass among those that a row's dropout key is folded with; beside those of `models`.
_SECOND_PASS = 1 << 21


class RDrop:
    """An objective of classes with the divergence of two passes in its loss, see `tasks.objectives.Objective`.

    The loss of a row is half of the paper's (section 2.2), so that it is of the size of the loss without: the mean of
    both cross-entropies and alpha / 2 times the mean of both Kullback-Leibler divergences. Without dropout, both passes
    are the same: the loss is that of the objective itself.
    """

    def __init__(self, objective: TextObjective, alpha: float):
        """Wraps an objective.

        Args:
            objective: of single texts or pairs, with one class each.
            alpha: the divergence's weight; 1 to 5 in the paper.
        """
        if objective.answer != CLASSES:
            raise ValueError(f"R-Drop compares distributions over classes, and this objective has {objective.answer}")
        self._objective = objective
        self._alpha = alpha
        self.model = objective.model
        self.term_weights: Mapping[str, float] = objective.term_weights

    def init(self, key: jax.Array) -> Parameters:
        """Returns initial parameters."""
        return self._objective.init(key)

    def logical_axes(self) -> Parameters:
        """Returns for each parameter the names of its axes."""
        return self._objective.logical_axes()

    def loss_weights(self, batch: Batch) -> Scalars:
        """Totals the weights of a batch."""
        return self._objective.loss_weights(batch)

    def loss(self, parameters: Parameters, batch: Batch, keys: jax.Array | None) -> tuple[Scalars, Scalars]:
        """Sums the losses; see `Task.loss`."""
        if keys is None:
            return self._objective.loss(parameters, batch, None)
        first, second = (
            self.model.apply(parameters, batch, pass_keys) for pass_keys in (keys, fold_in_each(keys, _SECOND_PASS))
        )
        (first_losses, first_right), (second_losses, second_right) = (
            self._objective.losses(logits, batch) for logits in (first, second)
        )
        divergences = symmetric_divergence(first, second)
        losses = (first_losses + second_losses) / 2 + self._alpha / 2 * divergences
        right = (first_right.astype(jnp.float32) + second_right) / 2
        sums, statistics = self._objective.totals(losses, right, batch)
        return sums, {**statistics, "divergence": jnp.sum(divergences * self._objective.weights(batch))}

    def metrics(self, statistics: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the objective's metrics and, of a training batch, the mean divergence in nats."""
        metrics = self._objective.metrics(statistics)
        if "divergence" in statistics:
            metrics["divergence"] = statistics["divergence"] / (statistics["weight"] + (statistics["weight"] == 0))
        return metrics

    def outputs(self, parameters: Parameters, batch: Batch) -> dict[str, jax.Array]:
        """Returns the logits."""
        return self._objective.outputs(parameters, batch)


def symmetric_divergence(first: jax.Array, second: jax.Array) -> jax.Array:
    """Returns the mean of the Kullback-Leibler divergences of either distribution from the other, in nats, `[batch]`.

    Args:
        first: float32 logits `[batch, classes]`.
        second: the same of the other distribution.
    """
    first, second = jax.nn.log_softmax(first), jax.nn.log_softmax(second)
    # KL(p||q) + KL(q||p) = sum over classes of (p - q) (log p - log q).
    return jnp.sum((jnp.exp(first) - jnp.exp(second)) * (first - second), axis=-1) / 2
