"""Which parameters are trained, and how fast each: frozen layers, frozen names, rates that fall from layer to layer.

Both are one thing: a factor for the updates of every parameter, 0 where it is frozen. The factor of a stacked parameter
has one value for each layer. The optimizer keeps nothing for what is frozen.
"""

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bert_jax.errors import UserError
from bert_jax.training.optimizers import Restrict, number_of_layer_axes, path_names

_EMBEDDINGS = ("bert", "embeddings")
_ENCODER_LAYERS = ("bert", "encoder", "layers")


def update_factors(
    params: Any, *, frozen_layers: int = 0, frozen: Sequence[str] = (), layer_decay: float | None = None
) -> Any:
    """Returns a tree like the parameters of float32 factors, each of a shape that multiplies with its parameter.

    Args:
        params: the parameters, or their shapes.
        frozen_layers: so many layers from the bottom are frozen, and with them the embeddings.
        frozen: patterns of names that are frozen, such as "bert/embeddings/*" or "*/layer_norm/*"; a star also stands
            for slashes.
        layer_decay: the factor from a layer to the one below it: the heads have 1, the top layer this, the embeddings
            the smallest (Howard and Ruder 2018, section 3.2).

    Raises:
        UserError: a pattern fits no name, there are not so many layers, or nothing is left to train.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    num_layers = next(leaf.shape[0] for path, leaf in leaves if path_names(path)[:3] == _ENCODER_LAYERS)
    if not 0 <= frozen_layers <= num_layers:
        raise UserError(f"frozen_layers must be from 0 to the model's {num_layers}, not {frozen_layers!r}")
    names = ["/".join(path_names(path)) for path, _ in leaves]
    for pattern in frozen:
        if not fnmatch.filter(names, pattern):
            raise UserError(f"frozen: {pattern!r} fits no parameter; they are named like {names[0]}")

    def factor(path: Sequence[Any], leaf: Any) -> np.ndarray:
        parts = path_names(path)
        if any(fnmatch.fnmatchcase("/".join(parts), pattern) for pattern in frozen):
            values = np.zeros(num_layers) if number_of_layer_axes(path) else np.zeros(())
        elif parts[:3] == _ENCODER_LAYERS:
            from_the_bottom = np.arange(num_layers)
            values = np.power(layer_decay or 1.0, num_layers - from_the_bottom) * (from_the_bottom >= frozen_layers)
        elif parts[:2] == _EMBEDDINGS:
            values = np.asarray(0.0 if frozen_layers else np.power(layer_decay or 1.0, num_layers + 1))
        else:
            values = np.ones(())
        # One value, or one for each layer.
        return values.astype(np.float32).reshape((-1, *[1] * (leaf.ndim - 1)) if values.ndim else ())

    factors = jax.tree_util.tree_map_with_path(factor, params)
    if not any(leaf.any() for leaf in jax.tree.leaves(factors)):
        raise UserError("nothing is left to train: freeze less")
    return factors


def is_trained(factors: Any) -> Any:
    """Returns a tree of bools: False where all of a parameter is frozen, so that it needs no gradient."""
    return jax.tree.map(lambda factor: bool(factor.any()), factors)


def scale_updates(factors: Any) -> optax.GradientTransformation:
    """Multiplies the updates, decay included, by their factors; the last in a chain."""
    return optax.stateless(
        lambda updates, params: jax.tree.map(lambda update, factor: update * jnp.asarray(factor), updates, factors)
    )


def moments_of_trained(factors: Any) -> Restrict:
    """Returns what makes a transformation keep a state for the trained parameters alone, for `build_optimizer`.

    A parameter that is frozen as a whole is in no tree of its state; of a stacked one, the slices of the trained layers
    are, `[trained layers, ...]`. The updates are the same: of what is frozen they are zero, as of gradients that were
    zero always.
    """
    # From these layers on, the number of a parameter's first that is trained; all are frozen if None.
    firsts = jax.tree.map(lambda factor: int(np.argmax(factor != 0)) if factor.any() else None, factors)

    def restrict(transformation: optax.GradientTransformation) -> optax.GradientTransformation:
        def init(params: Any) -> Any:
            return transformation.init(_trained_part(params, firsts))

        def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
            own = None if params is None else _trained_part(params, firsts)
            of_trained, state = transformation.update(_trained_part(updates, firsts), state, own)
            return _with_zeros(of_trained, updates, firsts), state

        return optax.GradientTransformation(init, update)

    return restrict


def _trained_part(tree: Mapping[str, Any], firsts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns of a tree like the parameters the part that is trained, without branches that hold nothing."""
    found = {}
    for name, first in firsts.items():
        if isinstance(first, Mapping):
            if part := _trained_part(tree[name], first):
                found[name] = part
        elif first is not None:
            found[name] = tree[name][first:] if first else tree[name]
    return found


def _with_zeros(part: Mapping[str, Any], like: Mapping[str, Any], firsts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a tree like another one, of a part of it and zeros elsewhere; inverse of `_trained_part`."""
    found = {}
    for name, first in firsts.items():
        if isinstance(first, Mapping):
            found[name] = _with_zeros(part.get(name, {}), like[name], first)
        elif first is None:
            found[name] = jnp.zeros_like(like[name])
        else:
            found[name] = jnp.pad(part[name], [(first, 0), *[(0, 0)] * (like[name].ndim - 1)]) if first else part[name]
    return found


def count_trained(params: Any, factors: Any) -> tuple[int, int]:
    """Returns how many numbers are trained, and how many there are; with the rows that pad the vocabulary."""
    trained = total = 0
    for leaf, factor in zip(jax.tree.leaves(params), jax.tree.leaves(factors), strict=True):
        total += leaf.size
        trained += int(leaf.size * np.count_nonzero(factor) / factor.size)
    return trained, total
