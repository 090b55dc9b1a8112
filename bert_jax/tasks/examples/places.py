"""Where an example stands in the user's files, and what becomes of the rows that cannot be used."""

import dataclasses
from collections.abc import Iterable

from bert_jax.errors import UserError

POLICIES = ("fail", "skip")
_SHOWN = 5  # skipped rows that the report names; the others are counted
_REASON_CHARACTERS = 400  # of a reason, which may quote the row
_NAMES, _NAME_CHARACTERS = 20, 40  # that a message lists


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """A place in a file, written as `path:line`, which editors and terminals open.

    Attributes:
        path: the file, or the name of a dataset.
        line: the line from 1, of the decompressed file; None where the format has no lines (one large JSON object).
        item: what of that line or file is meant, such as "question 56be4db0"; "" where the line says it all.
    """

    path: str
    line: int | None = None
    item: str = ""

    def __str__(self) -> str:
        place = self.path if self.line is None else f"{self.path}:{self.line}"
        return f"{place}: {self.item}" if self.item else place


class BadRows:
    """What becomes of rows that cannot be used: `--on_bad_row=fail` stops at the first, `skip` counts them.

    It is for faults of one row (an empty text, a ragged line). A fault of the whole file (a missing column, a file of
    another kind) is a UserError under either policy.

    Attributes:
        policy: "fail" or "skip".
        count: rows skipped so far.
    """

    def __init__(self, policy: str = "fail"):
        if policy not in POLICIES:
            raise UserError(f"cannot read --on_bad_row={policy}: it is one of {', '.join(POLICIES)}")
        self.policy = policy
        self.count = 0
        self._first: list[tuple[Place, str]] = []

    def reject(self, place: Place, reason: str) -> None:
        """Counts a row that the caller then leaves out.

        Args:
            place: where the row stands.
            reason: what is wrong with it, as a clause: "the text is empty".

        Raises:
            UserError: the policy is "fail".
        """
        reason = " ".join(reason.splitlines())
        if len(reason) > _REASON_CHARACTERS:
            reason = f"{reason[: _REASON_CHARACTERS - 3]}..."
        if self.policy == "fail":
            raise UserError(f"{place}: {reason}; correct the row, or leave such rows out with --on_bad_row=skip")
        self.count += 1
        if len(self._first) < _SHOWN:
            self._first.append((place, reason))

    def report(self) -> list[str]:
        """Returns lines for people: how many rows were skipped, and the first of them; none if there were none."""
        if not self.count:
            return []
        named = [f"{place} ({reason})" for place, reason in self._first]
        if self.count > len(named):
            named.append(f"and {self.count - len(named)} more")
        return [f"{self.count} {'row' if self.count == 1 else 'rows'} skipped: {', '.join(named)}"]


def list_names(names: Iterable[str]) -> str:
    """Returns the first of the names for a message, long ones shortened, and how many more there are."""
    names = [name if len(name) <= _NAME_CHARACTERS else f"{name[: _NAME_CHARACTERS - 3]}..." for name in names]
    more = f" and {len(names) - _NAMES:,} more" if len(names) > _NAMES else ""
    return f"{', '.join(map(repr, names[:_NAMES]))}{more}"
