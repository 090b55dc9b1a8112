"""Accelerators that are not there: their devices by name, for compiling ahead of time.

Reading a name needs no JAX; asking for the devices needs it, and the compiler of that platform: libtpu, or JAX's CUDA
plug-in. Nothing is executed on them.
"""

import dataclasses
import math
import os
import re
from typing import Any

from bert_jax.errors import UserError
from bert_jax.parallel.chips import CHIPS, Chip

TPU, GPU = "tpu", "cuda"
# What libtpu wants to know of a machine that has no TPU; without it, it asks the cloud's metadata server and waits.
_TPU_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v4-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
# The compiler's threads have 64 KiB of stack by default, which its search for the tiles of fused convolutions exceeds
# on deep nests, such as those of a rematerialised layer: it crashes.
_TPU_ARGUMENTS = "--fibers_default_thread_stack_size=1048576"
# What the GPU's compiler must be told of an H100 SXM that it cannot ask (NVIDIA's H100 data sheet and CUDA programming
# guide, compute capability 9.0).
_H100 = """
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  registers_per_block_limit: 65536 registers_per_core_limit: 65536
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448 shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  l2_cache_size: 52428800 device_memory_size: 80000000000 memory_bandwidth: 3350000000000
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
_GPU_PACKAGES = "jax-cuda12-plugin jax-cuda12-pjrt"


@dataclasses.dataclass(frozen=True)
class Topology:
    """A number of chips and how they are connected.

    Attributes:
        chip_name: the key of `CHIPS`.
        sizes: of the torus of a slice; for GPUs (1, GPUs of a node).
        num_slices: tori (or nodes) that are connected by the network alone.
    """

    chip_name: str
    sizes: tuple[int, ...]
    num_slices: int = 1

    @property
    def chip(self) -> Chip:
        """What one of them can do."""
        return CHIPS[self.chip_name]

    @property
    def platform(self) -> str:
        """As JAX calls it."""
        return TPU if self.chip.dimensions else GPU

    @property
    def num_chips(self) -> int:
        """Of all slices together."""
        return math.prod(self.sizes) * self.num_slices

    @property
    def num_devices(self) -> int:
        """As JAX counts them."""
        return self.num_chips * self.chip.devices

    def __str__(self) -> str:
        """As on the command line; several slices as 2 x v5e:16x16."""
        if self.platform == GPU:
            return f"{self.chip_name}:{self.num_slices}x{self.sizes[-1]}"
        text = f"{self.chip_name}:{'x'.join(map(str, self.sizes))}"
        return text if self.num_slices == 1 else f"{self.num_slices} x {text}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that must be set before JAX is imported."""
        if self.platform == GPU:
            return {"JAX_PLATFORMS": "cpu"}
        arguments = " ".join(filter(None, [_TPU_ARGUMENTS, os.environ.get("LIBTPU_INIT_ARGS")]))
        return {"JAX_PLATFORMS": "cpu", "LIBTPU_INIT_ARGS": arguments, **_TPU_ENVIRONMENT}

    def make_devices(self) -> list[Any]:
        """Returns descriptions of its devices, as JAX wants them to compile for.

        Raises:
            UserError: the platform's compiler is not installed, or does not know such chips.
        """
        from jax.experimental import topologies

        self.check_installed()
        options: dict[str, Any] = {"num_slices": self.num_slices} if self.num_slices > 1 else {}
        if self.chip_name == "v4":
            # One device a chip, as on the machines; by default it would be one for each of its two cores.
            options["chip_config_name"] = "megacore"
        name = str(dataclasses.replace(self, num_slices=1))
        try:
            if self.platform == GPU:
                # Nodes count as processes of one slice.
                sizes = f"1x{self.num_slices}x{self.sizes[-1]}"
                return topologies.get_topology_desc("h100", GPU, topology=sizes, target_config=_H100).devices
            return topologies.get_topology_desc(platform=TPU, topology_name=name, **options).devices
        except Exception as error:  # the plug-ins' own exceptions
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"--topology={name}: the compiler knows no such slice: {reason}") from error

    def check_installed(self) -> None:
        """Raises a UserError unless the platform's compiler is installed."""
        import importlib.util

        if self.platform == TPU and importlib.util.find_spec("libtpu") is None:
            raise UserError(f"--topology={self}: needs the TPU compiler, libtpu: pip install -e .[plan]")
        if self.platform == GPU and importlib.util.find_spec("jax_cuda12_plugin") is None:
            raise UserError(f"--topology={self}: needs JAX's CUDA plug-in: pip install --no-deps {_GPU_PACKAGES}")


def parse_topology(text: str, num_slices: int = 1) -> Topology:
    """Reads CHIP:SIZES, such as v5e:16x16.

    Raises:
        UserError: it cannot be read.
    """
    name, _, sizes = text.partition(":")
    if name not in CHIPS:
        raise UserError(f"--topology={text}: {name!r} is not a chip; write {', '.join(CHIPS)}, as in v5e:16x16")
    chip = CHIPS[name]
    example = "h100:4x8, nodes by GPUs" if not chip.dimensions else f"{name}:{'x'.join(['4'] * chip.dimensions)}"
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", sizes) or sizes.count("x") + 1 != (chip.dimensions or 2):
        raise UserError(f"--topology={text}: {chip.dimensions or 2} sizes are wanted, as in {example}")
    numbers = tuple(map(int, sizes.split("x")))
    if num_slices < 1:
        raise UserError(f"--num_slices={num_slices}: must be at least 1")
    if not chip.dimensions:
        if num_slices > 1:
            raise UserError(f"--num_slices={num_slices}: a GPU's nodes are the first number of --topology={text}")
        return Topology(name, (1, numbers[1]), numbers[0])
    return Topology(name, numbers, num_slices)
