"""Examples a few hundred at a time: enough to keep a library busy, few enough to take them as they come."""

import itertools
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def in_chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yields the items in lists of `size`, the last perhaps shorter; no more are taken than the list at hand needs."""
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk
