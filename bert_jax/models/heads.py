"""Vectors to logits: the pooler, the masked-LM head and the next-sentence head."""

import jax
import jax.numpy as jnp
from flax import nnx

from bert_jax.config import BertConfig
from bert_jax.models.layers import activation, layer_norm, linear


def gather_positions(hidden: jax.Array, positions: jax.Array) -> jax.Array:
    """Picks vectors by position, row by row.

    take_along_axis stays within each row, so that a batch cut over devices needs no communication for it.

    Args:
        hidden: `[batch, length, hidden]`.
        positions: `[batch, n]`.

    Returns:
        `[batch, n, hidden]`.
    """
    return jnp.take_along_axis(hidden, positions[:, :, None], axis=1)


class Pooler(nnx.Module):
    """A linear map and tanh of the [CLS] vector."""

    def __init__(self, config: BertConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Makes the linear map."""
        self.dense = linear(config, config.hidden_size, config.hidden_size, ("embed",), (None,), dtype=dtype, rngs=rngs)

    def __call__(self, vectors: jax.Array) -> jax.Array:
        """Maps `[..., hidden]` to the same shape."""
        return jnp.tanh(self.dense(vectors))


class MaskedLanguageModelHead(nnx.Module):
    """Transform, LayerNorm, and a product with the word embeddings (tied), plus a bias per word."""

    def __init__(self, config: BertConfig, padded_vocab_size: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Makes the transform and the bias; the embedding table is passed at call time."""
        self.config = config
        self.transform = linear(
            config, config.hidden_size, config.hidden_size, ("embed",), (None,), dtype=dtype, rngs=rngs
        )
        self.layer_norm = layer_norm(config, dtype=dtype, rngs=rngs)
        self.bias = nnx.Param(jnp.zeros(padded_vocab_size), logical_axes=("vocab",))

    def __call__(self, vectors: jax.Array, embedding: jax.Array) -> jax.Array:
        """Scores every word for every vector.

        Args:
            vectors: `[batch, predictions, hidden]`.
            embedding: the word-embedding table `[padded_vocab, hidden]`.

        Returns:
            float32 logits `[batch, predictions, padded_vocab]`, minus infinity where the vocabulary is padded.
        """
        transformed = self.layer_norm(activation(self.config, self.transform(vectors)))
        logits = jnp.einsum(
            "bph,vh->bpv", transformed, embedding.astype(transformed.dtype), preferred_element_type=jnp.float32
        )
        logits = logits + self.bias[...]
        vocab_size = self.config.vocab_size
        if vocab_size == logits.shape[-1]:
            return logits
        return jnp.where(jnp.arange(logits.shape[-1]) < vocab_size, logits, -jnp.inf)


class NextSentenceHead(nnx.Module):
    """A linear map of the pooled vector to two logits: 0, the true next; 1, a random one."""

    def __init__(self, config: BertConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Makes the linear map."""
        self.dense = linear(config, config.hidden_size, 2, ("embed",), (None,), dtype=dtype, rngs=rngs)

    def __call__(self, pooled: jax.Array) -> jax.Array:
        """Maps `[..., hidden]` to float32 logits `[..., 2]`."""
        return self.dense(pooled).astype(jnp.float32)
