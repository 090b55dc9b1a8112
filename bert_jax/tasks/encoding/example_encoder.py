"""What turns a task's examples into rows, one after the other; and how rows are gathered: all of them, or in chunks."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from bert_jax.tasks.encoding.chunks import in_chunks
from bert_jax.tasks.encoding.encoded_rows import EncodedRows, Row


class ExampleEncoder(Protocol):
    """Reads examples as a stream, a few hundred ahead, and counts what became of them.

    Attributes:
        rows_per_unit: 1, or the number of choices; see `EncodedRows`.
    """

    rows_per_unit: int

    def encode(self, examples: Iterable[Any]) -> Iterator[tuple[Any, list[Row]]]:
        """Yields each example with its rows, whose `example` counts from 0; with targets if it has an answer."""

    def report(self) -> list[str]:
        """Returns lines for people on what was encoded so far, such as how many texts were too long."""


def encode_all(encoder: ExampleEncoder, examples: Iterable[Any]) -> EncodedRows:
    """Returns the rows of all examples."""
    return EncodedRows.of((row for _, rows in encoder.encode(examples) for row in rows), encoder.rows_per_unit)


def encode_in_chunks(
    encoder: ExampleEncoder, examples: Iterable[Any], size: int
) -> Iterator[tuple[list[Any], EncodedRows]]:
    """Yields `size` examples at a time with their rows, whose `examples` are places in that list.

    The encoder reads one stream: what an example's rows show of its neighbours does not end where a chunk does.
    """
    for chunk in in_chunks(encoder.encode(examples), size):
        rows = (dataclasses.replace(row, example=place) for place, (_, rows) in enumerate(chunk) for row in rows)
        yield [example for example, _ in chunk], EncodedRows.of(rows, encoder.rows_per_unit)
