"""Batches of encoded rows on the devices, and what a model says of every row."""

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from bert_jax.data.length_batches import LengthBatches, batches_in_order_of_length
from bert_jax.parallel.batch_rows import BatchRows
from bert_jax.parallel.memory import Need, check_memory
from bert_jax.parallel.mesh import abstract_batch, batch_sharding
from bert_jax.tasks.encoding.encoded_rows import EncodedRows
from bert_jax.training.late_results import fetch_late

# From a row's weight in a batch to that which it is given, such as by its class.
Weigh = Callable[[Mapping[str, np.ndarray]], np.ndarray]
# From a batch, the step, and the numbers of the batch's rows in the global one, to other input_ids.
Augment = Callable[[Mapping[str, np.ndarray], int, np.ndarray], np.ndarray]


class View(Protocol):
    """Shows the rows of a batch in another way too, see `PretrainingView`."""

    def __call__(self, units: np.ndarray, length: int, step: int, numbers: np.ndarray) -> dict[str, np.ndarray]:
        """Returns further arrays, from the batch's units, its length, the step, and the rows' numbers in the batch."""

    def shapes(self, batch_size: int, length: int) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Returns shape and dtype of each array."""


@dataclasses.dataclass(frozen=True)
class TrainingRows:
    """The rows that a task is learned from, and how a batch of them is laid out.

    Attributes:
        rows: the training rows.
        order: says which of them make up a batch.
        weigh: returns the weights of a batch's rows, float32 `[batch]`; 1 for each by default.
        augment: returns the input_ids to train on, such as with some tokens hidden; those of the rows by default.
        view: returns arrays that the batch has beside those of the rows.
    """

    rows: EncodedRows
    order: LengthBatches
    weigh: Weigh | None = None
    augment: Augment | None = None
    view: View | None = None

    def shapes(self, batch_size: int, length: int) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Returns shape and dtype of each array of a batch."""
        shapes = self.rows.shapes(batch_size, length)
        return {**shapes, **self.view.shapes(batch_size, length)} if self.view else shapes

    def batch(self, number: int, step: int, mesh: Mesh) -> dict[str, jax.Array]:
        """Lays out a batch on the devices; each process lays out the rows that it holds.

        Args:
            number: of the batch among those of these rows; `step` where there are no others.
            step: of the run.
            mesh: where it goes.
        """
        units, length = self.order(number)
        ours = BatchRows.of(batch_sharding(mesh), len(units))
        batch = self.rows.batch(units[ours.rows], length)
        if self.weigh:
            batch["row_weights"] = self.weigh(batch)
        if self.augment:
            batch["input_ids"] = self.augment(batch, step, ours.rows)
        if self.view:
            batch |= self.view(units[ours.rows], length, step, ours.rows)
        return ours.put(batch)

    def describe(self, number: int) -> str:
        """Says which examples a batch holds."""
        units, _ = self.order(number)
        examples = self.rows.examples[units[units >= 0] * self.rows.rows_per_unit]
        return f"the examples {', '.join(map(str, examples[:8]))}, ..."


def outputs_of_rows(
    programs: Mapping[int, Callable[[Any, Any], tuple[Any, Any]]],
    params: Any,
    rows: EncodedRows,
    batch_size: int,
    mesh: Mesh,
) -> tuple[dict[str, float], dict[str, list[np.ndarray]]]:
    """Runs a model over all rows, batches of about the same length at a time.

    Args:
        programs: by length of a batch, the compiled (parameters, batch) -> (statistics, outputs).
        params: the parameters.
        rows: what to run over; every unit comes exactly once.
        batch_size: of the programs.
        mesh: where they run.

    Returns:
        The statistics' sums, in float64, and by the outputs' names one array for each unit, in the order of the units.
        What there is of padding in them is left.

    Raises:
        UserError: there is no memory for a batch.
    """
    shapes = rows.shapes(batch_size, int(rows.unit_lengths().max(initial=1)))
    check_memory([Need("a batch", abstract_batch(mesh, shapes), "lower the batch size")])
    totals: collections.defaultdict[str, float] = collections.defaultdict(float)
    gathered: dict[str, list[Any]] = {}
    ours = BatchRows.of(batch_sharding(mesh), batch_size)

    def results() -> Iterator[tuple[np.ndarray, Any]]:
        for units, length in batches_in_order_of_length(rows.unit_lengths(), batch_size, sorted(programs)):
            batch = ours.put(rows.batch(units[ours.rows], length))
            yield units, programs[length](params, batch)

    for units, (statistics, outputs) in fetch_late(results(), _on_this_host):
        for name, value in statistics.items():
            totals[name] += float(value)
        for name, array in outputs.items():
            by_unit = gathered.setdefault(name, [None] * rows.num_units)
            for unit, values in zip(units, array, strict=True):
                if unit >= 0:
                    by_unit[unit] = values
    return dict(totals), gathered


def _on_this_host(result: tuple[np.ndarray, tuple[Any, Any]]) -> tuple[np.ndarray, tuple[Any, Any]]:
    units, (statistics, outputs) = result
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        outputs = multihost_utils.process_allgather(outputs, tiled=True)
    return units, jax.device_get((statistics, outputs))
