"""Modules as pure functions: a static graph, and parameters as a plain nested dict.

Training, checkpoints and conversion see only the dict, under the field's names; Flax's containers stay in here.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from bert_jax.errors import UserError

Parameters = dict[str, Any]
# Names in a message.
_SHOWN = 4


class Functional:
    """A module split once into a static graph and parameters.

    `model.init(key)` returns the parameters; `model.apply(parameters, *arguments)` calls the module with them.
    """

    def __init__(self, build: Callable[[nnx.Rngs], nnx.Module]):
        """Splits the module that `build` makes; nothing is computed until `init`."""
        # Eager sharding would ask for a mesh where the module is built; the layout is decided by the caller of `init`.
        with nnx.use_eager_sharding(False):
            abstract = nnx.eval_shape(lambda: build(nnx.Rngs(0)))
        self._build, self._name = build, type(abstract).__name__
        self._graph, self._abstract_state = nnx.split(abstract)

    def init(self, key: jax.Array) -> Parameters:
        """Returns initial parameters; traceable, so that it can be jit-compiled with output shardings."""
        with nnx.use_eager_sharding(False):
            return nnx.to_pure_dict(nnx.split(self._build(nnx.Rngs(params=key)))[1])

    def abstract(self) -> Parameters:
        """The parameters' shapes and dtypes."""
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), self._pure(self._abstract_state))

    def apply(self, parameters: Parameters, *arguments: Any, method: str = "__call__", **keywords: Any) -> Any:
        """Calls the module with these parameters, or a method of it or of a part of it, such as bert.hidden_states.

        Raises:
            UserError: they are of another model: a name is missing, another is there, or a shape is not the same.
        """
        self._check(parameters)
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

    def _check(self, parameters: Parameters) -> None:
        wanted, given = _shapes(self.abstract()), _shapes(parameters)
        if wanted == given:
            return
        differences = {
            "it lacks": [name for name in wanted if name not in given],
            "it has": [name for name in given if name not in wanted],
            "of another shape": [
                f"{name} {list(given[name])} instead of {list(shape)}"
                for name, shape in wanted.items()
                if given.get(name, shape) != shape
            ],
        }
        found = "; ".join(f"{what} {_some(names)}" for what, names in differences.items() if names)
        raise UserError(
            f"the parameters are not those of a {self._name}, which has {_some(list(wanted))}: {found}; give those that"
            " belong to it, or of a larger tree the part that does (bert_jax.models.parameters.restrict)"
        )

    @staticmethod
    def _pure(state: nnx.State) -> Parameters:
        return nnx.to_pure_dict(state)


def _shapes(tree: Parameters) -> dict[str, tuple[int, ...]]:
    """The shape of each array, by its path such as pooler/dense/kernel."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.shape(leaf) for path, leaf in leaves}


def _some(names: Sequence[str]) -> str:
    """The first few names, and how many there are beside."""
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


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
