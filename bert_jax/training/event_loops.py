"""Event loops that end only when their tasks have.

Orbax reads and writes arrays as the tasks of an event loop, and closes the loop at the first one that fails. Those that
are still under way in tensorstore's threads then find it closed, and each prints a traceback around the one line that
says what happened.
"""

import asyncio
import contextlib
import types
from collections.abc import Iterator

# Whatever hangs after this time is left behind, as orbax leaves it.
_MOST_SECONDS = 60.0


class _PatientPolicy(asyncio.AbstractEventLoopPolicy):
    """Another policy, whose new loops wait for their tasks before they close."""

    def __init__(self, policy: asyncio.AbstractEventLoopPolicy):
        self._policy = policy

    def get_event_loop(self) -> asyncio.AbstractEventLoop:
        return self._policy.get_event_loop()

    def set_event_loop(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._policy.set_event_loop(loop)

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        loop = self._policy.new_event_loop()
        loop.close = types.MethodType(_close_patiently, loop)
        return loop


def _close_patiently(loop: asyncio.AbstractEventLoop) -> None:
    if not loop.is_closed() and (tasks := asyncio.all_tasks(loop)):
        ended, _ = loop.run_until_complete(asyncio.wait(tasks, timeout=_MOST_SECONDS))
        for task in ended:
            # An exception that nobody asks for is printed too.
            if not task.cancelled():
                task.exception()
    type(loop).close(loop)


@contextlib.contextmanager
def patient_event_loops() -> Iterator[None]:
    """Lets the loops that are made in here, in any thread, wait for their tasks before they close."""
    policy = asyncio.get_event_loop_policy()
    asyncio.set_event_loop_policy(_PatientPolicy(policy))
    try:
        yield
    finally:
        asyncio.set_event_loop_policy(policy)
