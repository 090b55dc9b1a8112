"""The loss of a choice among classes."""

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
