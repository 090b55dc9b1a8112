"""The encoder: a stack of layers, each self-attention and a feed-forward network, post-LayerNorm as published."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from bert_jax.config import BertConfig
from bert_jax.models.dropout import dropout, fold_in_each
from bert_jax.models.execution import Execution
from bert_jax.models.layers import activation, layer_norm, linear

# What `jax.checkpoint` may keep of a layer for the backward pass; "none" keeps everything and recomputes nothing.
REMAT_POLICIES = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_saveable,
    "dots_no_batch": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}

# Below any score a model produces, and finite, so that a row of padding alone stays free of NaN.
_MASKED_SCORE = -1e30


def attention_mask(segment_ids: jax.Array) -> jax.Array:
    """Who may see whom: tokens of the same packed pair, and nobody sees padding.

    Args:
        segment_ids: `[batch, length]`; 0 is padding, k the k-th packed pair.

    Returns:
        Booleans `[batch, 1, query_length, key_length]`.
    """
    same = segment_ids[:, :, None] == segment_ids[:, None, :]
    return (same & (segment_ids > 0)[:, None, :])[:, None]


def attention(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array, rate: float, keys: jax.Array | None
) -> jax.Array:
    """Scaled dot-product attention (Vaswani et al. 2017), softmax in float32, with dropout of the weights.

    Args:
        query: `[batch, query_length, heads, kv]`.
        key: `[batch, key_length, heads, kv]`.
        value: `[batch, key_length, heads, kv]`.
        mask: booleans that broadcast to `[batch, heads, query_length, key_length]`.
        rate: dropout of the attention weights.
        keys: `[batch]` dropout keys, or None for no dropout.

    Returns:
        `[batch, query_length, heads, kv]`.
    """
    query = query / math.sqrt(query.shape[-1])
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(jnp.where(mask, scores, _MASKED_SCORE), axis=-1).astype(value.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", dropout(weights, rate, keys), value)


class SelfAttention(nnx.Module):
    """Multi-head self-attention, its output projection, dropout, residual and LayerNorm."""

    def __init__(self, config: BertConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Makes the four projections."""
        self.config = config
        heads = (config.num_attention_heads, config.hidden_size // config.num_attention_heads)

        def project() -> nnx.LinearGeneral:
            return linear(config, config.hidden_size, heads, ("embed",), ("heads", "kv"), dtype=dtype, rngs=rngs)

        self.query = project()
        self.key = project()
        self.value = project()
        self.output = linear(config, heads, config.hidden_size, ("heads", "kv"), ("embed",), dtype=dtype, rngs=rngs)
        self.layer_norm = layer_norm(config, dtype=dtype, rngs=rngs)

    def __call__(self, hidden: jax.Array, mask: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        """Maps `[batch, length, hidden]` to the same shape; mask `[batch, 1, length, length]`, keys `[batch]`."""
        attended = attention(
            self.query(hidden),
            self.key(hidden),
            self.value(hidden),
            mask,
            self.config.attention_probs_dropout_prob,
            fold_in_each(keys, 0),
        )
        outputs = dropout(self.output(attended), self.config.hidden_dropout_prob, fold_in_each(keys, 1))
        return self.layer_norm(hidden + outputs)


class FeedForward(nnx.Module):
    """Two linear maps with an activation between, dropout, residual and LayerNorm."""

    def __init__(self, config: BertConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Makes the two maps."""
        self.config = config
        sizes = config.hidden_size, config.intermediate_size
        self.intermediate = linear(config, *sizes, ("embed",), ("mlp",), dtype=dtype, rngs=rngs)
        self.output = linear(config, *reversed(sizes), ("mlp",), ("embed",), dtype=dtype, rngs=rngs)
        self.layer_norm = layer_norm(config, dtype=dtype, rngs=rngs)

    def __call__(self, hidden: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        """Maps `[batch, length, hidden]` to the same shape; keys `[batch]`."""
        outputs = self.output(activation(self.config, self.intermediate(hidden)))
        return self.layer_norm(hidden + dropout(outputs, self.config.hidden_dropout_prob, fold_in_each(keys, 2)))


class EncoderLayer(nnx.Module):
    """One layer of the encoder."""

    def __init__(self, config: BertConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Makes the two sub-layers."""
        self.attention = SelfAttention(config, dtype=dtype, rngs=rngs)
        self.feed_forward = FeedForward(config, dtype=dtype, rngs=rngs)

    def __call__(self, hidden: jax.Array, mask: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        """Maps `[batch, length, hidden]` to the same shape; mask `[batch, 1, length, length]`, keys `[batch]`."""
        return self.feed_forward(self.attention(hidden, mask, keys), keys)


class BertEncoder(nnx.Module):
    """The stack of layers, kept as one layer whose parameters have a leading axis, and run by a scan.

    Compilation time and program size do not grow with the depth.
    """

    def __init__(self, config: BertConfig, *, execution: Execution, rngs: nnx.Rngs):
        """Makes the stacked layers."""
        self.num_hidden_layers = config.num_hidden_layers
        self.execution = execution

        @nnx.split_rngs(splits=config.num_hidden_layers)
        @nnx.vmap(in_axes=0, out_axes=0)
        def stack(rngs: nnx.Rngs) -> EncoderLayer:
            return EncoderLayer(config, dtype=execution.jax_dtype, rngs=rngs)

        self.layers = stack(rngs)

    def __call__(self, hidden: jax.Array, segment_ids: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        """Encodes.

        Args:
            hidden: `[batch, length, hidden]`.
            segment_ids: `[batch, length]`; 0 is padding.
            keys: `[batch]` dropout keys, or None for no dropout.

        Returns:
            `[batch, length, hidden]`, the last layer's output.
        """
        mask = attention_mask(segment_ids)
        graph, parameters = nnx.split(self.layers)

        def apply_layer(hidden: jax.Array, layer: tuple) -> tuple[jax.Array, None]:
            layer_parameters, index = layer
            return nnx.merge(graph, layer_parameters)(hidden, mask, fold_in_each(keys, index)), None

        unroll = min(self.execution.unroll, self.num_hidden_layers)
        policy = REMAT_POLICIES[self.execution.remat]
        if policy is not None:
            # A loop keeps forward and backward apart; without one the compiler would merge the recomputation with what
            # it repeats, and keep all of it after all.
            no_loop = unroll == self.num_hidden_layers
            apply_layer = jax.checkpoint(apply_layer, policy=policy, prevent_cse=no_loop)
        indices = jnp.arange(self.num_hidden_layers)
        hidden, _ = jax.lax.scan(apply_layer, hidden, (parameters, indices), unroll=unroll)
        return hidden
