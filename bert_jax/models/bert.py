"""BERT, and BERT with its two pre-training heads."""

import jax
from flax import nnx

from bert_jax.config import BertConfig
from bert_jax.models.dropout import fold_in_each
from bert_jax.models.embeddings import BertEmbeddings, padded_vocab_size
from bert_jax.models.encoder import BertEncoder
from bert_jax.models.execution import Execution
from bert_jax.models.heads import MaskedLanguageModelHead, NextSentenceHead, Pooler, gather_positions

# Places of dropout beside the layers, which are numbered from 0.
_EMBEDDINGS_PLACE = 1 << 20
_DEFAULT = Execution()


class BertModel(nnx.Module):
    """Embeddings, encoder and pooler (Devlin et al. 2018)."""

    def __init__(self, config: BertConfig, *, execution: Execution = _DEFAULT, rngs: nnx.Rngs):
        """Makes the model.

        Args:
            config: the architecture, its vocab_size filled in.
            execution: how it is computed.
            rngs: keys for the initial values.
        """
        dtype = execution.jax_dtype
        self.embeddings = BertEmbeddings(config, dtype=dtype, rngs=rngs)
        self.encoder = BertEncoder(config, execution=execution, rngs=rngs)
        self.pooler = Pooler(config, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        input_ids: jax.Array,
        token_type_ids: jax.Array,
        position_ids: jax.Array,
        segment_ids: jax.Array,
        keys: jax.Array | None = None,
    ) -> jax.Array:
        """Encodes tokens.

        Args:
            input_ids: `[batch, length]`.
            token_type_ids: `[batch, length]`; 0 for the first text of a pair, 1 for the second.
            position_ids: `[batch, length]`; counted from 0 in each packed pair.
            segment_ids: `[batch, length]`; 0 is padding, k the k-th packed pair. A token sees its own pair only.
            keys: `[batch]` dropout keys, or None for no dropout.

        Returns:
            `[batch, length, hidden]`.
        """
        hidden = self.embeddings(input_ids, token_type_ids, position_ids, fold_in_each(keys, _EMBEDDINGS_PLACE))
        return self.encoder(hidden, segment_ids, keys)

    def pool(self, hidden: jax.Array, cls_positions: jax.Array) -> jax.Array:
        """Pools the [CLS] vectors at `cls_positions` `[batch, pairs]` of `hidden`; returns `[batch, pairs, hidden]`."""
        return self.pooler(gather_positions(hidden, cls_positions))


class BertForPreTraining(nnx.Module):
    """BERT with the masked-LM head, tied to the word embeddings, and the next-sentence head."""

    def __init__(self, config: BertConfig, *, execution: Execution = _DEFAULT, rngs: nnx.Rngs):
        """Makes the model; arguments as of `BertModel`."""
        dtype = execution.jax_dtype
        self.bert = BertModel(config, execution=execution, rngs=rngs)
        self.masked_lm = MaskedLanguageModelHead(config, padded_vocab_size(config.vocab_size), dtype=dtype, rngs=rngs)
        self.next_sentence = NextSentenceHead(config, dtype=dtype, rngs=rngs)

    def __call__(self, batch: dict[str, jax.Array], keys: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """Scores a pre-training batch.

        Args:
            batch: input_ids, token_type_ids, position_ids, segment_ids `[batch, length]`, masked_positions
                `[batch, predictions]` and cls_positions `[batch, pairs]`.
            keys: `[batch]` dropout keys, or None for no dropout.

        Returns:
            Float32 masked-LM logits `[batch, predictions, padded_vocab]`, at the masked positions only, and
            next-sentence logits `[batch, pairs, 2]`.
        """
        hidden = self.bert(
            batch["input_ids"], batch["token_type_ids"], batch["position_ids"], batch["segment_ids"], keys
        )
        masked = gather_positions(hidden, batch["masked_positions"])
        masked_lm_logits = self.masked_lm(masked, self.bert.embeddings.word_embeddings.embedding[...])
        return masked_lm_logits, self.next_sentence(self.bert.pool(hidden, batch["cls_positions"]))
