"""A parent that watches over one process of several and has the last word in its log.

When a process of a run is lost, JAX's coordination service ends the others from C++ (abort), with no exception that
Python could turn into a line, and the last that one reads is a stack of addresses. The parent stays outside: it has
neither JAX nor threads, passes on signals and the exit code, and says what happened where the child could not.
"""

import os
import signal
import sys

from bert_jax.parent_process import end_with_parent

_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

_LOST = (
    "another process of the run was lost, and this one was ended (what is above names it). Start all of them again: the"
    " run goes on from its last checkpoint"
)


def supervise() -> None:
    """Returns in a child of this process; the parent waits for it there, and ends with its exit code.

    To be called before anything starts threads. A child that aborts ends the parent with the code of a TrainingError,
    1; one that another signal ends, with 128 and the signal's number. If the parent is killed, so is the child.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    # Signals wait until they are asked for: none comes before the parent knows its child, or between two looks.
    watched = {*_FORWARDED, signal.SIGCHLD}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        end_with_parent(parent)
        return
    # A terminal sends it to both.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        number = signal.sigwait(watched)
        if number != signal.SIGCHLD:
            os.kill(child, number)
            continue
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            os._exit(_report(status))


def _report(status: int) -> int:
    """Says how the child ended if it could not say so itself; returns the exit code."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return code
    number = signal.Signals(-code)
    if number == signal.SIGABRT:
        print(f"error: {_LOST}", file=sys.stderr, flush=True)
        return 1
    if number not in (signal.SIGTERM, signal.SIGINT):
        reason = "; the machine may have run out of memory" if number == signal.SIGKILL else ""
        print(f"error: this process of the run was ended by {number.name}{reason}", file=sys.stderr, flush=True)
    return 128 + number
