"""The loss of a choice among classes."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp


def cross_entropy(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns for each label its cross-entropy in nats, and whether it is the one predicted.

    Args:
        logits: float32 `[..., classes]`.
        labels: int32 `[...]`.
    """
    # Written with comparisons and reductions, which fuse: a gather of the labels' logits would be a scatter into an
    # array of the logits' size backwards, and XLA's argmax does not vectorise (together a tenth of a tiny step).
    classes = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
    label_logits = jnp.sum(jnp.where(classes == labels[..., None], logits, 0.0), axis=-1)
    maxima = jax.lax.stop_gradient(jnp.max(logits, axis=-1))
    losses = jnp.log(jnp.sum(jnp.exp(logits - maxima[..., None]), axis=-1)) + maxima - label_logits
    predictions = jnp.min(jnp.where(logits == maxima[..., None], classes, logits.shape[-1]), axis=-1)
    return losses, predictions == labels


def weighted_sums(term: str, losses: jax.Array, correct: jax.Array, weights: jax.Array) -> dict[str, jax.Array]:
    """Returns the statistics of a loss's term: TERM_sum, TERM_correct and TERM_weight.

    Args:
        term: its name.
        losses: float32 `[...]`.
        correct: booleans `[...]`, whether the predictions are right.
        weights: float32 `[...]`.
    """
    return {
        f"{term}_sum": jnp.sum(losses * weights),
        f"{term}_correct": jnp.sum(correct * weights),
        f"{term}_weight": jnp.sum(weights),
    }


def means(term: str, statistics: Mapping[str, Any]) -> dict[str, Any]:
    """Returns TERM_loss and TERM_accuracy, from statistics as of `weighted_sums` that were summed over batches."""
    # At least one: a batch without examples of a term has no loss in it, rather than a division by zero.
    weight = statistics[f"{term}_weight"] + (statistics[f"{term}_weight"] == 0)
    return {
        f"{term}_loss": statistics[f"{term}_sum"] / weight,
        f"{term}_accuracy": statistics[f"{term}_correct"] / weight,
    }
