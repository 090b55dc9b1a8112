"""Keeps memory that was freed, where the CPU computes: each step asks for the same hundreds of megabytes again.

glibc hands large blocks back to the system as soon as they are freed, and the system hands them out again page by page,
each filled with zeros: up to three tenths of a training step's time on two cores (docs/results.md).
"""

import ctypes
import glob
import os
import sys

# Of <malloc.h>: the largest free block that is kept, and how many blocks are mapped on their own.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_ALL = -1
_ACCELERATORS = ("/dev/nvidia[0-9]*", "/dev/accel[0-9]*", "/dev/vfio/[0-9]*", "/dev/kfd")


def keep_freed_memory() -> bool:
    """Lets the process keep what it frees, if it will compute on CPUs; imports JAX, which must not have devices yet.

    Programs then run in the thread that calls them, not in one of JAX's: only the main thread's heap grows to any size;
    others cannot hold such blocks. One heap for all threads would slow the compiler, whose threads would wait for it.

    Returns:
        Whether it does: there is no accelerator, or JAX_PLATFORMS says cpu; and the C library is glibc.
    """
    platforms = os.environ.get("JAX_PLATFORMS", "")
    has_accelerator = any(glob.glob(pattern) for pattern in _ACCELERATORS)
    if not sys.platform.startswith("linux") or (platforms != "cpu" if platforms else has_accelerator):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)
    settings = ((_TRIM_THRESHOLD, _ALL), (_MMAP_MAX, 0))
    return all([library.mallopt(parameter, value) == 1 for parameter, value in settings])
