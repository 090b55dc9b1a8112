"""Rows of token ids of any length, with what is to be predicted of each, and how they become a batch."""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

# Of a token, or a row, that nothing is to be predicted of.
NO_LABEL = -1


@dataclasses.dataclass(frozen=True)
class Row:
    """One row, as an encoder makes it.

    Attributes:
        tokens: ids, [CLS] and [SEP] among them.
        first_length: how many of them are the first text's, with [CLS] and its [SEP].
        example: the number of the example that it is of.
        targets: values by name, of the row.
        token_targets: values by name, one for each token.
        detail: what turns outputs back into answers, such as where a window lies in its text.
    """

    tokens: Sequence[int]
    first_length: int
    example: int
    targets: Mapping[str, np.ndarray | float | int] = dataclasses.field(default_factory=dict)
    token_targets: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)
    detail: Any = None


@dataclasses.dataclass(frozen=True)
class EncodedRows:
    """Many rows in a few arrays.

    Rows that are the choices of one question follow each other, and go into a batch together: as one unit.

    Attributes:
        tokens: int32 `[total]`, the ids of all rows, one row after the other.
        offsets: int64 `[rows + 1]`, where each begins, and the end.
        first_lengths: int32 `[rows]`, tokens of the first text, with [CLS] and its [SEP].
        examples: int32 `[rows]`, the example that each is of.
        targets: arrays `[rows, ...]` by name.
        token_targets: int32 `[total]` by name; NO_LABEL where there is none.
        rows_per_unit: 1, or the number of choices.
        details: one of each row; see `Row`.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    first_lengths: np.ndarray
    examples: np.ndarray
    targets: Mapping[str, np.ndarray]
    token_targets: Mapping[str, np.ndarray]
    rows_per_unit: int = 1
    details: Sequence[Any] = ()

    @classmethod
    def of(cls, rows: Iterable[Row], rows_per_unit: int = 1) -> "EncodedRows":
        """Gathers rows; all have the same targets."""
        rows = list(rows)
        lengths = np.asarray([len(row.tokens) for row in rows], np.int64)
        names = rows[0].targets if rows else ()
        token_names = rows[0].token_targets if rows else ()

        def joined(sequences: Iterable[Sequence[int]]) -> np.ndarray:
            arrays = [np.asarray(sequence, np.int32) for sequence in sequences]
            return np.concatenate(arrays) if arrays else np.zeros(0, np.int32)

        return cls(
            tokens=joined(row.tokens for row in rows),
            offsets=np.concatenate([[0], np.cumsum(lengths)]),
            first_lengths=np.asarray([row.first_length for row in rows], np.int32),
            examples=np.asarray([row.example for row in rows], np.int32),
            targets={name: np.stack([np.asarray(row.targets[name]) for row in rows]) for name in names},
            token_targets={name: joined(row.token_targets[name] for row in rows) for name in token_names},
            rows_per_unit=rows_per_unit,
            details=[row.detail for row in rows],
        )

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.first_lengths)

    @property
    def num_units(self) -> int:
        """What goes into batches: rows, or groups of choices."""
        return len(self) // self.rows_per_unit

    def unit_lengths(self) -> np.ndarray:
        """Tokens of the longest row of each unit, int64 `[units]`."""
        return np.diff(self.offsets).reshape(self.num_units, self.rows_per_unit).max(axis=1, initial=0)

    def batch(self, units: np.ndarray, length: int) -> dict[str, np.ndarray]:
        """Lays out units as arrays.

        Args:
            units: their numbers, `[batch]`; -1 for one that is empty, and counts for nothing.
            length: of the rows in tokens; at least that of the longest.

        Returns:
            input_ids, token_type_ids, position_ids and segment_ids (1 for tokens, 0 for padding) int32
            `[batch, length]`, or `[batch, choices, length]`; the tokens' targets, of the same shape; the rows' targets,
            `[batch, ...]` (with choices, those of the first; 0 for what is empty, so that positions are within the
            batch's length); and row_weights float32 `[batch]`, 0 for what is empty.
        """
        units = np.asarray(units)
        present = units >= 0
        rows = np.where(present, units, 0)[:, None] * self.rows_per_unit + np.arange(self.rows_per_unit)
        lengths = (self.offsets[rows + 1] - self.offsets[rows]) * present[:, None]
        if lengths.max(initial=0) > length:
            raise ValueError(f"a row of {lengths.max()} tokens does not go into a batch of length {length}")
        positions = np.arange(length)
        used = positions < lengths[..., None]
        places = np.where(used, self.offsets[rows][..., None] + positions, 0)
        shape = (len(units), length) if self.rows_per_unit == 1 else (len(units), self.rows_per_unit, length)

        def by_token(values: np.ndarray, empty: int) -> np.ndarray:
            return np.where(used, values[places], empty).astype(np.int32).reshape(shape)

        second = used & (positions >= self.first_lengths[rows][..., None])
        first_rows = rows[:, 0]
        return {
            "input_ids": by_token(self.tokens, 0),
            "token_type_ids": second.astype(np.int32).reshape(shape),
            "position_ids": np.where(used, positions, 0).astype(np.int32).reshape(shape),
            "segment_ids": used.astype(np.int32).reshape(shape),
            "row_weights": present.astype(np.float32),
            **{name: by_token(values, NO_LABEL) for name, values in self.token_targets.items()},
            **{name: _where(present, values[first_rows]) for name, values in self.targets.items()},
        }

    def fingerprint(self) -> str:
        """Returns the sha256 in hex of everything in the rows."""
        digest = hashlib.sha256(str(self.rows_per_unit).encode())
        arrays = {"tokens": self.tokens, "offsets": self.offsets, "first_lengths": self.first_lengths}
        for name, array in sorted({**arrays, **self.targets, **self.token_targets}.items()):
            digest.update(f"{name} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def shapes(self, batch_size: int, length: int) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Returns shape and dtype of each array of a batch."""
        empty = self.batch(np.full(1, -1), length)
        return {name: ((batch_size, *array.shape[1:]), array.dtype) for name, array in empty.items()}


def _where(present: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns the values `[batch, ...]`, 0 where a row is not present."""
    return np.where(present.reshape(-1, *[1] * (values.ndim - 1)), values, 0).astype(values.dtype)
