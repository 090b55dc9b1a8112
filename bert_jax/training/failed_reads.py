"""The two reasons why a checkpoint cannot be read: it is damaged, or the machine cannot read it just now.

A damaged checkpoint may be set aside. A disk that does not answer, a network share that is gone for a minute, or memory
that runs out says nothing against the checkpoint: reading is tried again, and then the run ends with all as it was.
"""

import errno
import os
import re
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from bert_jax.errors import TrainingError

Result = TypeVar("Result")

# Before the second and later attempts, in seconds.
_PAUSES = (0.5, 2.0)
# Something is missing, or of another kind than it was: that comes from damage, not from the machine.
_DAMAGE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
# The words with which tensorstore and JAX begin, which raise ValueError and RuntimeError for everything.
_PASSING = re.compile(
    r"(RESOURCE_EXHAUSTED|UNAVAILABLE|DEADLINE_EXCEEDED|PERMISSION_DENIED|CANCELLED|UNAUTHENTICATED)\b|out of memory",
    re.IGNORECASE,
)


def system_error(error: BaseException) -> int | None:
    """Returns the code (errno) of what the operating system said, also where others passed it on in their words."""
    for one in _chain(error):
        if isinstance(one, OSError) and one.errno is not None:
            return one.errno
        if found := re.search(r"os_error_code='(\d+)'", str(one)):
            return int(found[1])
    return None


def passing_reason(error: BaseException) -> str | None:
    """Returns why the machine could not read; None if what was read is damaged."""
    if code := system_error(error):
        return None if code in _DAMAGE else os.strerror(code)
    for one in _chain(error):
        if isinstance(one, MemoryError):
            return "out of memory"
        if found := _PASSING.match(str(one)):
            return found[0].lower().replace("_", " ")
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error, and those that it came from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def read_again(read: Callable[[], Result], what: str) -> Result:
    """Returns what `read` returns, trying again where the machine could not read.

    Args:
        read: raises anything.
        what: names what is read, for the message.

    Raises:
        TrainingError: the machine still cannot read.
        Exception: that of `read`, where what was read is damaged.
    """
    for pause in (*_PAUSES, None):
        try:
            return read()
        except Exception as error:  # orbax and tensorstore raise whatever a failure leads them to
            reason = passing_reason(error)
            if reason is None:
                raise
            if pause is None:
                raise unreadable(what, reason) from error
        time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def unreadable(what: str, reason: str) -> TrainingError:
    """Returns the error of what the machine cannot read just now, for a reason of `passing_reason`."""
    return TrainingError(
        f"{what} cannot be read now ({reason}), which says nothing against it: nothing was moved; start again when the"
        " machine can read it"
    )


def one_line(error: BaseException) -> str:
    """Returns what the error says that this one came from, on one line, short enough to stand within another."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join((str(error) or type(error).__name__).split())[:200]
