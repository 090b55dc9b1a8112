"""Modules as pure functions: a static graph, and parameters as a plain nested dict.

Training, checkpoints and conversion see only the dict, under the field's names; Flax's containers stay in here.
"""

import operator
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx

Parameters = dict[str, Any]


class Functional:
    """A module split once into a static graph and parameters.

    `model.init(key)` returns the parameters; `model.apply(parameters, *arguments)` calls the module with them.
    """

    def __init__(self, build: Callable[[nnx.Rngs], nnx.Module]):
        """Splits the module that `build` makes; nothing is computed until `init`."""
        # Eager sharding would ask for a mesh where the module is built; the layout is decided by the caller of `init`.
        with nnx.use_eager_sharding(False):
            abstract = nnx.eval_shape(lambda: build(nnx.Rngs(0)))
        self._build = build
        self._graph, self._abstract_state = nnx.split(abstract)

    def init(self, key: jax.Array) -> Parameters:
        """Returns initial parameters; traceable, so that it can be jit-compiled with output shardings."""
        with nnx.use_eager_sharding(False):
            return nnx.to_pure_dict(nnx.split(self._build(nnx.Rngs(params=key)))[1])

    def abstract(self) -> Parameters:
        """The parameters' shapes and dtypes."""
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), self._pure(self._abstract_state))

    def apply(self, parameters: Parameters, *arguments: Any, method: str = "__call__", **keywords: Any) -> Any:
        """Calls the module with these parameters, or a method of it or of a part of it, such as bert.hidden_states."""
        state = jax.tree.map(lambda leaf: leaf, self._abstract_state)
        nnx.replace_by_pure_dict(state, parameters)
        return operator.attrgetter(method)(nnx.merge(self._graph, state))(*arguments, **keywords)

    def logical_axes(self) -> Parameters:
        """For each parameter the names of its axes, None for one that is never cut; stacked ones begin with layers."""

        def names(variable: nnx.Variable) -> tuple[str | None, ...]:
            axes = tuple(variable.get_metadata().get("logical_axes", ()))
            return ("layers",) * (len(variable.get_raw_value().shape) - len(axes)) + axes

        is_variable = lambda leaf: isinstance(leaf, nnx.Variable)  # noqa: E731
        return self._pure(jax.tree.map(names, self._abstract_state, is_leaf=is_variable))

    @staticmethod
    def _pure(state: nnx.State) -> Parameters:
        return nnx.to_pure_dict(state)


def restrict(parameters: Parameters, wanted: Parameters) -> Parameters:
    """Returns the parameters whose names, from the root on, are those of another tree; what is missing stays missing.

    Such as those of a model, without the heads that lay beside it while it was trained.
    """
    return {
        name: restrict(parameters[name], inner) if isinstance(inner, Mapping) else parameters[name]
        for name, inner in wanted.items()
        if name in parameters
    }


def count_parameters(parameters: Parameters, vocab_size: int) -> int:
    """The number of trainable scalars, without the rows that pad the vocabulary's axis."""
    total = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(parameters):
        name = jax.tree_util.keystr(path)
        padded = "word_embeddings" in name or name == "['masked_lm']['bias']"
        total += leaf.size // leaf.shape[0] * vocab_size if padded else leaf.size
    return total
