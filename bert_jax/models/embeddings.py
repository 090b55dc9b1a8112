"""Ids to vectors: word, position and token-type embeddings, summed, normalised and dropped out."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from bert_jax.config import BertConfig
from bert_jax.errors import UserError
from bert_jax.models.activation_axes import VOCAB, with_axes
from bert_jax.models.dropout import dropout
from bert_jax.models.layers import NOWHERE, embed, layer_norm, places_in_table

# The vocabulary's axis is padded to a multiple of this, so that it can be cut over devices and fills matrix units:
# 30522 = 2 * 3 * 5087 divides by nothing useful.
VOCABULARY_MULTIPLE = 128


def padded_vocab_size(vocab_size: int) -> int:
    """The number of rows in the embedding table of a vocabulary of that size."""
    return -(-vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE


def sinusoidal_positions(number: int, hidden_size: int) -> np.ndarray:
    """Vectors of positions by formula (Vaswani et al. 2017, section 3.5).

    Dimension 2i of position p is sin(p / 10000^(2i / hidden)), and dimension 2i + 1 the cosine of the same angle.

    Returns:
        float32 `[number, hidden]`.
    """
    dimensions = np.arange(hidden_size)
    # In float64: an angle of hundreds of radians has few correct digits left in float32.
    angles = np.arange(number)[:, None] / 10000.0 ** ((dimensions - dimensions % 2) / hidden_size)
    return np.where(dimensions % 2, np.cos(angles), np.sin(angles)).astype(np.float32)


class BertEmbeddings(nnx.Module):
    """Embeddings of BERT (Devlin et al. 2018, figure 2).

    With positions by formula there is no table of them, and rotary ones come in later: see `rotary`. With LayerNorm
    before all sub-layers there is none here: the first layer normalises what it reads (Xiong et al. 2020, table 1).
    """

    def __init__(self, config: BertConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Makes the tables; see `BertConfig` for their sizes."""
        self.config = config
        self.dtype = dtype
        self.word_embeddings = embed(
            config,
            config.vocab_size,
            ("vocab", "embed"),
            dtype=dtype,
            rngs=rngs,
            padded_to=padded_vocab_size(config.vocab_size),
        )
        if config.position_embedding_type == "learned":
            sinusoids = None
            if config.position_embedding_init == "sinusoidal":
                table = sinusoidal_positions(config.max_position_embeddings, config.hidden_size)
                # A sine's standard deviation is 1 / sqrt(2): so neither words nor positions drown the others.
                sinusoids = table * (math.sqrt(2) * config.initializer_range)
            self.position_embeddings = embed(
                config, config.max_position_embeddings, (None, "embed"), dtype=dtype, rngs=rngs, begin_as=sinusoids
            )
        if config.type_vocab_size:
            self.token_type_embeddings = embed(config, config.type_vocab_size, (None, "embed"), dtype=dtype, rngs=rngs)
        if config.layer_norm_placement != "pre":
            self.layer_norm = layer_norm(config, dtype=dtype, rngs=rngs)

    def __call__(
        self, input_ids: jax.Array, token_type_ids: jax.Array, position_ids: jax.Array, keys: jax.Array | None = None
    ) -> jax.Array:
        """Embeds tokens.

        Args:
            input_ids: `[batch, length]`.
            token_type_ids: `[batch, length]`; not read by a model without token types.
            position_ids: `[batch, length]`.
            keys: `[batch]` dropout keys, or None for no dropout.

        Returns:
            `[batch, length, hidden]`. Under jit and other transformations a program cannot refuse ids that it is given:
            the vector of a token with an id, token type or position that there is not is NaN, and so is all that looks
            at it.

        Raises:
            TypeError: ids are not an array of whole numbers.
            UserError: there is no such id, token type or position, in an array whose numbers are known.
        """
        config = self.config
        input_ids = _checked(input_ids, config.vocab_size, "input_ids", "the vocabulary")
        position_ids = _checked(position_ids, config.max_position_embeddings, "position_ids", "the model's positions")
        summed = jnp.take(_whole_vectors(self.word_embeddings, VOCAB), input_ids, axis=0)
        if config.position_embedding_type != "rotary":
            summed += self._positions(position_ids)
        if config.type_vocab_size:
            summed += self._token_types(token_type_ids)
        if config.layer_norm_placement != "pre":
            summed = self.layer_norm(summed)
        return dropout(summed, config.hidden_dropout_prob, keys)

    def _token_types(self, token_type_ids: jax.Array) -> jax.Array:
        number = self.config.type_vocab_size
        ids = _checked(token_type_ids, number, "token_type_ids", "the token types")
        # Two or so token types: a product with a one-hot matrix spares the gather and above all its scatter backwards.
        types = jax.nn.one_hot(ids, number, dtype=self.token_type_embeddings.dtype)
        types = jnp.where((ids == NOWHERE)[..., None], jnp.nan, types)
        return types @ _whole_vectors(self.token_type_embeddings)

    def _positions(self, position_ids: jax.Array) -> jax.Array:
        if self.config.position_embedding_type == "learned":
            return jnp.take(_whole_vectors(self.position_embeddings), position_ids, axis=0)
        table = sinusoidal_positions(self.config.max_position_embeddings, self.config.hidden_size)
        return jnp.take(jnp.asarray(table, self.dtype), position_ids, axis=0)


def _checked(ids: jax.Array, number: int, name: str, table: str) -> jax.Array:
    """Returns ids `[batch, length]` as `places_in_table` does, after what can be known of them now has been checked.

    Looked up as they are, those beyond the vocabulary would be the zeros that pad it.

    Args:
        ids: to look up.
        number: how many there are.
        name: of the array, for messages.
        table: what they number, for messages.

    Raises:
        TypeError: they are not an array of whole numbers.
        UserError: there is no such id, where they are known.
    """
    if not isinstance(ids, jax.Array | np.ndarray | np.generic) or not jnp.issubdtype(ids.dtype, jnp.integer):
        given = ids.dtype if hasattr(ids, "dtype") else f"a {type(ids).__name__}"
        raise TypeError(
            f"{name} must be an array of whole numbers, not {given}: give such as jnp.asarray(ids, jnp.int32)"
        )
    # A traced array has no values yet, and one that lies on other processes too cannot be looked at from here.
    if ids.size and not isinstance(ids, jax.core.Tracer) and getattr(ids, "is_fully_addressable", True):
        # An array of numpy: of one of JAX, which a traced function may have closed over, the extremes were traced too.
        known = np.asarray(ids)
        smallest, largest = int(known.min()), int(known.max())
        if smallest < 0 or largest >= number:
            wrong = f"largest is {largest}" if largest >= number else f"smallest is {smallest}"
            raise UserError(
                f"{name}: the {wrong}, and the numbers of {table} are 0 to {number - 1}: use the tokenizer that belongs"
                " to the model, and texts no longer than it takes"
            )
    return places_in_table(ids, number)


def _whole_vectors(table: nnx.Embed, rows: str | None = None) -> jax.Array:
    """Returns a table in its module's dtype, to look vectors up in; where a mesh cuts vectors, they are gathered first.

    Looked up in a table whose vectors are cut, the pieces of vectors come for the rows of many devices, which no other
    activation does.

    Args:
        table: `[rows, hidden]`.
        rows: the name of its first axis.
    """
    return with_axes(table.embedding[...].astype(table.dtype), rows)
