"""Whether arrays fit into memory, said before they are made; and what a process ran out of, said in one line.

Importable without JAX, so that every launcher can say the latter.
"""

import contextlib
import errno
import math
import os
import pathlib
import resource
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from bert_jax.errors import UserError

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
# XLA says so where a device, or the host, has no more memory.
_EXHAUSTED = "RESOURCE_EXHAUSTED"
_MEMINFO = pathlib.Path("/proc/meminfo")
# The limit of a container: version 2 of control groups, and version 1.
_CGROUP_LIMITS = (
    pathlib.Path("/sys/fs/cgroup/memory.max"),
    pathlib.Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


class MemoryShortage(UserError):
    """Something was asked for that does not fit into memory."""


class Need(NamedTuple):
    """Arrays that have to lie in memory together with others.

    Attributes:
        name: what they are, such as "parameters".
        arrays: a tree of arrays or shapes; those with a sharding lie as it says, others on one device.
        remedy: what to type if they are too large.
    """

    name: str
    arrays: Any
    remedy: str


def check_memory(needs: Sequence[Need]) -> None:
    """Raises a MemoryShortage unless there is memory for all of these arrays together.

    It says how many bytes are asked for and how many are there, and the remedy for the largest. That arrays fit does
    not mean that a program which works on them does.
    """
    from bert_jax.parallel.sharding import bytes_per_device

    sizes = [bytes_per_device(need.arrays) for need in needs]
    parts = ", ".join(f"{need.name} {size_text(size)}" for need, size in zip(needs, sizes, strict=True) if size)
    largest = max(zip(sizes, needs, strict=True), key=lambda pair: pair[0])[1]
    check_bytes(sum(sizes), _devices_of([need.arrays for need in needs]), parts, largest.remedy)


def check_bytes(needed: int, devices: Iterable[Any], parts: str, remedy: str) -> None:
    """Raises a MemoryShortage unless each of this process's devices has so much memory.

    Args:
        needed: bytes on each device.
        devices: of this process; those of a CPU share the machine's memory.
        parts: what the bytes are of, for the message.
        remedy: what to type if they are too many.
    """
    devices = list(devices)
    there = min((limit for device in devices if (limit := memory_of(device)) is not None), default=None)
    on_hosts = [device for device in devices if device.platform == "cpu"]
    if there is None or needed * max(1, len(on_hosts)) <= there:
        return
    copies = f" on each of {len(on_hosts)} devices" if len(on_hosts) > 1 else ""
    where = "of the machine" if on_hosts else "of a device"
    raise MemoryShortage(
        f"not enough memory: {size_text(needed)} are needed{copies} ({parts}), and the memory {where} has"
        f" {size_text(there)}: {remedy}"
    )


def check_step(step: Any, arrays: Any, remedy: str) -> None:
    """Raises a MemoryShortage unless there is memory for a compiled step, as its compiler has planned it.

    Args:
        step: has `memory_analysis`, as a compiled program does.
        arrays: a tree of arrays or shapes that it works on; they say on which devices.
        remedy: what to type if it is too large.
    """
    if planned := planned_memory(step):
        held, within = planned
        parts = f"what it works on {size_text(held)}, within a step {size_text(within)}"
        check_bytes(held + within, _devices_of(arrays), parts, remedy)


def planned_memory(step: Any) -> tuple[int, int] | None:
    """Returns bytes on each device: what a compiled step works on, and what it needs beside; None if not known."""
    analysis = step.memory_analysis()
    if analysis is None:
        return None
    # The state that comes in is donated: its memory is the outgoing one's.
    held = analysis.argument_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return held, analysis.temp_size_in_bytes


def _devices_of(arrays: Any) -> Iterable[Any]:
    """Returns the devices of this process that arrays or shapes lie on; one where they do not say."""
    import jax

    shardings = [leaf.sharding for leaf in jax.tree.leaves(arrays) if getattr(leaf, "sharding", None) is not None]
    return max((sharding.addressable_devices for sharding in shardings), key=len, default=jax.local_devices()[:1])


def memory_of(device: Any) -> int | None:
    """Returns the bytes that this process may have on a device: what it has already is counted; None if not known."""
    if device.platform == "cpu":
        return host_memory()
    return (device.memory_stats() or {}).get("bytes_limit")


def host_memory() -> int | None:
    """Returns the bytes that this process may have of the machine's memory, its own among them; None if not known."""
    limits = []
    # Other systems than Linux do not say.
    with contextlib.suppress(OSError, LookupError, ValueError):
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        free = sum(int(lines[name].split()[0]) * 1024 for name in ("MemAvailable", "SwapFree"))
        own = int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        limits.append(free + own)
    for path in _CGROUP_LIMITS:
        # Where there is no such limit, there is no file, or it says "max".
        with contextlib.suppress(OSError, ValueError):
            limits.append(int(path.read_text()))
    of_process, _ = resource.getrlimit(resource.RLIMIT_AS)
    if of_process != resource.RLIM_INFINITY:
        limits.append(of_process)
    return min(limits, default=None)


def describe_shortage(error: BaseException) -> str | None:
    """Returns one line about an error that means that there was no memory left; None for any other error."""
    is_exhausted = isinstance(error, RuntimeError) and _EXHAUSTED in str(error)
    is_exhausted |= type(error).__name__ == "ResourceExhaustedError"  # TensorFlow's, which need not be installed
    is_refused = isinstance(error, OSError) and error.errno == errno.ENOMEM
    if not (isinstance(error, MemoryError) or is_exhausted or is_refused):
        return None
    said = " ".join(str(error).split()).removeprefix(f"{_EXHAUSTED}: ").rstrip(".")
    return (
        f"out of memory{f' ({said[:200]})' if said else ''}: lower the batch size, or cut it into micro-batches"
        " (accumulation_steps), or shorten the rows, or use a smaller model or more devices; what was saved is kept"
    )


def size_text(number: int) -> str:
    """Returns a number of bytes for people, such as 1.5 GiB."""
    power = 0 if number < 1024 else min(int(math.log2(number)) // 10, len(_UNITS) - 1)
    return f"{number} {_UNITS[0]}" if power == 0 else f"{number / 1024**power:,.1f} {_UNITS[power]}"
