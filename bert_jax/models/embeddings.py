"""Ids to vectors: word, position and token-type embeddings, summed, normalised and dropped out."""

import jax
import jax.numpy as jnp
from flax import nnx

from bert_jax.config import BertConfig
from bert_jax.models.dropout import dropout
from bert_jax.models.layers import embed, layer_norm

# The vocabulary's axis is padded to a multiple of this, so that it can be cut over devices and fills matrix units:
# 30522 = 2 * 3 * 5087 divides by nothing useful.
VOCABULARY_MULTIPLE = 128


def padded_vocab_size(vocab_size: int) -> int:
    """The number of rows in the embedding table of a vocabulary of that size."""
    return -(-vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE


class BertEmbeddings(nnx.Module):
    """Embeddings of BERT (Devlin et al. 2018, figure 2), with learned positions."""

    def __init__(self, config: BertConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Makes the three tables; see `BertConfig` for their sizes."""
        self.config = config
        self.word_embeddings = embed(
            config,
            config.vocab_size,
            ("vocab", "embed"),
            dtype=dtype,
            rngs=rngs,
            padded_to=padded_vocab_size(config.vocab_size),
        )
        self.position_embeddings = embed(
            config, config.max_position_embeddings, (None, "embed"), dtype=dtype, rngs=rngs
        )
        self.token_type_embeddings = embed(config, config.type_vocab_size, (None, "embed"), dtype=dtype, rngs=rngs)
        self.layer_norm = layer_norm(config, dtype=dtype, rngs=rngs)

    def __call__(
        self, input_ids: jax.Array, token_type_ids: jax.Array, position_ids: jax.Array, keys: jax.Array | None = None
    ) -> jax.Array:
        """Embeds tokens.

        Args:
            input_ids: `[batch, length]`.
            token_type_ids: `[batch, length]`.
            position_ids: `[batch, length]`.
            keys: `[batch]` dropout keys, or None for no dropout.

        Returns:
            `[batch, length, hidden]`.
        """
        # Two or so token types: a product with a one-hot matrix spares the gather and above all its scatter backwards.
        types = jax.nn.one_hot(token_type_ids, self.config.type_vocab_size, dtype=self.token_type_embeddings.dtype)
        type_table = self.token_type_embeddings.embedding[...].astype(types.dtype)
        summed = self.word_embeddings(input_ids) + self.position_embeddings(position_ids) + types @ type_table
        return dropout(self.layer_norm(summed), self.config.hidden_dropout_prob, keys)
