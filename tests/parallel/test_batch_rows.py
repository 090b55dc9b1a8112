"""Which rows a process reads, on layouts that no single machine has."""

import jax
import numpy as np
import pytest

from bert_jax.parallel.batch_rows import BatchRows, local_rows
from bert_jax.parallel.mesh import batch_sharding, make_mesh


class Layout:
    """A sharding of which this process has only some devices, each with the rows that it holds."""

    def __init__(self, *pieces: slice):
        self._pieces = pieces

    def addressable_devices_indices_map(self, shape: tuple[int, ...]) -> dict[int, tuple[slice, ...]]:
        assert shape == (8,)
        return {device: (piece,) for device, piece in enumerate(self._pieces)}


@pytest.mark.parametrize(
    ("layout", "rows"),
    [
        (Layout(slice(None)), range(8)),
        (Layout(slice(4, 6), slice(6, 8)), [4, 5, 6, 7]),
        # Two devices of the tensor axis hold the same rows.
        (Layout(slice(2, 4), slice(2, 4)), [2, 3]),
        # Hosts that take turns along the data axis, in any order of devices.
        (Layout(slice(6, 8), slice(0, 2)), [0, 1, 6, 7]),
    ],
)
def test_the_rows_of_a_process(layout, rows):
    assert local_rows(layout, 8).tolist() == list(rows)


def test_each_device_gets_its_rows(monkeypatch):
    """Also where a process's rows do not follow each other in the whole batch."""
    layout = Layout(slice(6, 8), slice(0, 2))
    ours = BatchRows.of(layout, 8)
    whole = {"input_ids": np.arange(16).reshape(8, 2), "masked_weights": np.arange(8.0)}

    def make(shape, sharding, shard):
        assert sharding is layout and shape[0] == 8
        everything = (slice(None),) * (len(shape) - 1)
        return [shard((piece, *everything)) for piece in layout._pieces]

    monkeypatch.setattr(jax, "make_array_from_callback", make)
    put = ours.put(ours.take(whole))
    for name, array in whole.items():
        np.testing.assert_array_equal(put[name], [array[6:8], array[0:2]])


def test_alone_a_batch_is_put_as_it_is():
    ours = BatchRows.of(batch_sharding(make_mesh()), 4 * jax.device_count())
    batch = {"input_ids": np.arange(8 * jax.device_count()).reshape(-1, 2)}
    np.testing.assert_array_equal(ours.put(ours.take(batch))["input_ids"], batch["input_ids"])


def test_the_wrong_number_of_rows_is_refused():
    ours = BatchRows.of(Layout(slice(0, 2)), 8)
    with pytest.raises(ValueError, match="8 rows were given, and this process holds 2"):
        ours.put({"input_ids": np.zeros((8, 2))})
