"""How a run computes its numbers and keeps its state, as a version: a run goes on with the one that it was begun with.

A change to the bits of a run, or to the shape of its state, gets a number here and a property that says what differs.
The number is recorded in a run's identity, and so in each of its checkpoints. Runs of before there were such numbers
record none, which is 0.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from bert_jax.errors import UserError

# Its name in a run's identity.
NUMERICS = "numerics"
LATEST = 1


@dataclasses.dataclass(frozen=True)
class Numerics:
    """What is computed and kept in which way.

    Attributes:
        version: 0, as it was first; 1, with logits in float32 whatever the dtype, and without optimizer state for what
            is frozen.
    """

    version: int = LATEST

    @property
    def has_rounded_logits(self) -> bool:
        """Whether the last product of heads, but for the masked-LM one, is rounded to the dtype of the computation."""
        return self.version < 1

    @property
    def keeps_state_of_frozen(self) -> bool:
        """Whether the optimizer keeps moments for frozen parameters too."""
        return self.version < 1

    @classmethod
    def of_run(cls, identity: Mapping[str, Any] | None, place: Any = "its folder") -> "Numerics":
        """Returns what a run goes on with.

        Args:
            identity: what its folder or a checkpoint says that it is; None for a new run.
            place: where that is said, for messages.

        Raises:
            UserError: it was begun by a newer version of bert_jax, or its record is damaged.
        """
        if identity is None:
            return cls()
        version = identity.get(NUMERICS, 0)
        if not isinstance(version, int) or isinstance(version, bool) or version < 0:
            raise UserError(f"the run in {place} is damaged: its {NUMERICS} must be a whole number, not {version!r}")
        if version > LATEST:
            raise UserError(
                f"the run in {place} was begun by a newer bert_jax, with {NUMERICS} {version}, and this one knows up to"
                f" {LATEST}: go on with that one, or begin a new run with --init_from"
            )
        return cls(version)

    def identity(self) -> dict[str, int]:
        """Returns what is recorded in a run's identity."""
        return {NUMERICS: self.version} if self.version else {}
