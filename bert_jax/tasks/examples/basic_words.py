"""Words of raw text for tagging: as in BERT's basic tokenization, with their places, and nothing removed.

Chinese characters and punctuation are words of their own; everything else goes up to the next space. It does not
depend on a vocabulary, so that files give the same words whatever the model.
"""

import functools
import unicodedata
from collections.abc import Collection

_SPACE, _ALONE, _INSIDE = range(3)

# The blocks of ideographs that the original sets apart; kana and Hangul are not among them.
_IDEOGRAPHS = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


def split_words(text: str, cuts: Collection[int] = ()) -> list[tuple[int, int]]:
    """Returns where each word of a text begins and ends, in characters.

    Args:
        text: any text.
        cuts: places where a word ends in any case, as an entity begins or ends there.
    """
    spans = []
    start = None
    for place, character in enumerate(text):
        kind = _kind(character)
        if start is not None and (kind != _INSIDE or place in cuts):
            spans.append((start, place))
            start = None
        if kind == _ALONE:
            spans.append((place, place + 1))
        elif kind == _INSIDE and start is None:
            start = place
    if start is not None:
        spans.append((start, len(text)))
    return spans


@functools.cache
def _kind(character: str) -> int:
    if character.isspace():
        return _SPACE
    code_point = ord(character)
    if code_point < 128:
        # All of ASCII that is neither a letter nor a digit, also ^, $ and the like, which Unicode calls symbols.
        return _INSIDE if character.isalnum() or not character.isprintable() else _ALONE
    if any(first <= code_point <= last for first, last in _IDEOGRAPHS):
        return _ALONE
    return _ALONE if unicodedata.category(character).startswith("P") else _INSIDE
