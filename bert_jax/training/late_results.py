"""Results fetched from the devices a few steps late."""

import collections
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

# Steps under way at once: enough to hide the transfers, few enough to bound their memory.
_IN_FLIGHT = 4


def fetch_late(results: Iterable[Any], fetch: Callable[[Any], Any] = jax.device_get) -> Iterator[Any]:
    """Yields results on the host, in order, while those after them are computed.

    Args:
        results: of steps, which asking for the next one dispatches.
        fetch: brings one to the host.
    """
    pending: collections.deque[Any] = collections.deque()
    for result in results:
        pending.append(result)
        if len(pending) > _IN_FLIGHT:
            yield fetch(pending.popleft())
    while pending:
        yield fetch(pending.popleft())
