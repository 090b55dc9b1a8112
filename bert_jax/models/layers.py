"""Linear, LayerNorm, Embed and gathering as BERT uses them: its initial values, stable arithmetic, named axes.

Each parameter carries `logical_axes` in its metadata: the names (embed, heads, kv, mlp, vocab) by which a mesh decides
where to cut it. The modules know nothing of meshes.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from bert_jax.config import BertConfig
from bert_jax.models.activation_axes import BATCH, with_axes
from bert_jax.models.execution import Execution


def kernel_init(config: BertConfig) -> nnx.Initializer:
    """Normal of the configuration's range, cut at two standard deviations and not rescaled, as in the original."""
    return nnx.initializers.truncated_normal(stddev=config.initializer_range)


def linear(
    config: BertConfig,
    in_features: int | tuple[int, ...],
    out_features: int | tuple[int, ...],
    in_axes: tuple[str, ...],
    out_axes: tuple[str, ...],
    *,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
    use_bias: bool | None = None,
) -> nnx.LinearGeneral:
    """An affine map over the last axes of its input, with named axes; computes in `dtype`, keeps float32 parameters.

    There is a bias if the configuration says so, unless `use_bias` does.
    """
    contracted = 1 if isinstance(in_features, int) else len(in_features)
    return nnx.LinearGeneral(
        in_features,
        out_features,
        axis=tuple(range(-contracted, 0)),
        dtype=dtype,
        use_bias=config.use_bias if use_bias is None else use_bias,
        kernel_init=kernel_init(config),
        kernel_metadata={"logical_axes": in_axes + out_axes},
        bias_metadata={"logical_axes": out_axes},
        rngs=rngs,
    )


class LogitsMap(nnx.LinearGeneral):
    """An affine map of vectors `[..., hidden]` to float32 logits `[..., logits]`, the last thing that a head does.

    Whatever the dtype of the computation, products are summed in float32 and the bias is added there: rounded, two
    logits of a long passage are often the same number.
    """

    def __init__(self, config: BertConfig, num_logits: int, *, execution: Execution, rngs: nnx.Rngs):
        """Makes the map; `execution` says how it is computed."""
        exact = {"preferred_element_type": jnp.float32, "promote_dtype": _promote_all_but_bias}
        super().__init__(
            config.hidden_size,
            num_logits,
            dtype=execution.jax_dtype,
            kernel_init=kernel_init(config),
            kernel_metadata={"logical_axes": ("embed", None)},
            bias_metadata={"logical_axes": (None,)},
            rngs=rngs,
            **({} if execution.numerics.has_rounded_logits else exact),
        )

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Scores `[..., hidden]`."""
        return super().__call__(inputs).astype(jnp.float32)


def _promote_all_but_bias(arrays: tuple[jax.Array, ...], *, dtype: jnp.dtype) -> tuple[jax.Array, ...]:
    inputs, kernel, bias = arrays
    return inputs.astype(dtype), kernel.astype(dtype), bias


def layer_norm(config: BertConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.LayerNorm | nnx.RMSNorm:
    """The norm over the hidden axis that `BertConfig.norm_type` says.

    The variance is computed from the centred values and in float32: with an epsilon of 1e-12 the difference of two
    large squares would drown it.
    """
    axes = {"logical_axes": ("embed",)}
    shared = {"epsilon": config.layer_norm_eps, "dtype": dtype, "scale_metadata": axes, "rngs": rngs}
    if config.norm_type == "rms_norm":
        return nnx.RMSNorm(config.hidden_size, **shared)
    return nnx.LayerNorm(
        config.hidden_size, use_fast_variance=False, use_bias=config.use_bias, bias_metadata=axes, **shared
    )


def embed(
    config: BertConfig,
    num_embeddings: int,
    axes: tuple[str | None, str],
    *,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
    padded_to: int | None = None,
    begin_as: np.ndarray | None = None,
) -> nnx.Embed:
    """A table of `num_embeddings` vectors of the hidden size, and zeros below them up to `padded_to` rows.

    Their initial values are drawn, or those of `begin_as`, float32 `[num_embeddings, hidden]`.
    """
    padding = (padded_to or num_embeddings) - num_embeddings

    def initialize(key: jax.Array, shape: tuple[int, int], dtype: jnp.dtype) -> jax.Array:
        if begin_as is not None:
            used = jnp.asarray(begin_as, dtype)
        else:
            used = kernel_init(config)(key, (num_embeddings, shape[1]), dtype)
        return jnp.pad(used, ((0, padding), (0, 0)))

    return nnx.Embed(
        num_embeddings + padding,
        config.hidden_size,
        dtype=dtype,
        embedding_init=initialize,
        embedding_metadata={"logical_axes": axes},
        rngs=rngs,
    )


def activation(config: BertConfig, inputs: jax.Array) -> jax.Array:
    """GELU (Hendrycks and Gimpel 2016), exact or by the tanh approximation of Google's code; or SiLU (the same)."""
    if config.hidden_act == "silu":
        return jax.nn.silu(inputs)
    return jax.nn.gelu(inputs, approximate=config.hidden_act == "gelu_tanh")


# Beyond any table: what is looked up there is NaN.
NOWHERE = np.int32(np.iinfo(np.int32).max)


def places_in_table(ids: jax.Array, number: int) -> jax.Array:
    """Returns ids to look up in a table of so many rows, with `NOWHERE` in the place of those that it lacks.

    Looked up as they are, negative ones would count from the end of the table.
    """
    return jnp.where((ids >= 0) & (ids < number), ids, NOWHERE)


def gather_positions(hidden: jax.Array, positions: jax.Array) -> jax.Array:
    """Picks vectors by position, row by row.

    take_along_axis stays within each row, so that a batch cut over devices needs no communication for it.

    Args:
        hidden: `[batch, length, hidden]`.
        positions: `[batch, n]`.

    Returns:
        `[batch, n, hidden]`.
    """
    return with_axes(jnp.take_along_axis(hidden, positions[:, :, None], axis=1), BATCH)


def first_positions(rows: jax.Array) -> jax.Array:
    """Returns where the texts of rows `[batch, ...]` begin that are one text or pair each: int32 zeros `[batch, 1]`."""
    return jnp.zeros((len(rows), 1), jnp.int32)
