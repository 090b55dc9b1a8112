"""Files of columns, as CoNLL's shared tasks have them: a word a line, a blank line after a sentence.

Columns are parted by tabs where a line has any, else by spaces. Lines that begin with -DOCSTART- part documents and are
left out, and so are comments: lines that begin with # before a sentence and have not the file's number of columns.
"""

import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence

from bert_jax.errors import UserError
from bert_jax.tasks.examples.example_types import TaggedExample
from bert_jax.tasks.examples.places import BadRows, Place
from bert_jax.tasks.examples.tag_schemes import TagError, find_scheme, scheme_named, to_iob2
from bert_jax.text.files import read_lines

_DOCUMENT_START = "-DOCSTART-"
# Words; memory holds one sentence.
_LONGEST_SENTENCE = 250_000


@dataclasses.dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a file are read, from 1.

    Attributes:
        word: that of the word.
        tag: that of the tag; None for the last.
    """

    word: int = 1
    tag: int | None = None


class ColumnFile:
    """A file of columns. Iterating reads it, a sentence at a time, and yields `TaggedExample`.

    Attributes:
        scheme: the scheme of its tags; None where they are not read.
        description: a line for people that says how the file is read.
    """

    def __init__(
        self,
        path: str,
        bad_rows: BadRows,
        *,
        columns: Columns = Columns(),
        scheme: str | None = None,
        with_tags: bool = True,
    ):
        """Looks at the file, all of it if the scheme must be found.

        Args:
            path: may be gzip.
            bad_rows: takes the sentences that cannot be used: a line with fewer or more columns, an impossible tag.
            columns: which are read.
            scheme: the tags' scheme; None to find it.
            with_tags: False for files to predict, whose tags, if there are any, are not looked at.

        Raises:
            UserError: the file has no sentences, or not the columns.
        """
        self._path, self._bad_rows, self._with_tags = path, bad_rows, with_tags
        self._count = self._count_columns()
        if not with_tags and self._count > 1 and len(list(itertools.islice(self._word_lines(), 2))) == 1:
            raise UserError(
                f"{path} has one line of {self._count} words or columns: write a word on each line, or the text as"
                ' {"text": ...}'
            )
        self._word = self._index(columns.word, "word")
        self._tag = self._index(columns.tag or self._count, "tag") if with_tags else None
        if with_tags and self._word == self._tag:
            raise UserError(
                f"{path}: the word and the tag are both column {columns.word} of {self._count}; tagging needs a column"
                " for each, parted by spaces or tabs"
            )
        self.scheme = None
        self.description = f"{path}: {self._count} columns, the word is column {self._word + 1}"
        if with_tags:
            self.scheme = scheme_named(scheme) if scheme else find_scheme(self._all_tags())
            source = "as given" if scheme else "found by looking at all tags"
            self.description += f", the tag is column {self._tag + 1}, its scheme is {self.scheme} ({source})"

    def __iter__(self) -> Iterator[TaggedExample]:
        """Yields the sentences in order; their ids count from 0, those left out included."""
        for number, (document, lines) in enumerate(self._sentences()):
            example = self._example(str(number), document, lines)
            if example is not None:
                yield example

    def _example(
        self, number: str, document: int | None, lines: Sequence[tuple[int, list[str]]]
    ) -> TaggedExample | None:
        for line, fields in lines:
            # A line with fewer would give a tag from the wrong column; whole sentences on lines have any number.
            if len(fields) != self._count:
                found = f"{len(fields)} {'column' if len(fields) == 1 else 'columns'}, not {self._count}"
                hint = "" if self._with_tags else ' (a word on each line; whole texts as JSON lines with "text")'
                self._bad_rows.reject(Place(self._path, line), f"the line has {found}{hint}")
                return None
            if not fields[self._word]:
                self._bad_rows.reject(Place(self._path, line), "the word is empty")
                return None
        words = tuple(fields[self._word] for _, fields in lines)
        tags = None
        if self._with_tags:
            try:
                tags = to_iob2([fields[self._tag] for _, fields in lines], self.scheme)
            except TagError as error:
                self._bad_rows.reject(Place(self._path, lines[error.position][0]), error.reason)
                return None
        text, spans = joined(words)
        return TaggedExample(words, tags, text, spans, number, Place(self._path, lines[0][0]), document)

    def _sentences(self) -> Iterator[tuple[int | None, list[tuple[int, list[str]]]]]:
        """Yields sentences as the number of their document, None before the first mark of one, and their words.

        A word is (line number, columns).
        """
        document = None
        sentence: list[tuple[int, list[str]]] = []
        for number, line in read_lines(self._path):
            fields = _split(line)
            starts_document = bool(fields) and fields[0].startswith(_DOCUMENT_START)
            if fields and not starts_document:
                if sentence or not (line.startswith("#") and len(fields) != self._count):
                    sentence.append((number, fields))
                    if len(sentence) > _LONGEST_SENTENCE:
                        raise UserError(
                            f"{self._path}:{sentence[0][0]}: a sentence of more than {_LONGEST_SENTENCE:,} words: put a"
                            " blank line after each sentence"
                        )
            elif sentence:
                yield document, sentence
                sentence = []
            if starts_document:
                document = 0 if document is None else document + 1
        if sentence:
            yield document, sentence

    def _all_tags(self) -> Iterator[list[str]]:
        for _, lines in self._sentences():
            if all(len(fields) == self._count for _, fields in lines):
                yield [fields[self._tag] for _, fields in lines]

    def _count_columns(self) -> int:
        """Returns the number of columns of the first line that is neither blank nor a mark nor, perhaps, a comment."""
        comment = None
        for line, fields in self._word_lines():
            if not line.startswith("#"):
                return len(fields)
            comment = comment or len(fields)
        if comment is None:
            raise UserError(f"{self._path} has no sentences: a file of columns has a word and its tag on each line")
        return comment

    def _word_lines(self) -> Iterator[tuple[str, list[str]]]:
        """Yields the lines that are neither blank nor marks of a document, comments among them, and their columns."""
        for _, line in read_lines(self._path):
            fields = _split(line)
            if fields and not fields[0].startswith(_DOCUMENT_START):
                yield line, fields

    def _index(self, column: int, name: str) -> int:
        if not 1 <= column <= self._count:
            raise UserError(
                f"{self._path} has no column {column} for the {name}: its lines have {self._count}, counted from 1;"
                f" give another --{name}_column"
            )
        return column - 1


def joined(words: Sequence[str]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Returns the words as a text with a space between, and their places in it."""
    spans = []
    start = 0
    for word in words:
        spans.append((start, start + len(word)))
        start += len(word) + 1
    return " ".join(words), tuple(spans)


def _split(line: str) -> list[str]:
    """Returns the columns of a line, none if it is blank.

    Of all spaces only the plain one parts columns: others, such as U+3000, are words in some corpora.
    """
    if not line.strip(" \t"):
        return []
    if "\t" in line:
        return [field.strip(" ") for field in line.rstrip("\t ").split("\t")]
    return re.split(" +", line.strip(" "))
