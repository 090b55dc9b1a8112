"""What training asks of a task; it knows no task by name."""

from collections.abc import Mapping
from typing import Any, Protocol

import jax

Batch = Mapping[str, jax.Array]
Scalars = dict[str, jax.Array]


class Task(Protocol):
    """Something to learn: a model, its loss, and what to report.

    A loss has one or several terms. Each is handed out as a weighted sum, and its weights depend on the batch alone, so
    that the step can total the weights over the global batch before it cuts the batch into pieces: the loss is the same
    however it is cut.
    """

    term_weights: Mapping[str, float]
    """How much each term's mean counts in the loss."""

    def init(self, key: jax.Array) -> Any:
        """Returns initial parameters, a nested dict."""

    def logical_axes(self) -> Any:
        """Returns for each parameter the names of its axes, by which a mesh cuts it; None for one never cut."""

    def loss_weights(self, batch: Batch) -> Scalars:
        """Totals the weights of each term over a batch."""

    def loss(self, parameters: Any, batch: Batch, keys: jax.Array | None) -> tuple[Scalars, Scalars]:
        """Returns each term's weighted sum, and statistics: sums that add up over batches.

        Args:
            parameters: as `init` returned them.
            batch: arrays `[batch, ...]`.
            keys: `[batch]` dropout keys, or None for no dropout.
        """

    def metrics(self, statistics: Mapping[str, Any]) -> dict[str, Any]:
        """Turns summed statistics into what is reported, "loss" among it; works on arrays and on numbers alike."""
