"""The encoder: a stack of layers, each self-attention and a feed-forward network, and what is read out of it.

LayerNorm follows each residual sum, as published; or, as an option, comes before each sub-layer.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from bert_jax.config import BertConfig
from bert_jax.models.activation_axes import BATCH, HEADS, MLP, with_axes
from bert_jax.models.attention import View, attention, attention_weights, view_of
from bert_jax.models.dropout import dropout, fold_in_each
from bert_jax.models.execution import Execution
from bert_jax.models.layers import activation, gather_positions, layer_norm, linear

# What `jax.checkpoint` may keep of a layer for the backward pass; "none" keeps everything and recomputes nothing.
REMAT_POLICIES = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_saveable,
    "dots_no_batch": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


def residual(
    config: BertConfig,
    norm: Callable[[jax.Array], jax.Array],
    hidden: jax.Array,
    sub_layer: Callable[[jax.Array], jax.Array],
) -> jax.Array:
    """Adds a sub-layer's output to its input, with LayerNorm of the sum, or of what goes into the sub-layer."""
    if config.is_pre_norm:
        return hidden + sub_layer(norm(hidden))
    return norm(hidden + sub_layer(hidden))


class SelfAttention(nnx.Module):
    """Multi-head self-attention, its output projection, dropout, residual and LayerNorm."""

    def __init__(self, config: BertConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Makes the four projections."""
        self.config = config
        heads = (config.num_attention_heads, config.head_size)

        def project() -> nnx.LinearGeneral:
            return linear(config, config.hidden_size, heads, ("embed",), ("heads", "kv"), dtype=dtype, rngs=rngs)

        self.query = project()
        self.key = project()
        self.value = project()
        self.output = linear(config, heads, config.hidden_size, ("heads", "kv"), ("embed",), dtype=dtype, rngs=rngs)
        self.layer_norm = layer_norm(config, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        hidden: jax.Array,
        view: View,
        keys: jax.Array | None = None,
        positions: jax.Array | None = None,
        number: int | jax.Array = 0,
    ) -> jax.Array:
        """Maps `[batch, length, hidden]` to the outputs of a few positions, or of all; see `EncoderLayer`."""

        def attend(inputs: jax.Array) -> jax.Array:
            seen = inputs if positions is None else self._inputs(hidden, number)
            query, key, value = (
                with_axes(project(vectors), BATCH, None, HEADS)
                for project, vectors in ((self.query, inputs), (self.key, seen), (self.value, seen))
            )
            attended = attention(
                *view.turn(query, key),
                value,
                view.mask,
                self.config.attention_probs_dropout_prob,
                fold_in_each(keys, 0),
            )
            return dropout(self.output(attended), self.config.hidden_dropout_prob, fold_in_each(keys, 1))

        looking = hidden if positions is None else gather_positions(hidden, positions)
        return residual(self.config, lambda vectors: self._norm(vectors, number), looking, attend)

    def weights(self, hidden: jax.Array, view: View, number: int | jax.Array = 0) -> jax.Array:
        """Returns the attention weights, float32 `[batch, heads, length, length]`; arguments as of a call."""
        inputs = self._inputs(hidden, number)
        return attention_weights(*view.turn(self.query(inputs), self.key(inputs)), view.mask)

    def _inputs(self, hidden: jax.Array, number: int | jax.Array) -> jax.Array:
        return self._norm(hidden, number) if self.config.is_pre_norm else hidden

    def _norm(self, hidden: jax.Array, number: int | jax.Array) -> jax.Array:
        """Normalises, but not what has been normalised as the embeddings' output; the first scale is not used then."""
        normalised = self.layer_norm(hidden)
        if self.config.layer_norm_placement != "pre_and_embeddings":
            return normalised
        return jnp.where(number == 0, hidden, normalised)


class FeedForward(nnx.Module):
    """Two linear maps with an activation between, and perhaps a gate; dropout, residual and LayerNorm."""

    def __init__(self, config: BertConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Makes the maps."""
        self.config = config
        sizes = config.hidden_size, config.intermediate_size
        self.intermediate = linear(config, *sizes, ("embed",), ("mlp",), dtype=dtype, rngs=rngs)
        if config.feed_forward_type == "gated":
            self.gate = linear(config, *sizes, ("embed",), ("mlp",), dtype=dtype, rngs=rngs)
        self.output = linear(config, *reversed(sizes), ("mlp",), ("embed",), dtype=dtype, rngs=rngs)
        self.layer_norm = layer_norm(config, dtype=dtype, rngs=rngs)

    def __call__(self, hidden: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        """Maps `[batch, length, hidden]` to the same shape; keys `[batch]`."""

        def transform(inputs: jax.Array) -> jax.Array:
            intermediate = activation(self.config, with_axes(self.intermediate(inputs), BATCH, None, MLP))
            if self.config.feed_forward_type == "gated":
                intermediate *= with_axes(self.gate(inputs), BATCH, None, MLP)
            outputs = self.output(intermediate)
            return dropout(outputs, self.config.hidden_dropout_prob, fold_in_each(keys, 2))

        return residual(self.config, self.layer_norm, hidden, transform)


class EncoderLayer(nnx.Module):
    """One layer of the encoder."""

    def __init__(self, config: BertConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Makes the two sub-layers."""
        self.attention = SelfAttention(config, dtype=dtype, rngs=rngs)
        self.feed_forward = FeedForward(config, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        hidden: jax.Array,
        view: View,
        keys: jax.Array | None = None,
        positions: jax.Array | None = None,
        number: int | jax.Array = 0,
    ) -> jax.Array:
        """Computes the layer's outputs.

        Args:
            hidden: `[batch, length, hidden]`.
            view: of `view_of`, for the same positions.
            keys: `[batch]` dropout keys, or None for no dropout.
            positions: `[batch, n]`, where the outputs are wanted; None for everywhere.
            number: of the layer, from 0.

        Returns:
            `[batch, n, hidden]`, or `[batch, length, hidden]`.
        """
        return self.feed_forward(self.attention(hidden, view, keys, positions, number), keys)


class LayerMixture(nnx.Module):
    """A learned mixture of all layers' outputs (Peters et al. 2018, equation 1): softmax weights, times gamma."""

    def __init__(self, config: BertConfig):
        """Makes the weights, which begin equal, and gamma, which begins as 1."""
        self.weights = nnx.Param(jnp.zeros(config.num_hidden_layers + 1), logical_axes=(None,))
        self.gamma = nnx.Param(jnp.ones(()), logical_axes=())

    def __call__(self, states: jax.Array) -> jax.Array:
        """Maps `[num_hidden_layers + 1, batch, length, hidden]`, the embeddings' output first, to one such state."""
        shares = self.gamma[...] * jax.nn.softmax(self.weights[...])
        mixed = jnp.einsum("s,sblh->blh", shares.astype(states.dtype), states, preferred_element_type=jnp.float32)
        return mixed.astype(states.dtype)


class BertEncoder(nnx.Module):
    """The stack of layers, kept as one layer whose parameters have a leading axis, and run by a scan.

    Compilation time and program size do not grow with the depth.

    With LayerNorm before the sub-layers, whatever is read of the stack passes the final LayerNorm (Xiong et al. 2020,
    table 1), the last layer's output as well as any other: within the stack, states grow from layer to layer.
    """

    def __init__(self, config: BertConfig, *, execution: Execution, rngs: nnx.Rngs):
        """Makes the stacked layers."""
        self.config = config
        self.execution = execution

        @nnx.split_rngs(splits=config.num_hidden_layers)
        @nnx.vmap(in_axes=0, out_axes=0)
        def stack(rngs: nnx.Rngs) -> EncoderLayer:
            return EncoderLayer(config, dtype=execution.jax_dtype, rngs=rngs)

        self.layers = stack(rngs)
        if config.is_pre_norm:
            self.final_layer_norm = layer_norm(config, dtype=execution.jax_dtype, rngs=rngs)

    def __call__(
        self,
        hidden: jax.Array,
        segment_ids: jax.Array,
        position_ids: jax.Array,
        keys: jax.Array | None = None,
        positions: jax.Array | None = None,
    ) -> jax.Array:
        """Encodes.

        Where a few positions are read alone, the last layer computes no others: all that they need of the rest are
        keys and values, a sixth of a layer's arithmetic with the usual intermediate size.

        Args:
            hidden: `[batch, length, hidden]`.
            segment_ids: `[batch, length]`; 0 is padding.
            position_ids: `[batch, length]`; of rotary positions.
            keys: `[batch]` dropout keys, or None for no dropout.
            positions: `[batch, n]`, where the outputs are wanted; None for everywhere.

        Returns:
            `[batch, length, hidden]`, or `[batch, n, hidden]`, the output of the last layer that is computed.
        """
        layers = self.config.num_computed_layers
        if positions is None or layers == 0:
            outputs, _ = self._scan(hidden, view_of(self.config, segment_ids, position_ids), keys, layers)
            return self._read(outputs if positions is None else gather_positions(outputs, positions))
        below, _ = self._scan(hidden, view_of(self.config, segment_ids, position_ids), keys, layers - 1)
        view = view_of(self.config, segment_ids, position_ids, positions)
        return self._read(self._layer_at(layers - 1, below, view, keys, positions))

    def states(
        self,
        hidden: jax.Array,
        segment_ids: jax.Array,
        position_ids: jax.Array,
        keys: jax.Array | None = None,
        layers: int | None = None,
    ) -> jax.Array:
        """Returns `[layers + 1, batch, length, hidden]`: `hidden` itself, then each layer's output.

        Args:
            hidden: as of a call, like the next three.
            segment_ids: see there.
            position_ids: see there.
            keys: see there.
            layers: how many to compute; all of them if None.
        """
        layers = self.config.num_hidden_layers if layers is None else layers
        view = view_of(self.config, segment_ids, position_ids)
        _, outputs = self._scan(hidden, view, keys, layers, lambda layer, number, before, after: after)
        return self._read(jnp.concatenate([hidden[None], outputs]))

    def attention_weights(self, hidden: jax.Array, segment_ids: jax.Array, position_ids: jax.Array) -> jax.Array:
        """Returns every layer's attention weights, float32 `[num_hidden_layers, batch, heads, length, length]`."""
        view = view_of(self.config, segment_ids, position_ids)

        def look(layer: EncoderLayer, number: jax.Array, before: jax.Array, after: jax.Array) -> jax.Array:
            # The compiler merges the products of queries and keys with the layer's own.
            return layer.attention.weights(before, view, number)

        return self._scan(hidden, view, None, self.config.num_hidden_layers, look)[1]

    def _layer_at(
        self, index: int, hidden: jax.Array, view: View, keys: jax.Array | None, positions: jax.Array
    ) -> jax.Array:
        """Runs one layer for a few positions, which the view is of; arguments as of a call."""
        graph, parameters = nnx.split(self.layers)

        def apply_layer(hidden: jax.Array, own: nnx.State) -> jax.Array:
            layer = nnx.merge(graph, own)
            return with_axes(layer(with_axes(hidden, BATCH), view, fold_in_each(keys, index), positions, index), BATCH)

        policy = REMAT_POLICIES[self.execution.remat]
        apply = apply_layer if policy is None else jax.checkpoint(apply_layer, policy=policy)
        own = jax.tree.map(lambda leaf: leaf[index], parameters)
        if index < self.execution.frozen_layers:
            hidden, own = jax.lax.stop_gradient((hidden, own))
        return apply(hidden, own)

    def _read(self, states: jax.Array) -> jax.Array:
        return self.final_layer_norm(states) if self.config.is_pre_norm else states

    def _scan(
        self,
        hidden: jax.Array,
        view: View,
        keys: jax.Array | None,
        layers: int,
        observe: Callable[[EncoderLayer, jax.Array, jax.Array, jax.Array], jax.Array] | None = None,
    ) -> tuple[jax.Array, jax.Array | None]:
        """Runs the first layers.

        Args:
            hidden: `[batch, length, hidden]`.
            view: of all positions.
            keys: `[batch]` dropout keys, or None.
            layers: how many to run.
            observe: what to keep of each layer, from the layer, its number, its input and its output.

        Returns:
            The last output, and what was observed, with a leading axis of layers.
        """
        graph, parameters = nnx.split(self.layers)

        def apply_layer(hidden: jax.Array, inputs: tuple) -> tuple[jax.Array, jax.Array | None]:
            layer_parameters, index = inputs
            layer = nnx.merge(graph, layer_parameters)
            outputs = layer(with_axes(hidden, BATCH), view, fold_in_each(keys, index), number=index)
            outputs = with_axes(outputs, BATCH)
            return outputs, observe and observe(layer, index, hidden, outputs)

        policy = REMAT_POLICIES[self.execution.remat]

        def run(hidden: jax.Array, first: int, last: int) -> tuple[jax.Array, jax.Array | None]:
            """Runs the layers first, ..., last - 1."""
            unroll = max(1, min(self.execution.unroll, last - first))
            apply = apply_layer
            if policy is not None:
                # A loop keeps forward and backward apart; without one the compiler would merge the recomputation with
                # what it repeats, and keep all of it after all.
                apply = jax.checkpoint(apply_layer, policy=policy, prevent_cse=unroll == last - first)
            whole = (first, last) == (0, self.config.num_hidden_layers)
            own = parameters if whole else jax.tree.map(lambda leaf: leaf[first:last], parameters)
            if last <= self.execution.frozen_layers:
                hidden, own = jax.lax.stop_gradient((hidden, own))
            return jax.lax.scan(apply, hidden, (own, jnp.arange(first, last)), unroll=unroll)

        frozen = min(self.execution.frozen_layers, layers)
        if frozen in (0, layers):
            return run(hidden, 0, layers)
        # A loop of their own, which nothing is differentiated through.
        hidden, below = run(hidden, 0, frozen)
        hidden, above = run(hidden, frozen, layers)
        return hidden, observe and jnp.concatenate([below, above])
