"""BERT, and BERT with its pre-training heads."""

import jax
from flax import nnx

from bert_jax.config import BertConfig
from bert_jax.models.activation_axes import BATCH, with_axes
from bert_jax.models.dropout import fold_in_each
from bert_jax.models.embeddings import BertEmbeddings, padded_vocab_size
from bert_jax.models.encoder import BertEncoder, LayerMixture
from bert_jax.models.execution import Execution
from bert_jax.models.heads import POOLED_AT_POSITIONS, MaskedLanguageModelHead, NextSentenceHead, Pooler
from bert_jax.models.layers import first_positions, gather_positions

# Places of dropout beside the layers, which are numbered from 0.
_EMBEDDINGS_PLACE = 1 << 20
_DEFAULT = Execution()

Batch = dict[str, jax.Array]


def token_arrays(batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Returns what `BertModel` wants of a batch, in its order."""
    return batch["input_ids"], batch["token_type_ids"], batch["position_ids"], batch["segment_ids"]


def pooled_positions(config: BertConfig, batch: Batch) -> jax.Array:
    """Returns where the pooler reads rows of one text or pair each: `[batch, 1]`, or `[batch, 2]` for entities."""
    return batch["entity_positions"] if config.pooling == "entities" else first_positions(batch["input_ids"])


class BertModel(nnx.Module):
    """Embeddings, encoder and pooler (Devlin et al. 2018)."""

    def __init__(
        self, config: BertConfig, *, with_pooler: bool = True, execution: Execution = _DEFAULT, rngs: nnx.Rngs
    ):
        """Makes the model.

        Args:
            config: the architecture, its vocab_size filled in.
            with_pooler: whether there is a pooler; what predicts for tokens has no use for one.
            execution: how it is computed.
            rngs: keys for the initial values.
        """
        dtype = execution.jax_dtype
        self.config = config
        self.embeddings = BertEmbeddings(config, dtype=dtype, rngs=rngs)
        self.encoder = BertEncoder(config, execution=execution, rngs=rngs)
        if config.encoder_output == "mixture":
            self.layer_mixture = LayerMixture(config)
        if with_pooler:
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
            `[batch, length, hidden]`, what `BertConfig.encoder_output` says. Under jit, tokens with an id, token type
            or position that there is not make it NaN; elsewhere they are refused, see `BertEmbeddings`.
        """
        embedded = self._embed(input_ids, token_type_ids, position_ids, keys)
        if self.config.encoder_output == "mixture":
            return self.layer_mixture(self.encoder.states(embedded, segment_ids, position_ids, keys))
        return self.encoder(embedded, segment_ids, position_ids, keys)

    def encode_and_pool(
        self,
        input_ids: jax.Array,
        token_type_ids: jax.Array,
        position_ids: jax.Array,
        segment_ids: jax.Array,
        positions: jax.Array,
        keys: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Encodes tokens, and pools each text or pair as `BertConfig.pooling` says.

        Args:
            input_ids: as of a call, like the next three.
            token_type_ids: see there.
            position_ids: see there.
            segment_ids: see there.
            positions: `[batch, pairs]`, where each pair begins; or of two entities, see `Pooler`.
            keys: `[batch]` dropout keys, or None for no dropout.

        Returns:
            What a call returns, and the pooled vectors `[batch, pairs, hidden]`.
        """
        if self.config.pooling != "last_four":
            hidden = self(input_ids, token_type_ids, position_ids, segment_ids, keys)
            return hidden, self.pooler(hidden, segment_ids, positions)
        states = self.computed_states(input_ids, token_type_ids, position_ids, segment_ids, keys)
        return self.read_and_pool(states, segment_ids, positions)

    def pool(
        self,
        input_ids: jax.Array,
        token_type_ids: jax.Array,
        position_ids: jax.Array,
        segment_ids: jax.Array,
        positions: jax.Array,
        keys: jax.Array | None = None,
    ) -> jax.Array:
        """Returns the pooled vectors alone, `[batch, pairs, hidden]`, and computes nothing that they do not need.

        They are those of `encode_and_pool`; but with dropout, other elements are dropped in the last layer.
        """
        tokens = (input_ids, token_type_ids, position_ids, segment_ids)
        if self.config.pooling not in POOLED_AT_POSITIONS or self.config.encoder_output == "mixture":
            return self.encode_and_pool(*tokens, positions, keys)[1]
        embedded = self._embed(input_ids, token_type_ids, position_ids, keys)
        return self.pooler.project(self.encoder(embedded, segment_ids, position_ids, keys, positions))

    def computed_states(
        self,
        input_ids: jax.Array,
        token_type_ids: jax.Array,
        position_ids: jax.Array,
        segment_ids: jax.Array,
        keys: jax.Array | None = None,
    ) -> jax.Array:
        """Returns `[num_computed_layers + 1, batch, length, hidden]`: `hidden_states` as far as they are read."""
        embedded = self._embed(input_ids, token_type_ids, position_ids, keys)
        return self.encoder.states(embedded, segment_ids, position_ids, keys, self.config.num_computed_layers)

    def read(self, states: jax.Array) -> jax.Array:
        """Returns what a call does, from `computed_states`."""
        return self.layer_mixture(states) if self.config.encoder_output == "mixture" else states[-1]

    def read_and_pool(
        self, states: jax.Array, segment_ids: jax.Array, positions: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Returns what `encode_and_pool` does, from `computed_states`."""
        hidden = self.read(states)
        return hidden, self.pooler(states if self.config.pooling == "last_four" else hidden, segment_ids, positions)

    def hidden_states(
        self,
        input_ids: jax.Array,
        token_type_ids: jax.Array,
        position_ids: jax.Array,
        segment_ids: jax.Array,
        keys: jax.Array | None = None,
    ) -> jax.Array:
        """Returns `[num_hidden_layers + 1, batch, length, hidden]`: the embeddings' output, then every layer's.

        Arguments are those of a call. Whatever `BertConfig.encoder_output` is, all layers are computed.
        """
        embedded = self._embed(input_ids, token_type_ids, position_ids, keys)
        return self.encoder.states(embedded, segment_ids, position_ids, keys)

    def attention_weights(
        self, input_ids: jax.Array, token_type_ids: jax.Array, position_ids: jax.Array, segment_ids: jax.Array
    ) -> jax.Array:
        """Returns who looks at whom: float32 `[num_hidden_layers, batch, heads, query_length, key_length]`.

        Arguments are those of a call, without dropout. The weights of a query sum to 1, and those of padding as a key
        are 0; queries that are padding mean nothing.
        """
        embedded = self._embed(input_ids, token_type_ids, position_ids, None)
        return self.encoder.attention_weights(embedded, segment_ids, position_ids)

    def _embed(
        self, input_ids: jax.Array, token_type_ids: jax.Array, position_ids: jax.Array, keys: jax.Array | None
    ) -> jax.Array:
        keys = fold_in_each(keys, _EMBEDDINGS_PLACE)
        return with_axes(self.embeddings(input_ids, token_type_ids, position_ids, keys), BATCH)


class BertForFeatureExtraction(nnx.Module):
    """BERT without a head, called with a batch like the models that have one."""

    def __init__(self, config: BertConfig, *, execution: Execution = _DEFAULT, rngs: nnx.Rngs):
        """Makes the model; arguments as of `BertModel`."""
        self.bert = BertModel(config, execution=execution, rngs=rngs)

    def __call__(self, batch: Batch, keys: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """Encodes a batch of single texts or pairs, not packed.

        Args:
            batch: input_ids, token_type_ids, position_ids, segment_ids `[batch, length]`.
            keys: `[batch]` dropout keys, or None for no dropout.

        Returns:
            The encoder's output `[batch, length, hidden]` and the pooled vectors `[batch, hidden]`.
        """
        return pooled_texts(self.bert, batch, keys)


class BertForPreTraining(nnx.Module):
    """BERT with the masked-LM head, tied to the word embeddings, and the next-sentence head."""

    def __init__(self, config: BertConfig, *, execution: Execution = _DEFAULT, rngs: nnx.Rngs):
        """Makes the model; arguments as of `BertModel`."""
        dtype = execution.jax_dtype
        self.bert = BertModel(config, execution=execution, rngs=rngs)
        self.masked_lm = MaskedLanguageModelHead(config, padded_vocab_size(config.vocab_size), dtype=dtype, rngs=rngs)
        self.next_sentence = NextSentenceHead(config, execution=execution, rngs=rngs)

    def __call__(self, batch: Batch, keys: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """Scores a pre-training batch.

        Args:
            batch: input_ids, token_type_ids, position_ids, segment_ids `[batch, length]`, masked_positions
                `[batch, predictions]` and cls_positions `[batch, pairs]`.
            keys: `[batch]` dropout keys, or None for no dropout.

        Returns:
            Float32 masked-LM logits `[batch, predictions, padded_vocab]`, at the masked positions only, and
            next-sentence logits `[batch, pairs, 2]`.
        """
        hidden, pooled = self.bert.encode_and_pool(*token_arrays(batch), batch["cls_positions"], keys)
        masked = gather_positions(hidden, batch["masked_positions"])
        masked_lm_logits = self.masked_lm(masked, self.bert.embeddings.word_embeddings.embedding[...])
        return masked_lm_logits, self.next_sentence(pooled)


class BertForMaskedLM(nnx.Module):
    """BERT without pooler, with the masked-LM head, tied to the word embeddings."""

    def __init__(self, config: BertConfig, *, execution: Execution = _DEFAULT, rngs: nnx.Rngs):
        """Makes the model; arguments as of `BertModel`."""
        self.bert = BertModel(config, with_pooler=False, execution=execution, rngs=rngs)
        self.masked_lm = MaskedLanguageModelHead(
            config, padded_vocab_size(config.vocab_size), dtype=execution.jax_dtype, rngs=rngs
        )

    def __call__(self, batch: Batch, keys: jax.Array | None = None) -> jax.Array:
        """Scores every word at the masked positions.

        Args:
            batch: input_ids, token_type_ids, position_ids, segment_ids `[batch, length]` and masked_positions
                `[batch, predictions]`.
            keys: `[batch]` dropout keys, or None for no dropout.

        Returns:
            Float32 logits `[batch, predictions, padded_vocab]`.
        """
        masked = gather_positions(self.bert(*token_arrays(batch), keys), batch["masked_positions"])
        return self.masked_lm(masked, self.bert.embeddings.word_embeddings.embedding[...])


def pooled_texts(bert: BertModel, batch: Batch, keys: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Encodes and pools rows that are one text or pair each.

    Returns:
        The encoder's output `[batch, length, hidden]` and the pooled vectors `[batch, hidden]`.
    """
    hidden, pooled = bert.encode_and_pool(*token_arrays(batch), pooled_positions(bert.config, batch), keys)
    return hidden, pooled[:, 0]
