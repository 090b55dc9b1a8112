"""JSON lines with tags: characters' spans of a text, or words with a tag each.

One object a line, in any of these layouts:
    {"text": ..., "label": {TYPE: {SURFACE: [[first, last], ...]}}}     CLUENER's; the last character is inside
    {"text": ..., "entities": [{"start": ..., "end": ..., "label": ...}, ...]}      also "spans"; the end is outside
    {"tokens": [...], "tags": [...]}                                    also "words"; "ner_tags", "labels"
An "id" is kept.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bert_jax.errors import UserError
from bert_jax.tasks.examples.basic_words import split_words
from bert_jax.tasks.examples.conll import joined
from bert_jax.tasks.examples.example_types import TaggedExample
from bert_jax.tasks.examples.places import BadRows, Place
from bert_jax.tasks.examples.records import json_id, parse_object
from bert_jax.tasks.examples.tag_schemes import Entity, TagError, find_scheme, scheme_named, tags_of, to_iob2
from bert_jax.text.files import read_lines

_WORDS = ("tokens", "words")
_TAGS = ("tags", "ner_tags", "labels")
_SPANS = ("entities", "spans", "label")


class _BadRow(ValueError):
    """A row that cannot be used; the message is the reason, as a clause."""


class TaggedJsonFile:
    """A file of JSON lines. Iterating reads it, a line at a time, and yields `TaggedExample`.

    Attributes:
        scheme: the scheme of tags in lists; None where there are none.
        description: a line for people that says how the file is read.
        words_cut: of the texts read so far, how many words had to be cut in two as an entity begins or ends inside.
    """

    def __init__(self, path: str, bad_rows: BadRows, *, scheme: str | None = None, with_tags: bool = True):
        """Looks at the file, all of it if the scheme of tags in lists must be found.

        Args:
            path: may be gzip.
            bad_rows: takes the lines that cannot be used: no JSON object, a key that is missing, spans that overlap
                or are outside of the text or differ from the surface that stands beside them, an impossible tag.
            scheme: the scheme of tags in lists; None to find it.
            with_tags: False for files to predict, whose tags, if there are any, are not looked at.

        Raises:
            UserError: the file has no lines, or is one array.
        """
        self._path, self._bad_rows, self._with_tags = path, bad_rows, with_tags
        first = next((line.strip() for _, line in read_lines(path) if line.strip()), None)
        if first is None:
            raise UserError(f"{path} is empty: tagging reads a JSON object from each line")
        if first.startswith("["):
            raise UserError(f"{path} is one JSON array: write one object a line (JSON lines)")
        self.words_cut = 0
        self.scheme = None
        has_lists = any(f'"{key}"' in first for key in _WORDS)
        self.description = f"{path}: JSON lines, {'lists of words' if has_lists else 'texts'}"
        if with_tags and has_lists:
            self.scheme = scheme_named(scheme) if scheme else find_scheme(self._all_tags())
            source = "as given" if scheme else "found by looking at all tags"
            self.description += f" with tags, whose scheme is {self.scheme} ({source})"
        elif with_tags:
            self.description += " with spans of characters"

    def __iter__(self) -> Iterator[TaggedExample]:
        """Yields the examples in order; without an id of their own, they count from 0, those left out included."""
        for number, (line, text) in enumerate(self._lines()):
            place = Place(self._path, line)
            try:
                row = _parse(text)
                identity = _checked(json_id, row.get("id", number))
                words = _first_of(row, _WORDS)
                example = (
                    self._of_text(row, identity, place)
                    if words is None
                    else self._of_words(row, words, identity, place)
                )
            except _BadRow as error:
                self._bad_rows.reject(place, str(error))
                continue
            yield example

    def _of_words(self, row: Mapping[str, Any], key: str, identity: str, place: Place) -> TaggedExample:
        words = _strings(row, key)
        if not words:
            raise _BadRow(f"{key!r} is empty")
        if empty := [number for number, word in enumerate(words) if not word.strip()]:
            raise _BadRow(f"word {empty[0]} of {key!r}, counted from 0, is empty")
        tags = None
        if self._with_tags:
            tags_key = _first_of(row, _TAGS)
            if tags_key is None:
                raise _BadRow(f"there are no tags: none of the keys {', '.join(_TAGS)}")
            given = _strings(row, tags_key)
            if len(given) != len(words):
                raise _BadRow(f"{len(words)} words and {len(given)} tags")
            try:
                tags = to_iob2(given, self.scheme or find_scheme([given]))
            except TagError as error:
                raise _BadRow(f"{error.reason} (word {error.position} from 0)") from error
        text, spans = joined(words)
        return TaggedExample(tuple(words), tags, text, spans, identity, place)

    def _of_text(self, row: Mapping[str, Any], identity: str, place: Place) -> TaggedExample:
        text = row.get("text")
        if not isinstance(text, str):
            raise _BadRow("there is neither 'text' nor a list of 'tokens'")
        entities = _spans(row, text) if self._with_tags else []
        cuts = {edge for start, end, _ in entities for edge in (start, end)}
        spans = split_words(text, cuts)
        if not spans:
            raise _BadRow("the text is empty")
        if cuts:
            self.words_cut += len(spans) - len(split_words(text))
        tags = tags_of(_in_words(entities, spans, text), len(spans)) if self._with_tags else None
        words = tuple(text[start:end] for start, end in spans)
        return TaggedExample(words, tags, text, tuple(spans), identity, place)

    def _lines(self) -> Iterator[tuple[int, str]]:
        return ((number, line) for number, line in read_lines(self._path) if line.strip())

    def _all_tags(self) -> Iterator[list[str]]:
        for _, line in self._lines():
            try:
                row = _parse(line)
                key = _first_of(row, _TAGS)
                if key is not None:
                    yield _strings(row, key)
            except _BadRow:
                continue  # said when the row is read


def _parse(line: str) -> dict[str, Any]:
    return _checked(parse_object, line)


def _checked(read: Callable[[Any], Any], value: Any) -> Any:
    """Returns what a reader makes of the value, its reason against it as that of a bad row."""
    try:
        return read(value)
    except ValueError as error:
        raise _BadRow(str(error)) from error


def _first_of(row: Mapping[str, Any], keys: Sequence[str]) -> str | None:
    return next((key for key in keys if key in row), None)


def _strings(row: Mapping[str, Any], key: str) -> list[str]:
    values = row[key]
    if not isinstance(values, list):
        raise _BadRow(f"{key!r} is no list")
    if any(not isinstance(value, str) for value in values):
        hint = "; write the tags' names for their numbers" if key in _TAGS else ""
        raise _BadRow(f"{key!r} holds more than strings{hint}")
    return values


def _spans(row: Mapping[str, Any], text: str) -> list[tuple[int, int, str]]:
    """Returns (start, end, type) of all entities, in order; checked."""
    key = _first_of(row, _SPANS)
    if key is None:
        raise _BadRow(f"there are no tags: none of the keys {', '.join(_SPANS)}")
    value = row[key]
    if isinstance(value, dict):
        entities = list(_by_surface(value, key))
    elif isinstance(value, list):
        entities = [_listed(entry, key) for entry in value]
    else:
        raise _BadRow(f"{key!r} is neither an object nor a list")
    entities.sort(key=lambda entity: entity[:2])
    for start, end, label, surface in entities:
        if not 0 <= start < end <= len(text):
            raise _BadRow(f"the {label} at {start} to {end} is outside of the text, which has {len(text)} characters")
        if surface is not None and text[start:end] != surface:
            raise _BadRow(f"the {label} {surface!r} is not what the text has at {start}: {text[start:end]!r}")
    for (_, end, label, _), (start, _, other, _) in itertools.pairwise(entities):
        if start < end:
            raise _BadRow(f"a {label} and a {other} overlap at character {start}, counted from 0")
    return [(start, end, label) for start, end, label, _ in entities]


def _by_surface(value: Mapping[str, Any], key: str) -> Iterator[tuple[int, int, str, str]]:
    """Yields (start, end, type, surface) of CLUENER's layout, whose ends are inside."""
    for label, surfaces in value.items():
        if not isinstance(surfaces, dict):
            raise _BadRow(f"{key!r} has no object of surfaces for {label}")
        for surface, places in surfaces.items():
            for place in places if isinstance(places, list) else [None]:
                if not isinstance(place, list) or len(place) != 2:
                    raise _BadRow(f"the places of {surface!r} in {key!r} are no [first, last]")
                first, last = (_integer(number) for number in place)
                yield first, last + 1, label, surface


def _listed(entry: Any, key: str) -> tuple[int, int, str, str | None]:
    """Returns (start, end, type, surface) of an entry of a list, whose end is outside."""
    if isinstance(entry, list) and len(entry) == 3:
        start, end, label = entry
    elif isinstance(entry, dict) and {"start", "end"} <= entry.keys() and ("label" in entry or "type" in entry):
        start, end, label = entry["start"], entry["end"], entry.get("label", entry.get("type"))
    else:
        raise _BadRow(f"an entry of {key!r} has not start, end and label")
    if not isinstance(label, str) or not label:
        raise _BadRow(f"the label {label!r} in {key!r} is no name")
    return _integer(start), _integer(end), label, None


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise _BadRow(f"the place {value!r} is no whole number")
    return value


def _in_words(entities: Sequence[tuple[int, int, str]], spans: Sequence[tuple[int, int]], text: str) -> list[Entity]:
    """Returns the entities by words; every word lies inside of one or outside of all, as words were cut at them."""
    found = []
    word = 0
    for start, end, label in entities:
        while word < len(spans) and spans[word][0] < start:
            word += 1
        first = word
        while word < len(spans) and spans[word][1] <= end:
            word += 1
        if word == first:
            raise _BadRow(f"the {label} {text[start:end]!r} at {start} holds no word")
        found.append(Entity(label, first, word))
    return found
