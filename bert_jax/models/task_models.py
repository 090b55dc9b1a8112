"""BERT with the heads of fine-tuning (Devlin et al. 2018, section 4 and figure 4): a linear map of texts or tokens.

All are called with a batch whose rows are one text or pair each: input_ids, token_type_ids, position_ids and
segment_ids `[batch, length]`; and with `[batch]` dropout keys, or None for no dropout.
"""

import jax
from flax import nnx

from bert_jax.config import BertConfig
from bert_jax.models.bert import Batch, BertModel, pooled_positions, token_arrays
from bert_jax.models.dropout import dropout, fold_in_each
from bert_jax.models.execution import Execution
from bert_jax.models.layers import LogitsMap

# The place of dropout before a classifier, beside those of `BertModel`: the layers, and 1 << 20, the embeddings.
_CLASSIFIER_PLACE = (1 << 20) + 1
_DEFAULT = Execution()


class _Classification(nnx.Module):
    """BERT, dropout, and a linear map to labels."""

    def __init__(self, config: BertConfig, num_labels: int, *, with_pooler: bool, execution: Execution, rngs: nnx.Rngs):
        self.config = config
        self.bert = BertModel(config, with_pooler=with_pooler, execution=execution, rngs=rngs)
        self.classifier = LogitsMap(config, num_labels, execution=execution, rngs=rngs)

    def _classify(self, vectors: jax.Array, keys: jax.Array | None) -> jax.Array:
        dropped = dropout(vectors, self.config.hidden_dropout_prob, fold_in_each(keys, _CLASSIFIER_PLACE))
        return self.classifier(dropped)


class BertForSequenceClassification(_Classification):
    """Labels for whole texts or pairs, or one number for each (`num_labels` 1): a linear map of the pooled vector."""

    def __init__(self, config: BertConfig, num_labels: int, *, execution: Execution = _DEFAULT, rngs: nnx.Rngs):
        """Makes the model; `num_labels` is the number of logits, the other arguments are those of `BertModel`."""
        super().__init__(config, num_labels, with_pooler=True, execution=execution, rngs=rngs)

    def __call__(self, batch: Batch, keys: jax.Array | None = None) -> jax.Array:
        """Returns float32 logits `[batch, labels]`."""
        positions = pooled_positions(self.config, batch)
        return self._classify(self.bert.pool(*token_arrays(batch), positions, keys)[:, 0], keys)

    def from_states(self, states: jax.Array, batch: Batch, keys: jax.Array | None = None) -> jax.Array:
        """Returns what a call does, from `BertModel.computed_states`; with dropout, as of `encode_and_pool`."""
        pooled = self.bert.read_and_pool(states, batch["segment_ids"], pooled_positions(self.config, batch))[1]
        return self._classify(pooled[:, 0], keys)


class BertForTokenClassification(_Classification):
    """Labels for tokens: a linear map of each token's vector."""

    def __init__(self, config: BertConfig, num_labels: int, *, execution: Execution = _DEFAULT, rngs: nnx.Rngs):
        """Makes the model; `num_labels` is the number of logits, the other arguments are those of `BertModel`."""
        super().__init__(config, num_labels, with_pooler=False, execution=execution, rngs=rngs)

    def __call__(self, batch: Batch, keys: jax.Array | None = None) -> jax.Array:
        """Returns float32 logits `[batch, length, labels]`."""
        return self._classify(self.bert(*token_arrays(batch), keys), keys)

    def from_states(self, states: jax.Array, batch: Batch, keys: jax.Array | None = None) -> jax.Array:
        """Returns what a call does, from `BertModel.computed_states`."""
        return self._classify(self.bert.read(states), keys)


class BertForQuestionAnswering(nnx.Module):
    """Where an answer starts and ends: a linear map of each token's vector to two logits, without dropout."""

    def __init__(self, config: BertConfig, *, execution: Execution = _DEFAULT, rngs: nnx.Rngs):
        """Makes the model; arguments as of `BertModel`."""
        self.bert = BertModel(config, with_pooler=False, execution=execution, rngs=rngs)
        self.span = LogitsMap(config, 2, execution=execution, rngs=rngs)

    def __call__(self, batch: Batch, keys: jax.Array | None = None) -> jax.Array:
        """Returns float32 logits `[batch, length, 2]`, of the start and of the end; padding has logits too."""
        return self.span(self.bert(*token_arrays(batch), keys))

    def from_states(self, states: jax.Array, batch: Batch, keys: jax.Array | None = None) -> jax.Array:
        """Returns what a call does, from `BertModel.computed_states`."""
        return self.span(self.bert.read(states))
