"""Code of others, loaded by the name that its package was installed under, and only where --plugin=NAME asks for it.

A package says in its pyproject.toml which function registers what it adds:

    [project.entry-points."bert_jax.plugins"]
    mine = "my_package.for_bert_jax:register"

The function is called without arguments, before a configuration is read; see docs/plugins.md.
"""

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from bert_jax.errors import UserError

GROUP = "bert_jax.plugins"

_loaded: set[str] = set()


def define_plugin_flag(values: flags.FlagValues) -> None:
    """Adds --plugin."""
    flags.DEFINE_multi_string(
        "plugin", [], "Name of an installed plugin whose configurables may be used; may repeat.", flag_values=values
    )


def load_plugins(names: Sequence[str]) -> None:
    """Lets plugins register what they add, each once in a process.

    Raises:
        UserError: no plugin of that name is installed, or several are; or it cannot be loaded.
    """
    for name in names:
        if name not in _loaded:
            _load(name)
            _loaded.add(name)


def _load(name: str) -> None:
    installed = importlib.metadata.entry_points(group=GROUP)
    found = {point.value: point for point in installed if point.name == name}
    if not found:
        others = ", ".join(sorted({point.name for point in installed}))
        there = f"installed are {others}" if others else "none is installed"
        raise UserError(f"--plugin={name}: no plugin of that name is installed; {there}")
    if len(found) > 1:
        raise UserError(f"--plugin={name}: several packages have a plugin of that name: {', '.join(sorted(found))}")
    try:
        found.popitem()[1].load()()
    except Exception as error:  # whatever the code of others raises
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"--plugin={name} cannot be loaded ({reason:.300}): mend or update its package") from error


def plugin_identity(values: flags.FlagValues) -> Mapping[str, Any]:
    """Returns the names of the plugins for a run's identity; nothing without any, as before there were plugins."""
    return {"plugin": sorted(set(values.plugin))} if values.plugin else {}
