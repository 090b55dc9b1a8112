"""Starting from the weights of another run: what fits is taken, and everything is accounted for."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from bert_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What became of each tensor, by its path such as bert/pooler/dense/kernel.

    Attributes:
        loaded: taken from the other run.
        missing: not there; they keep their initial values.
        unexpected: there, and without a place here.
    """

    loaded: Sequence[str]
    missing: Sequence[str]
    unexpected: Sequence[str]

    def lines(self) -> list[str]:
        """The report for people: counts, and the names of what did not fit."""
        lines = [f"{len(self.loaded)} tensors loaded, {len(self.missing)} missing, {len(self.unexpected)} unexpected"]
        lines += [f"  loaded:     {name}" for name in self.loaded]
        lines += [f"  missing:    {name} (keeps its initial value)" for name in self.missing]
        lines += [f"  unexpected: {name} (not used)" for name in self.unexpected]
        return lines


def paths(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Flattens a nested dict into leaves by path, the keys joined by slashes."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(str(entry.key) for entry in path): leaf for path, leaf in leaves}


def load_matching(initial: Mapping[str, Any], other: Mapping[str, Any], source: str) -> tuple[Any, LoadReport]:
    """Replaces initial parameters by another run's of the same names.

    Args:
        initial: the parameters of a new run.
        other: those to load.
        source: where they come from, for messages.

    Raises:
        UserError: a tensor of the same name has another shape; that is another architecture.
    """
    wanted, given = paths(initial), paths(other)
    for name in wanted.keys() & given.keys():
        if wanted[name].shape != given[name].shape:
            raise UserError(
                f"{name} has shape {tuple(given[name].shape)} in {source}, and {tuple(wanted[name].shape)} in this"
                " model: use the same architecture and tokenizer"
            )
    report = LoadReport(
        loaded=[name for name in wanted if name in given],
        missing=[name for name in wanted if name not in given],
        unexpected=[name for name in given if name not in wanted],
    )
    if not report.loaded:
        raise UserError(f"{source} has no tensor that this model knows")
    leaves = [given.get(name, leaf) for name, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(initial), leaves), report
