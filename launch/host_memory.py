"""Keeps memory that was freed, where the CPU computes: each step asks for the same hundreds of megabytes again.

glibc hands large blocks back to the system as soon as they are freed, and the system hands them out again page by page,
each filled with zeros: a fifth to a quarter of the time of a training step on CPUs.
"""

import ctypes
import glob
import os
import sys

# Of <malloc.h>: the largest free block that is kept, how many blocks are mapped on their own, and how many heaps there
# are. Heaps of threads are too small for such blocks, which would be mapped after all.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_ALL = -1
_ACCELERATORS = ("/dev/nvidia[0-9]*", "/dev/accel[0-9]*", "/dev/vfio/[0-9]*", "/dev/kfd")


def keep_freed_memory() -> bool:
    """Lets the process keep what it frees, if it will compute on CPUs; before there are threads.

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
    settings = ((_TRIM_THRESHOLD, _ALL), (_MMAP_MAX, 0), (_ARENA_MAX, 1))
    return all([library.mallopt(parameter, value) == 1 for parameter, value in settings])
