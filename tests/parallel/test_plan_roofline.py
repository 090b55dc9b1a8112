"""The arithmetic of the roofline, by hand, and the table of chips."""

import numpy as np
import pytest

from bert_jax.errors import UserError
from bert_jax.parallel.chips import CHIPS, GIBIBYTE, GIGABYTE
from bert_jax.parallel.hlo_collectives import Collective
from bert_jax.parallel.roofline import Placement, Roofline, communication_seconds, estimate, ring_bandwidth
from bert_jax.parallel.topology import Topology, parse_topology
from bert_jax.training.flops import peak_flops


def torus(*sizes: int, slices: int = 1) -> Placement:
    """Devices in the order of their coordinates, slice by slice."""
    coordinates = np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij"), -1).reshape(-1, len(sizes))
    return Placement(np.tile(coordinates, (slices, 1)), np.repeat(np.arange(slices), len(coordinates)), sizes)


def test_a_step_is_as_slow_as_its_slowest_part():
    chip = CHIPS["v5e"]
    found = estimate(chip, torus(4, 4), 200e12, 100e12, 81.9e9, [])
    assert found == Roofline(pytest.approx(0.5), pytest.approx(0.1), 0, 0)
    both = Roofline(0.5, 0.1, 0.2, 0.7)
    assert both.hidden == 0.7
    assert both.exposed == pytest.approx(0.5 + 0.2 + 0.7)


def test_open_dimensions_carry_one_way_and_rings_both():
    chip = CHIPS["v5e"]
    assert ring_bandwidth(chip, torus(4, 4), np.arange(16)) == 2 * 50e9
    assert ring_bandwidth(chip, torus(16, 16), np.arange(256)) == 4 * 50e9
    # A column of a 16 x 16 torus is a ring of its own, and half of one is not.
    assert ring_bandwidth(chip, torus(16, 16), np.arange(16)) == 2 * 50e9
    assert ring_bandwidth(chip, torus(16, 16), np.arange(8)) == 50e9
    assert ring_bandwidth(CHIPS["h100"], torus(1, 8), np.arange(8)) == 450e9


def test_an_all_reduce_takes_two_rounds_of_the_ring():
    links, network = communication_seconds(
        CHIPS["v5e"], torus(4, 4), Collective("all-reduce", "data", tuple(range(16)), 1, 10**9)
    )
    assert (links, network) == (pytest.approx(2 * 15 / 16 * 1e9 / 100e9), 0)


def test_between_slices_each_chip_sends_its_share():
    placement = torus(4, 4, slices=2)
    whole = Collective("all-reduce", "data", tuple(range(32)), 1, 10**9)
    links, network = communication_seconds(CHIPS["v5e"], placement, whole)
    assert links == pytest.approx(2 * 15 / 16 * 1e9 / 100e9)
    assert network == pytest.approx(2 * 1 / 2 * 1e9 / 16 / (25e9 / 8))
    across = Collective("all-gather", "data", (0, 16), 1, 10**9)
    assert communication_seconds(CHIPS["v5e"], placement, across) == (0, pytest.approx(0.5e9 / (25e9 / 8)))


def test_the_two_devices_of_a_chip_share_its_links():
    coordinates = np.repeat(torus(4, 4).coordinates, 2, axis=0)
    placement = Placement(coordinates, np.zeros(32, int), (4, 4))
    one = Collective("all-gather", "data", tuple(range(32)), 1, 10**9)
    links, _ = communication_seconds(CHIPS["v3"], placement, one)
    assert links == pytest.approx(31 / 32 * 1e9 * 2 / (2 * 656e9 / 8))


def test_every_chip_has_a_peak_and_they_differ():
    peaks = {name: peak_flops(chip.device_kind) * chip.devices for name, chip in CHIPS.items()}
    assert peaks["v3"] == 123e12
    assert peaks["v5e"] == 197e12 and peaks["v5p"] == 459e12 and peaks["v6e"] == 918e12
    assert len(set(peaks.values())) == len(peaks)


def test_the_published_table_of_chips_is_ours(repository_root):
    lines = (repository_root / "docs" / "plan.md").read_text().splitlines()
    rows = {
        cells[1]: cells for cells in ([cell.strip() for cell in line.split("|")] for line in lines) if len(cells) == 11
    }
    for name, chip in CHIPS.items():
        size, unit = rows[name][4].split()
        assert int(rows[name][2]) == chip.devices
        assert float(rows[name][3]) * 1e12 == pytest.approx(peak_flops(chip.device_kind) * chip.devices)
        assert int(size) * {"GiB": GIBIBYTE, "GB": GIGABYTE}[unit] == chip.memory
        assert float(rows[name][5]) * GIGABYTE == pytest.approx(chip.memory_bandwidth)
        assert float(rows[name][6]) * GIGABYTE == pytest.approx(chip.link_bandwidth)
        assert rows[name][7].startswith(f"{2 * chip.dimensions}, " if chip.dimensions else "NVLink")
        assert rows[name][8] == (str(chip.ring_size) if chip.dimensions else "-")
        assert float(rows[name][9]) * GIGABYTE / 8 == pytest.approx(chip.network_bandwidth)


def test_topologies_count_chips_and_devices():
    assert parse_topology("v3:32x32").num_devices == 2048
    assert parse_topology("v5p:4x4x8", 2) == Topology("v5p", (4, 4, 8), 2)
    assert parse_topology("v5p:4x4x8", 2).num_devices == 256
    nodes = parse_topology("h100:4x8")
    assert (nodes.num_chips, nodes.num_slices, nodes.platform) == (32, 4, "cuda")
    assert str(nodes) == "h100:4x8"
    assert str(parse_topology("v5e:16x16", 2)) == "2 x v5e:16x16"


def test_the_environment_keeps_the_users_compiler_flags(monkeypatch):
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--mine=1")
    environment = parse_topology("v5e:4x4").environment
    assert environment["LIBTPU_INIT_ARGS"].endswith(" --mine=1")
    assert environment["JAX_PLATFORMS"] == "cpu"


@pytest.mark.parametrize(
    ("text", "slices", "said"),
    [
        ("v9:4x4", 1, "'v9' is not a chip"),
        ("v5e", 1, "2 sizes are wanted"),
        ("v5e:4x4x4", 1, "2 sizes are wanted"),
        ("v5p:4x4", 1, "3 sizes are wanted"),
        ("v5e:0x4", 1, "2 sizes are wanted"),
        ("h100:8", 1, "2 sizes are wanted"),
        ("h100:2x8", 2, "num_slices"),
        ("v5e:4x4", 0, "at least 1"),
    ],
)
def test_topologies_that_are_none(text, slices, said):
    with pytest.raises(UserError, match=said) as raised:
        parse_topology(text, slices)
    assert "\n" not in str(raised.value)
