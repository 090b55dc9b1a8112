"""A head on the states of one layer, as the models of the tasks have one on the encoder's output."""

import dataclasses

import jax
from flax import nnx

from bert_jax.config import BertConfig
from bert_jax.models.bert import Batch, pooled_positions
from bert_jax.models.dropout import dropout
from bert_jax.models.execution import Execution
from bert_jax.models.heads import Pooler
from bert_jax.models.layers import LogitsMap


class LayerHead(nnx.Module):
    """A pooler, dropout and a linear map, as far as the model has them."""

    def __init__(
        self,
        config: BertConfig,
        num_logits: int,
        *,
        with_pooler: bool,
        with_dropout: bool,
        execution: Execution,
        rngs: nnx.Rngs,
    ):
        """Makes the head.

        Args:
            config: the architecture. One layer has no last four: instead of that pooling, [CLS] is read.
            num_logits: of a text or a token.
            with_pooler: whether it is texts that have logits, rather than tokens.
            with_dropout: whether there is dropout before the linear map.
            execution: how it is computed.
            rngs: keys for the initial values.
        """
        self._rate = config.hidden_dropout_prob if with_dropout else 0.0
        if with_pooler:
            pooling = "cls" if config.pooling == "last_four" else config.pooling
            self.pooler = Pooler(dataclasses.replace(config, pooling=pooling), dtype=execution.jax_dtype, rngs=rngs)
        self.output = LogitsMap(config, num_logits, execution=execution, rngs=rngs)

    def __call__(self, states: jax.Array, batch: Batch, keys: jax.Array | None = None) -> jax.Array:
        """Scores texts or tokens.

        Args:
            states: `[batch, length, hidden]`, of one layer.
            batch: as of the models: segment_ids `[batch, length]`. With a pooler, rows are one text or pair each.
            keys: `[batch]` dropout keys, or None for no dropout.

        Returns:
            Float32 logits, `[batch, logits]` with a pooler and `[batch, length, logits]` without.
        """
        if hasattr(self, "pooler"):
            positions = pooled_positions(self.pooler.config, batch)
            states = self.pooler(states, batch["segment_ids"], positions)[:, 0]
        return self.output(dropout(states, self._rate, keys))
