"""How fast a step could be at best: the slower of arithmetic and memory, and the links.

A bound, not a forecast: it lets every unit run at the rate of the data sheet, without latency. What it assumes of the
links: a collective runs as rings (Thakur et al. 2005), at once along every dimension of the torus over which its group
reaches, in both directions where the dimension is closed. Between slices or nodes it is hierarchical: first within the
slice, and each chip then exchanges its share over the network.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from bert_jax.parallel.chips import Chip
from bert_jax.parallel.hlo_collectives import PERMUTE, Collective, share_sent


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where the devices of a mesh are, in its order.

    Attributes:
        coordinates: in the torus of their slice `[devices, dimensions]`.
        slices: `[devices]`.
        sizes: of the torus.
    """

    coordinates: np.ndarray
    slices: np.ndarray
    sizes: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds of a step.

    Attributes:
        arithmetic: of the matrix products.
        memory: of moving data to and from memory.
        links: of the collectives within slices.
        network: of those between them.
    """

    arithmetic: float
    memory: float
    links: float
    network: float

    @property
    def hidden(self) -> float:
        """With all communication behind computation: no step can be faster."""
        return max(self.arithmetic, self.memory, self.links, self.network)

    @property
    def exposed(self) -> float:
        """With no communication behind computation."""
        return max(self.arithmetic, self.memory) + self.links + self.network


def estimate(
    chip: Chip,
    placement: Placement,
    peak_flops: float,
    flops: float,
    memory_bytes: float,
    collectives: Sequence[Collective],
) -> Roofline:
    """Returns the seconds of a step.

    Args:
        chip: the accelerator.
        placement: of the mesh's devices.
        peak_flops: operations a second of one device.
        flops: of a step on one device.
        memory_bytes: moved by a step on one device.
        collectives: of a step.
    """
    times = [communication_seconds(chip, placement, one) for one in collectives]
    return Roofline(
        flops / peak_flops,
        memory_bytes / (chip.memory_bandwidth / chip.devices),
        sum(links for links, _ in times),
        sum(network for _, network in times),
    )


def communication_seconds(chip: Chip, placement: Placement, collective: Collective) -> tuple[float, float]:
    """Returns the seconds that a step spends in these collectives, on links and on the network between slices."""
    group = np.array(collective.group)
    slices = np.unique(placement.slices[group])
    here = group[placement.slices[group] == slices[0]]
    if collective.kind == PERMUTE:
        payload = collective.bytes * chip.devices
        if len(slices) > 1:
            return 0.0, payload / chip.network_bandwidth
        return payload / (chip.link_bandwidth * 2 if chip.dimensions else chip.link_bandwidth), 0.0
    links = network = 0.0
    if len(here) > 1:
        bandwidth = ring_bandwidth(chip, placement, here)
        # The devices of a chip share its links, and the memory that both see.
        links = collective.bytes * share_sent(collective.kind, len(here)) * chip.devices / bandwidth
    if len(slices) > 1:
        between = collective.bytes * share_sent(collective.kind, len(slices)) / len(here)
        network = between * chip.devices / chip.network_bandwidth
    return links, network


def ring_bandwidth(chip: Chip, placement: Placement, group: np.ndarray) -> float:
    """Bytes per second and direction that a chip of the group can send within its slice."""
    if not chip.dimensions:
        return chip.link_bandwidth
    coordinates = placement.coordinates[group]
    bandwidth = 0.0
    for dimension, size in enumerate(placement.sizes):
        reach = len(np.unique(coordinates[:, dimension]))
        if reach > 1:
            closed = reach == size and size % chip.ring_size == 0
            bandwidth += chip.link_bandwidth * (2 if closed else 1)
    # The two devices of one chip meet in its memory, as fast as over a link at least.
    return bandwidth or chip.link_bandwidth
