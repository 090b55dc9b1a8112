"""What the accelerators can do, from public sources; importable without JAX.

Peak arithmetic is in `bert_jax.training.flops`, by the kind of device. All numbers are per chip. Sources:

- TPU v2, v3: Jouppi et al., "A domain-specific supercomputer for training deep neural networks", CACM 63(7), 2020,
  table 3 (700 and 900 GB/s of memory; four links of 496 and 656 Gbit/s).
- TPU v4: Jouppi et al., "TPU v4: an optically reconfigurable supercomputer", ISCA 2023, table 4 (1,200 GB/s; six links
  of 50 GB/s).
- TPU v5e, v6e: docs.cloud.google.com/tpu/docs/v6e (1,600 and 3,200 Gbit/s over four ports; 6.4 and 25.6 Tbit/s of
  network for a pod of 256). TPU v5p: docs.cloud.google.com/tpu/docs/v5p (1,200 GB/s in both directions of six links
  together; 50 Gbit/s of network).
- H100 SXM: NVIDIA's H100 and DGX H100 data sheets (3.35 TB/s; NVLink of 900 GB/s, both directions together; eight
  400 Gbit/s adapters for eight GPUs).

The network of v2, v3 and v4 is not published per chip: 100 Gbit/s for a host of four chips is assumed.
"""

import dataclasses

GIBIBYTE = 1 << 30
GIGABYTE = 10**9


@dataclasses.dataclass(frozen=True)
class Chip:
    """One kind of accelerator.

    Attributes:
        device_kind: how JAX's devices begin to name it.
        dimensions: of the torus of its links; 0 if all links go to a switch.
        devices: JAX devices per chip.
        memory: bytes.
        memory_bandwidth: bytes per second.
        link_bandwidth: bytes per second in one direction of one link; of all of them if they go to a switch.
        ring_size: a dimension of the torus is closed to a ring where its size is a multiple of this.
        network_bandwidth: bytes per second and direction to other slices or nodes.
    """

    device_kind: str
    dimensions: int
    devices: int
    memory: int
    memory_bandwidth: float
    link_bandwidth: float
    ring_size: int
    network_bandwidth: float


def _gigabits(number: float) -> float:
    return number * GIGABYTE / 8


CHIPS = {
    "v2": Chip("TPU v2", 2, 2, 16 * GIBIBYTE, 700 * GIGABYTE, _gigabits(496), 16, _gigabits(25)),
    "v3": Chip("TPU v3", 2, 2, 32 * GIBIBYTE, 900 * GIGABYTE, _gigabits(656), 32, _gigabits(25)),
    "v4": Chip("TPU v4", 3, 1, 32 * GIBIBYTE, 1200 * GIGABYTE, 50 * GIGABYTE, 4, _gigabits(25)),
    "v5e": Chip("TPU v5 lite", 2, 1, 16 * GIBIBYTE, 819 * GIGABYTE, _gigabits(400), 16, _gigabits(25)),
    "v5p": Chip("TPU v5", 3, 1, 95 * GIBIBYTE, 2765 * GIGABYTE, 100 * GIGABYTE, 4, _gigabits(50)),
    "v6e": Chip("TPU v6 lite", 2, 1, 32 * GIBIBYTE, 1638 * GIGABYTE, _gigabits(800), 16, _gigabits(100)),
    "h100": Chip("NVIDIA H100", 0, 1, 80 * GIGABYTE, 3350 * GIGABYTE, 450 * GIGABYTE, 1, _gigabits(400)),
}
