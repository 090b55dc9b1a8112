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
        other_shapes: of a head that is of another shape there; they keep their initial values.
    """

    loaded: Sequence[str]
    missing: Sequence[str]
    unexpected: Sequence[str]
    other_shapes: Sequence[str] = ()

    def lines(self) -> list[str]:
        """The report for people: counts, and the names of what did not fit."""
        other_shapes = f", {len(self.other_shapes)} of heads of another shape" if self.other_shapes else ""
        lines = [
            f"{len(self.loaded)} tensors loaded, {len(self.missing)} missing, {len(self.unexpected)} unexpected"
            + other_shapes
        ]
        lines += [f"  loaded:     {name}" for name in self.loaded]
        lines += [f"  missing:    {name} (keeps its initial value)" for name in self.missing]
        lines += [f"  other head: {name} (keeps its initial value)" for name in self.other_shapes]
        lines += [f"  unexpected: {name} (not used)" for name in self.unexpected]
        return lines


def paths(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Flattens a nested dict into leaves by path, the keys joined by slashes."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(str(entry.key) for entry in path): leaf for path, leaf in leaves}


def load_matching(
    initial: Mapping[str, Any], other: Mapping[str, Any], source: str, heads: Sequence[str] = ()
) -> tuple[Any, LoadReport]:
    """Replaces initial parameters by another run's of the same names.

    Args:
        initial: the parameters of a new run.
        other: those to load.
        source: where they come from, for messages.
        heads: modules, such as "classifier", that are left out as a whole if a tensor of theirs has another shape.

    Raises:
        UserError: another tensor of the same name has another shape; that is another architecture.
    """
    wanted, given = paths(initial), paths(other)
    changed = [name for name in wanted if name in given and wanted[name].shape != given[name].shape]
    other_heads = tuple(f"{head}/" for head in heads if any(name.startswith(f"{head}/") for name in changed))
    for name in changed:
        if not name.startswith(other_heads):
            raise UserError(
                f"{name} has shape {tuple(given[name].shape)} in {source}, and {tuple(wanted[name].shape)} in this"
                " model: use the same architecture and tokenizer"
            )
    other_shapes = [name for name in wanted if name in given and name.startswith(other_heads)]
    given = {name: leaf for name, leaf in given.items() if name not in other_shapes}
    report = LoadReport(
        loaded=[name for name in wanted if name in given],
        missing=[name for name in wanted if name not in given and name not in other_shapes],
        unexpected=[name for name in given if name not in wanted],
        other_shapes=other_shapes,
    )
    if not report.loaded:
        raise UserError(f"{source} has no tensor that this model knows")
    leaves = [given.get(name, leaf) for name, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(initial), leaves), report
