"""Flags that decide something only beside others: given elsewhere they are a mistake, and are not silently ignored.

A launcher declares them where it defines its flags; they are checked when flags are parsed, before anything is read.
"""

from collections.abc import Callable, Sequence

from absl import flags


def flags_of(define: Callable[[flags.FlagValues], None]) -> list[str]:
    """Returns the names of the flags that a function defines."""
    values = flags.FlagValues()
    define(values)
    return list(values)


def only_where(
    values: flags.FlagValues, names: Sequence[str], holds: Callable[[flags.FlagValues], object], otherwise: str
) -> None:
    """Declares that flags have an effect only under a condition.

    Args:
        values: where they are defined.
        names: of the flags; one that is not given, or is not defined there, is never a mistake.
        holds: whether they have an effect, told by the flags alone.
        otherwise: follows "--name=value: " for a flag that is given although it has none: why, and what to do.
    """
    for name in names:
        if name not in values:
            continue

        def check(_: object, name: str = name) -> bool:
            if values[name].present and not holds(values):
                raise flags.ValidationError(otherwise)
            return True

        flags.register_validator(name, check, flag_values=values)
