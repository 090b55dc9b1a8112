"""A child process that ends with its parent, in whatever way the parent ends."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent(parent: int) -> None:
    """Has the system kill this process when its parent is gone; does nothing where the system is not Linux.

    To be called in the child. The parent counts as gone, too, when the thread that started the child ends.

    Args:
        parent: id of the process that started this one; this process ends at once if that one has ended already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have been gone by then.
    if os.getppid() != parent:
        os._exit(1)
