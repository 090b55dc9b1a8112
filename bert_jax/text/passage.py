"""The unit that every reader yields, and how an over-long text is cut into such units."""

import dataclasses
import re
from collections.abc import Iterator

# A reader holds one passage at a time, so this bounds its memory whatever a file looks like. In characters.
LONGEST_PASSAGE = 1 << 20

_SENTENCE_END = re.compile(r"[.!?]['\")\]”’]*\s|[。！？][”』」）]*")


@dataclasses.dataclass(frozen=True, slots=True)
class Passage:
    """A paragraph, or a sentence, of a document.

    Consecutive passages with the same `document_id` make one document.

    Attributes:
        document_id: where the document comes from, such as `books/emma.txt` or `dump.jsonl:17` (file and line).
        text: the words; never empty, never only whitespace. Whitespace inside it is as in the source.
        is_sentence: True if the text is exactly one sentence already; False for a paragraph that is still to be split.
    """

    document_id: str
    text: str
    is_sentence: bool


def cut_text(text: str, longest: int = LONGEST_PASSAGE) -> Iterator[str]:
    """Yields `text` in parts of at most `longest` characters, cut after a sentence, else at a space, else anywhere.

    Only whitespace around a cut is lost.
    """
    start = 0
    while len(text) - start > longest:
        # Only the last part of the window is searched, so that parts stay near the limit.
        late = start + longest - longest // 4
        ends = [match.end() for match in _SENTENCE_END.finditer(text, late, start + longest)]
        end = ends[-1] if ends else text.rfind(" ", late, start + longest) + 1
        if end <= start:
            end = start + longest
        if part := text[start:end].strip():
            yield part
        start = end
    if part := text[start:].strip():
        yield part
