"""Packing: several short sequences in one row."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

# Rows that are kept open for further sequences. More fill rows better, and cost time: with 64 rows of 512 tokens
# the gain has levelled off.
OPEN_ROWS = 64


def first_fit(
    items: Iterable[tuple[int, Item]], capacity: int, max_items: int, open_rows: int = OPEN_ROWS
) -> Iterator[list[Item]]:
    """Puts each item into the first open row that has room for it, or else into a new one.

    Args:
        items: (length, item), with length at most `capacity`.
        capacity: tokens in a row.
        max_items: most items in a row.
        open_rows: most rows that wait for further items; the fullest is closed where there would be more.

    Yields:
        The items of each row. Nothing is lost, and the same items always give the same rows.
    """
    waiting: list[tuple[int, list[Item]]] = []
    for length, item in items:
        place = next((place for place, (room, _) in enumerate(waiting) if length <= room), None)
        room, row = waiting.pop(place) if place is not None else (capacity, [])
        row.append(item)
        room -= length
        if room == 0 or len(row) == max_items:
            yield row
            continue
        if place is not None:
            waiting.insert(place, (room, row))
            continue
        waiting.append((room, row))
        if len(waiting) > open_rows:
            fullest = min(range(len(waiting)), key=lambda place: waiting[place][0])
            yield waiting.pop(fullest)[1]
    for _, row in waiting:
        yield row
