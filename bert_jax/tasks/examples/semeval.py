"""Relations between two marked entities: SemEval-2010 task 8's text layout, and markers in any text.

The markers <e1>, </e1>, <e2>, </e2> become the words [E1], [/E1], [E2], [/E2], which stay in the text; the encoder
gives each an id of its own. The relation's name with its direction, `Cause-Effect(e2,e1)`, is the label.
"""

import re
from collections.abc import Iterator

from bert_jax.errors import UserError
from bert_jax.tasks.examples.example_types import TextExample
from bert_jax.tasks.examples.places import BadRows, Place
from bert_jax.tasks.examples.records import check_readable
from bert_jax.text.files import read_lines

MARKERS = ("[E1]", "[/E1]", "[E2]", "[/E2]")

_TAG = re.compile(r"\s*<(/?)[eE]([12])>\s*")
_LINES = 3  # sentence, relation and comment; what follows up to the next example is not kept
_SENTENCE = re.compile(r"(?P<id>\d+)\t(?P<text>.*)")
_RELATION = re.compile(r"\S+\((?:e1,e2|e2,e1)\)|Other")


def mark_entities(text: str) -> str:
    """Returns a text with marker words, spaces around each, in place of the tags <e1>..</e1> and <e2>..</e2>.

    Raises:
        ValueError: a tag is missing or there twice, the entities overlap or are empty, or the text holds a marker word
            already; the message is the reason.
    """
    for marker in MARKERS:
        if marker in text:
            raise ValueError(f"the text holds {marker} itself, which stands for an entity's border")
    tags = [f"<{slash}e{number}>" for slash, number in _TAG.findall(text)]
    for tag in ("<e1>", "</e1>", "<e2>", "</e2>"):
        if tags.count(tag) != 1:
            raise ValueError(f"{tag} is there {tags.count(tag)} times, not once")
    if tags not in (["<e1>", "</e1>", "<e2>", "</e2>"], ["<e2>", "</e2>", "<e1>", "</e1>"]):
        raise ValueError(f"the entities' tags are in the order {' '.join(tags)}")
    parts = _TAG.split(text)  # text, slash, number, text, slash, number, text, ...
    for at, number in ((3, parts[2]), (9, parts[8])):
        if not parts[at].strip():
            raise ValueError(f"entity e{number} is empty")
    return _TAG.sub(lambda match: f" [{match[1]}E{match[2]}] ", text).strip()


def read_semeval(path: str, *, bad_rows: BadRows, with_labels: bool = True) -> Iterator[TextExample]:
    """Yields the examples of a file in the layout of SemEval-2010 task 8.

    An example is a line with its id, a tab and the sentence in quotes; a line with the relation; perhaps a line
    `Comment: ...`; and an empty line. Test files have only the first line. The id is the file's.

    Args:
        path: the file, perhaps gzipped.
        bad_rows: what becomes of examples that cannot be used.
        with_labels: False leaves the relations out; True needs them.

    Raises:
        UserError: the file is not of this layout, or a bad row where that is fatal.
    """
    check_readable(path)
    found = False
    for place, lines in _blocks(path):
        match = _SENTENCE.fullmatch(lines[0])
        if match is None:
            if not found:
                raise UserError(
                    f'{place}: not the layout of SemEval-2010 task 8: examples begin with a number, a tab and a "text"'
                )
            bad_rows.reject(place, "the line is neither a numbered sentence nor part of one")
            continue
        found = True
        try:
            text = mark_entities(_unquoted(match["text"].strip()))
            label = _relation(lines[1:]) if with_labels else None
        except ValueError as error:
            bad_rows.reject(place, str(error))
            continue
        yield TextExample(text, None, label, match["id"], place)
    if not found:
        raise UserError(f"{path} is empty")


def _blocks(path: str) -> Iterator[tuple[Place, list[str]]]:
    """Yields the lines of every example: up to an empty line, or to the next numbered sentence."""
    place = None
    lines: list[str] = []
    for number, line in read_lines(path):
        line = line.strip()
        if lines and (not line or _SENTENCE.fullmatch(line)):
            yield place, lines
            lines = []
        if line:
            place = place if lines else Place(path, number)
            if len(lines) < _LINES:
                lines.append(line)
    if lines:
        yield place, lines


def _unquoted(text: str) -> str:
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':
        raise ValueError("the sentence is not in quotes")
    if not text[1:-1].strip():
        raise ValueError("the text is empty")
    return text[1:-1]


def _relation(lines: list[str]) -> str:
    if not lines or lines[0].startswith("Comment:"):
        raise ValueError("the line with the relation is missing")
    if not _RELATION.fullmatch(lines[0]):
        raise ValueError(f"{lines[0]!r} is no relation, such as Cause-Effect(e1,e2) or Other")
    return lines[0]
