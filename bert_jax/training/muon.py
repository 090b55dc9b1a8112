"""Muon: orthogonalised momentum for the matrices of the encoder's layers, AdamW for all else (Jordan et al. 2024).

The publication is https://kellerjordan.github.io/posts/muon/.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from bert_jax.training.optimizers import STACKED_NODE, Parts

# The name of the axis of the hidden size, which every linear map of a layer reads from or writes to.
_HIDDEN = "embed"


def matrix_axes(axes: Sequence[str | None]) -> MuonDimensionNumbers | None:
    """Returns which axes of a parameter are the inputs and outputs of a layer's matrix; None if it is none.

    A layer's matrices lead from the hidden size to another one, or back to it, and the other may have several axes:
    queries have `[layers, embed, heads, kv]`, the attention's output has `[layers, heads, kv, embed]`. The axis of the
    layers is neither, so that each layer has a matrix of its own.

    Args:
        axes: the names of the parameter's axes, inputs before outputs.
    """
    of_layers, own = tuple(axes[:1]), tuple(axes[1:])
    if of_layers != (STACKED_NODE,) or len(own) < 2 or _HIDDEN not in (own[0], own[-1]):
        return None
    numbers = tuple(range(1, len(axes)))
    cut = 1 if own[0] == _HIDDEN else -1
    return MuonDimensionNumbers(reduction_axis=numbers[:cut], output_axis=numbers[cut:])


def scale_by_orthogonal_momentum(momentum: float, dimensions: Callable[[Any], Any]) -> optax.GradientTransformation:
    """Replaces gradients by matrices whose singular values are about sqrt(max(1, outputs / inputs)).

    Five Newton-Schulz iterations bring the singular values of Nesterov's momentum to about 1, and the scale is that of
    Jordan et al. The other scale in use, 0.2 * sqrt(max(inputs, outputs)) (Liu et al. 2025), serves one learning rate
    in common with AdamW, and here the matrices have their own.

    Args:
        momentum: decay of the running mean of the gradients.
        dimensions: from a tree of matrices to a tree of their `MuonDimensionNumbers`.
    """

    def scale(update: jax.Array, numbers: MuonDimensionNumbers) -> jax.Array:
        inputs, outputs = (math.prod(update.shape[axis] for axis in axes) for axes in numbers)
        return update * math.sqrt(max(1.0, outputs / inputs))

    return optax.chain(
        scale_by_muon(beta=momentum, mu_dtype=jnp.float32, weight_dimension_numbers=dimensions),
        optax.stateless(lambda updates, _: jax.tree.map(scale, updates, dimensions(updates))),
    )


def muon(parts: Parts) -> optax.GradientTransformation:
    """Muon for every matrix that `matrix_axes` finds, and AdamW for all other parameters.

    The matrices have a learning rate of their own, `muon_learning_rate_factor` times the run's, which multiplies their
    weight decay too.

    Raises:
        ValueError: nobody said the names of the parameters' axes.
    """
    if parts.logical_axes is None:
        raise ValueError("muon knows matrices by the names of their axes: pass the task's logical_axes")
    choices = parts.choices
    axes = jax.tree_util.tree_leaves_with_path(parts.logical_axes, is_leaf=lambda node: isinstance(node, tuple))
    known = {path: matrix_axes(names) for path, names in axes}

    # Of a tree like the parameters, or a part of it.
    def dimensions(tree: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: known[path], tree)

    def is_matrix(tree: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: known[path] is not None, tree)

    def is_other(tree: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: known[path] is None, tree)

    direction = optax.chain(
        optax.masked(scale_by_orthogonal_momentum(choices.muon_momentum, dimensions), is_matrix),
        optax.masked(parts.adam, is_other),
    )
    factor = optax.masked(optax.scale(choices.muon_learning_rate_factor), is_matrix)
    return optax.chain(parts.clip, parts.restrict(direction), parts.decay, factor, parts.rate)
