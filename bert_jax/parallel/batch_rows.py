"""Which rows of a batch this process reads, and how they become a global array.

A process reads the rows that its own devices hold. Where the tensor axis crosses processes, several hold the same rows,
and each reads them.
"""

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import Sharding


def local_rows(sharding: Sharding, batch_size: int) -> np.ndarray:
    """Returns the rows of a batch that lie on this process's devices, int64 `[rows]`, in order.

    Args:
        sharding: of the batch; only its first axis may be cut.
        batch_size: rows of the whole batch.
    """
    indices = sharding.addressable_devices_indices_map((batch_size,)).values()
    held = {row for (rows,) in indices for row in range(*rows.indices(batch_size))}
    return np.asarray(sorted(held), np.int64)


@dataclasses.dataclass(frozen=True)
class BatchRows:
    """The rows of a batch on this process.

    Attributes:
        sharding: of the batch.
        batch_size: rows of the whole batch.
        rows: those that this process holds.
    """

    sharding: Sharding
    batch_size: int
    rows: np.ndarray

    @classmethod
    def of(cls, sharding: Sharding, batch_size: int) -> "BatchRows":
        """Looks up this process's rows."""
        return cls(sharding, batch_size, local_rows(sharding, batch_size))

    def put(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """Moves this process's rows to its devices; returns global arrays.

        Args:
            batch: arrays `[len(rows), ...]`.
        """
        return {name: self._put(array) for name, array in batch.items()}

    def take(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns this process's rows of a whole batch."""
        return {name: array[self.rows] for name, array in batch.items()}

    def _put(self, array: np.ndarray) -> jax.Array:
        if len(array) != len(self.rows):
            raise ValueError(f"{len(array)} rows were given, and this process holds {len(self.rows)}")

        def shard(index: tuple[slice, ...]) -> np.ndarray:
            start, stop, _ = index[0].indices(self.batch_size)
            # A device's rows follow each other, here as in the whole batch.
            first = int(np.searchsorted(self.rows, start))
            return array[first : first + stop - start]

        return jax.make_array_from_callback((self.batch_size, *array.shape[1:]), self.sharding, shard)
