"""Whole texts and pairs as rows: [CLS] A [SEP], or [CLS] A [SEP] B [SEP]; and what is done with long ones."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from bert_jax.errors import UserError
from bert_jax.tasks.encoding.chunks import in_chunks
from bert_jax.tasks.encoding.encoded_rows import Row
from bert_jax.tasks.examples.example_types import TextExample
from bert_jax.text.tokenizer import Tokenizer

# What is kept of a text over the limit.
HEAD, TAIL, HEAD_AND_TAIL, WINDOWS = LONG_TEXTS = ("head", "tail", "head_and_tail", "windows")
# Of a text's head and tail, the head: a quarter, as in Sun et al. 2019, section 5.3.1 (128 tokens of 510).
_HEAD_SHARE = 0.25
# How much of a window is seen again by the next.
_OVERLAP = 0.25
# Texts are tokenized in batches: enough to keep the library busy, few enough to take examples as they come.
_BATCH = 512


@dataclasses.dataclass
class LengthCount:
    """How many texts there were, and how many were over the limit."""

    texts: int = 0
    long: int = 0
    longest: int = 0

    def report(self, max_seq_len: int, long_texts: str) -> str:
        """Says so in one line."""
        kept = {
            HEAD: "their beginning is kept",
            TAIL: "their end is kept",
            HEAD_AND_TAIL: "their beginning and their end are kept",
            WINDOWS: "each is read in windows",
        }[long_texts]
        line = f"{self.long:,} of {self.texts:,} texts are longer than {max_seq_len} tokens"
        return f"{line} (the longest {self.longest:,}); {kept}" if self.long else line


def _no_targets(example: TextExample, tokens: Sequence[int]) -> Mapping[str, Any]:
    return {}


class TextEncoder:
    """Turns texts and pairs into rows; see `ExampleEncoder`."""

    rows_per_unit = 1

    def __init__(
        self,
        tokenizer: Tokenizer,
        max_seq_len: int,
        long_texts: str = HEAD,
        markers: Sequence[str] = (),
        targets: Callable[[TextExample, Sequence[int]], Mapping[str, Any]] = _no_targets,
    ):
        """Makes the encoder.

        Args:
            tokenizer: gives the ids.
            max_seq_len: tokens of a row at most, [CLS] and [SEP] among them.
            long_texts: what becomes of texts that are longer: one of LONG_TEXTS. Of a pair, the longer text gives up
                tokens first, as in the original.
            markers: words that are one token each wherever they stand, such as "[E1]"; of the vocabulary.
            targets: those of a row, by name, given its example and its ids.

        Raises:
            UserError: there is no such way, or a marker is not in the vocabulary.
        """
        if long_texts not in LONG_TEXTS:
            raise UserError(f"long_texts must be one of {', '.join(LONG_TEXTS)}, not {long_texts!r}")
        self._tokenizer = tokenizer
        self._max_seq_len = max_seq_len
        self._long_texts = long_texts
        self._markers = {marker: tokenizer.token_to_id(marker) for marker in markers}
        unknown = [marker for marker, index in self._markers.items() if index is None]
        if unknown:
            raise UserError(f"the vocabulary has no {', '.join(unknown)}: add them as words of their own")
        self._splitter = re.compile("(" + "|".join(map(re.escape, markers)) + ")") if markers else None
        self._targets = targets
        self.count = LengthCount()

    def report(self) -> list[str]:
        """See `ExampleEncoder`."""
        return [self.count.report(self._max_seq_len, self._long_texts)]

    def encode(self, examples: Iterable[TextExample]) -> Iterator[tuple[TextExample, list[Row]]]:
        """Yields each example with its rows: one, or several windows."""
        number = 0
        for batch in in_chunks(examples, _BATCH):
            firsts = self._ids([example.text for example in batch])
            seconds = self._ids([example.pair or "" for example in batch])
            for example, first, second in zip(batch, firsts, seconds, strict=True):
                pieces = self._pair(first, second) if example.pair is not None else self._single(first)
                yield example, [self._row(*piece, number, example) for piece in pieces]
                number += 1

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        if self._splitter is None:
            return self._tokenizer.encode_batch(texts)
        split = [self._splitter.split(text) for text in texts]
        # Every second part is a marker.
        plain = iter(self._tokenizer.encode_batch([part for parts in split for part in parts[::2]]))
        ids = []
        for parts in split:
            ids.append(list(next(plain)))
            for marker in parts[1::2]:
                ids[-1] += [self._markers[marker], *next(plain)]
        return ids

    def _row(self, first: Sequence[int], second: Sequence[int] | None, number: int, example: TextExample) -> Row:
        sep = self._tokenizer.sep_id
        beginning = [self._tokenizer.cls_id, *first, sep]
        tokens = [*beginning, *second, sep] if second is not None else beginning
        return Row(tokens, len(beginning), number, self._targets(example, tokens))

    def _single(self, ids: list[int]) -> list[tuple[list[int], None]]:
        limit = self._max_seq_len - 2
        if self._is_within(len(ids), limit):
            return [(ids, None)]
        if self._long_texts == WINDOWS:
            return [(window, None) for window in windows(ids, limit)]
        return [(cut(ids, limit, self._long_texts), None)]

    def _pair(self, first: list[int], second: list[int]) -> list[tuple[list[int], list[int]]]:
        limit = self._max_seq_len - 3
        if self._is_within(len(first) + len(second), limit):
            return [(first, second)]
        kept_first = first_share(len(first), len(second), limit)
        if self._long_texts != WINDOWS:
            return [
                (cut(first, kept_first, self._long_texts), cut(second, limit - kept_first, self._long_texts)),
            ]
        return [(cut(first, kept_first, HEAD), window) for window in windows(second, limit - kept_first)]

    def _is_within(self, length: int, limit: int) -> bool:
        self.count.texts += 1
        self.count.longest = max(self.count.longest, length + self._max_seq_len - limit)
        self.count.long += length > limit
        return length <= limit


def first_share(first: int, second: int, limit: int) -> int:
    """Returns how many of `limit` tokens the first of two texts gets that are longer together.

    The longer gives up a token, again and again, until both go in.
    """
    return min(first, max(limit - limit // 2, limit - second))


def cut(ids: list[int], limit: int, way: str) -> list[int]:
    """Returns at most `limit` of the ids: the head, the tail, or both."""
    if len(ids) <= limit:
        return ids
    head = {HEAD: limit, TAIL: 0, HEAD_AND_TAIL: int(limit * _HEAD_SHARE)}[way]
    return ids[:head] + ids[len(ids) - (limit - head) :]


def windows(ids: list[int], size: int) -> list[list[int]]:
    """Returns windows of `size` ids that overlap and together hold all; the last is as long as the others."""
    stride = max(1, size - int(size * _OVERLAP))
    starts = [*range(0, max(len(ids) - size, 0), stride), max(len(ids) - size, 0)]
    return [ids[start : start + size] for start in starts]
