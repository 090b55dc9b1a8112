"""Vectors to logits: pooling, the masked-LM head and the next-sentence head."""

import jax
import jax.numpy as jnp
from flax import nnx

from bert_jax.config import LAST_FOUR, BertConfig
from bert_jax.models.activation_axes import BATCH, VOCAB, with_axes
from bert_jax.models.execution import Execution
from bert_jax.models.layers import LogitsMap, activation, gather_positions, layer_norm, linear

# Poolings that read the encoder's output at positions alone.
POOLED_AT_POSITIONS = ("cls", "entities")


def tokens_of_pairs(segment_ids: jax.Array, cls_positions: jax.Array) -> jax.Array:
    """Which tokens belong to the pair that begins at each [CLS]; none where that is padding.

    Args:
        segment_ids: `[batch, length]`; 0 is padding.
        cls_positions: `[batch, pairs]`.

    Returns:
        Booleans `[batch, pairs, length]`.
    """
    pairs = jnp.take_along_axis(segment_ids, cls_positions, axis=1)[:, :, None]
    return (segment_ids[:, None, :] == pairs) & (pairs > 0)


def mean_of_tokens(hidden: jax.Array, tokens: jax.Array) -> jax.Array:
    """Averages `[batch, length, hidden]` over `tokens` `[batch, pairs, length]`; of no tokens the mean is zero."""
    # Zeros and ones are exact in any type, and the sum is kept in float32.
    sums = jnp.einsum("bpl,blh->bph", tokens.astype(hidden.dtype), hidden, preferred_element_type=jnp.float32)
    counts = jnp.maximum(tokens.sum(axis=-1, keepdims=True), 1)
    return (sums / counts).astype(hidden.dtype)


def max_of_tokens(hidden: jax.Array, tokens: jax.Array) -> jax.Array:
    """The largest of `[batch, length, hidden]`, dimension by dimension, over `tokens`; of no tokens it is zero."""
    lowest = jnp.finfo(hidden.dtype).min
    largest = jnp.where(tokens[..., None], hidden[:, None], lowest).max(axis=2)
    return jnp.where(tokens.any(axis=-1, keepdims=True), largest, 0)


class Pooler(nnx.Module):
    """A linear map and tanh of what `BertConfig.pooling` makes of a text or pair; as published, its [CLS] vector."""

    def __init__(self, config: BertConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Makes the linear map."""
        self.config = config
        in_features = config.hidden_size * config.num_pooled_vectors
        self.dense = linear(
            config, in_features, config.hidden_size, ("embed",), (None,), dtype=dtype, rngs=rngs, use_bias=True
        )

    def __call__(self, states: jax.Array, segment_ids: jax.Array, positions: jax.Array) -> jax.Array:
        """Pools each text or pair.

        Args:
            states: `[batch, length, hidden]`, the encoder's output; for the pooling "last_four" the states of all
                layers `[layers, batch, length, hidden]`, whose last four are joined from the lowest to the highest.
            segment_ids: `[batch, length]`; 0 is padding.
            positions: `[batch, pairs]`, of each [CLS]; for the pooling "entities" those of two entities of one text,
                `[batch, 2]`.

        Returns:
            `[batch, pairs, hidden]`.
        """
        pooling = self.config.pooling
        if pooling == "last_four":
            vectors = jnp.concatenate([gather_positions(state, positions) for state in states[-LAST_FOUR:]], -1)
        elif pooling in POOLED_AT_POSITIONS:
            vectors = gather_positions(states, positions)
        else:
            over_tokens = {"mean": mean_of_tokens, "max": max_of_tokens}[pooling]
            vectors = over_tokens(states, tokens_of_pairs(segment_ids, positions))
        return self.project(vectors)

    def project(self, vectors: jax.Array) -> jax.Array:
        """Maps what was read, `[batch, positions, features]`, to the pooled vectors `[batch, pairs, hidden]`."""
        if self.config.pooling == "entities":
            vectors = vectors.reshape(len(vectors), 1, -1)
        return jnp.tanh(with_axes(self.dense(with_axes(vectors, BATCH)), BATCH))


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
        transformed = self.layer_norm(activation(self.config, with_axes(self.transform(vectors), BATCH)))
        table = with_axes(embedding.astype(transformed.dtype), VOCAB)
        logits = jnp.einsum("bph,vh->bpv", transformed, table, preferred_element_type=jnp.float32)
        logits = with_axes(logits, BATCH, None, VOCAB) + self.bias[...]
        vocab_size = self.config.vocab_size
        if vocab_size == logits.shape[-1]:
            return logits
        return jnp.where(jnp.arange(logits.shape[-1]) < vocab_size, logits, -jnp.inf)


class NextSentenceHead(nnx.Module):
    """A linear map of the pooled vector to two logits: 0, the true next; 1, a random one."""

    def __init__(self, config: BertConfig, *, execution: Execution, rngs: nnx.Rngs):
        """Makes the linear map."""
        self.dense = LogitsMap(config, 2, execution=execution, rngs=rngs)

    def __call__(self, pooled: jax.Array) -> jax.Array:
        """Maps `[..., hidden]` to float32 logits `[..., 2]`."""
        return with_axes(self.dense(pooled), BATCH)
