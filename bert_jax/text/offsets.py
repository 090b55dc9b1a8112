"""Where the pieces of a text stand in it: what the kinds of tokenizers share."""

import unicodedata
from typing import NamedTuple

import numpy as np

_ZERO_WIDTH_JOINER = "\u200d"


class Pieces(NamedTuple):
    """The pieces of a text, `ids[i]` standing for `text[starts[i]:ends[i]]`.

    Attributes:
        ids: without special tokens.
        starts: int32 `[pieces]`, in characters of the text as it was given; never falling.
        ends: int32 `[pieces]`, never before the start; equal to it where a piece stands for no character, as
            SentencePiece's mark of a word's beginning may. Pieces that are parts of one character have the same span.
    """

    ids: list[int]
    starts: np.ndarray
    ends: np.ndarray


def repair(text: str) -> str:
    """Joins surrogate pairs into their characters, and puts U+FFFD, which is then removed, for halves alone."""
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def repaired_positions(text: str, repaired: str) -> np.ndarray:
    """Returns for every place between characters of `repair(text)`, its end included, the place in `text`."""
    widths = np.ones(len(repaired), np.int32)
    place = 0
    for index, character in enumerate(repaired):
        if character != text[place]:
            # A half alone is one character for one; a pair was two.
            widths[index] = 1 if character == "\ufffd" else 2
        place += widths[index]
    return np.concatenate([[0], np.cumsum(widths, dtype=np.int32)]).astype(np.int32)


def with_marks(text: str, pieces: Pieces) -> Pieces:
    """Lets spans end after the combining marks of their last character.

    Normalization may have removed the marks (accents, the vowel signs of some scripts, the selectors of emoji), and a
    span that ended before them would cut the last letter of an answer in two.
    """
    if text.isascii() or not len(pieces.ends):
        return pieces
    ends = pieces.ends.copy()
    limits = np.append(pieces.starts[1:], len(text))
    for index in np.flatnonzero((ends < limits) & (ends > pieces.starts)):
        end = int(ends[index])
        while end < limits[index] and _is_mark(text[end]):
            end += 1
        if end > ends[index]:
            parts = (pieces.starts == pieces.starts[index]) & (pieces.ends == pieces.ends[index])
            ends[parts] = end
    return pieces._replace(ends=ends)


def _is_mark(character: str) -> bool:
    return character == _ZERO_WIDTH_JOINER or unicodedata.category(character).startswith("M")
