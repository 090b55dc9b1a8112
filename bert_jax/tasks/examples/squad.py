"""Questions whose answer is a span of a passage: SQuAD v1.1 and v2.0 JSON, CMRC 2018 in that layout, and JSON lines.

SQuAD: {"version", "data": [{"title", "paragraphs": [{"context", "qas": [{"id", "question", "answers": [{"text",
"answer_start"}], "is_impossible"}]}]}]}. In JSON lines each line is {"id", "question", "context", "answers"}, answers
being such a list, or {"text": [...], "answer_start": [...]}; they can be read without end in constant memory.
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from bert_jax.errors import UserError
from bert_jax.tasks.examples.example_types import QuestionExample
from bert_jax.tasks.examples.places import BadRows, Place
from bert_jax.tasks.examples.records import parse_object
from bert_jax.text.files import LONGEST_LINE, read_head, read_lines, read_whole
from bert_jax.text.json_files import JsonError, check_whole_characters, parse_json, show_json

# An answer that is not at its offset is looked for in the context, so many characters before and after it.
NEARBY = 100
# The offset of an answer that is not in its context; it counts in scores, and is no target.
NOT_FOUND = -1

_LINES_BEGIN = re.compile(r'\s*\{\s*"(id|question|context|answers|title|is_impossible)"\s*:')


class _BadRow(ValueError):
    """A question that cannot be used; the message is the reason, as a clause."""


class QuestionFile:
    """A file of questions. Iterating reads it and yields `QuestionExample`.

    An answer that is not in its context at its offset is looked for near it, and the offset corrected; a question with
    answers of which none is found is a bad row. Where only some are found, the others keep the offset NOT_FOUND: they
    count when predictions are scored, as in the official evaluation.

    Attributes:
        has_impossible: whether there was a question without an answer (SQuAD v2.0) among those read so far.
        moved: answers read so far that were found near their offset.
        not_found: answers read so far that were not found, beside others of the same question that were.
    """

    def __init__(self, path: str, bad_rows: BadRows, *, with_answers: bool = True):
        """Looks at how the file begins.

        Args:
            path: may be gzip.
            bad_rows: takes the questions that cannot be used.
            with_answers: False for files to predict, whose answers, if there are any, are not looked at.

        Raises:
            UserError: the file is empty or no JSON object.
        """
        self._path, self._bad_rows, self._with_answers = path, bad_rows, with_answers
        self.has_impossible = False
        self.moved = self.not_found = 0
        # SQuAD's own files are one line, which may be longer than those that are read one by one.
        head, _ = read_head(path, LONGEST_LINE)
        lines = (match[0].strip() for match in re.finditer(r"[^\n]+", head))
        beginning = list(itertools.islice(filter(None, lines), 2))
        if not beginning:
            raise UserError(f"{path} is empty: questions come as SQuAD's JSON, or as a JSON object a line")
        if not beginning[0].startswith("{"):
            raise UserError(f"{path} does not begin with a JSON object: questions come as SQuAD's JSON, or one a line")
        # SQuAD's own begins with "version" or "data", and has one object.
        first, *others = beginning
        several = first.endswith("}") and any(line.startswith("{") for line in others)
        alone = first.endswith("}") and not others and '"question"' in first and '"data"' not in first
        self._has_lines = several or alone or bool(_LINES_BEGIN.match(first))

    def report(self) -> list[str]:
        """Returns lines for people on the answers read so far that were not where they should be."""
        lines = []
        if self.moved:
            lines.append(f"{self._path}: {self.moved} answers were not at their offset, but near it: corrected")
        if self.not_found:
            lines.append(
                f"{self._path}: {self.not_found} answers are not in their context; their questions have others that are"
            )
        return lines

    def __iter__(self) -> Iterator[QuestionExample]:
        """Yields the questions in order."""
        ids: set[str] = set()
        for place, context, row in self._lines() if self._has_lines else self._nested():
            try:
                example = self._example(place, context, row)
                if example.id in ids:
                    raise _BadRow("an earlier question has the same id")
            except _BadRow as error:
                self._bad_rows.reject(place, str(error))
                continue
            if self._with_answers or not self._has_lines:  # lines to predict may have no end
                ids.add(example.id)
            self.has_impossible |= example.is_impossible
            yield example

    def _nested(self) -> Iterator[tuple[Place, Any, Mapping[str, Any]]]:
        """Yields place, context and question of SQuAD's layout."""
        try:
            content = parse_json(read_whole(self._path), allow_surrogates=True)
        except JsonError as error:
            place = Place(self._path, error.line)
            raise UserError(
                f"{place}: no JSON that can be read ({error}); fetch the file again or correct it"
            ) from error
        articles = content.get("data") if isinstance(content, dict) else None
        if not isinstance(articles, list):
            raise UserError(f"{self._path} is not SQuAD's JSON: there is no list 'data' in it")
        for number, article in enumerate(articles):
            where = f"data[{number}]"
            for index, paragraph in enumerate(_list_of(article, "paragraphs", self._path, where)):
                inner = f"{where}.paragraphs[{index}]"
                for position, question in enumerate(_list_of(paragraph, "qas", self._path, inner)):
                    identity = question.get("id") if isinstance(question, dict) else None
                    item = f"question {_plain(identity)}" if identity is not None else f"{inner}.qas[{position}]"
                    yield Place(self._path, item=item), paragraph.get("context"), question

    def _lines(self) -> Iterator[tuple[Place, Any, Mapping[str, Any]]]:
        """Yields place, context and question of JSON lines."""
        rows = ((number, line) for number, line in read_lines(self._path) if line.strip())
        for index, (number, line) in enumerate(rows):
            place = Place(self._path, number)
            try:
                row = parse_object(line)
            except ValueError as error:
                self._bad_rows.reject(place, str(error))
                continue
            row.setdefault("id", str(index))
            if isinstance(answers := row.get("answers"), dict):
                row["answers"] = _transposed(answers)
            yield place, row.get("context"), row

    def _example(self, place: Place, context: Any, row: Any) -> QuestionExample:
        if not isinstance(row, dict):
            raise _BadRow("it is no JSON object")
        question, identity = row.get("question"), row.get("id")
        if identity is None or isinstance(identity, (dict, list, bool)):
            raise _BadRow("there is no 'id'")
        for name, value in (("question", question), ("context", context)):
            if not isinstance(value, str):
                raise _BadRow(f"there is no {name!r}")
            if not value.strip():
                raise _BadRow(f"the {name} is empty")
        try:
            check_whole_characters(f"{identity}{question}{context}")
        except ValueError as error:
            raise _BadRow(str(error)) from error
        answers, is_impossible = None, False
        if self._with_answers:
            answers, is_impossible = self._answers(row, context)
        return QuestionExample(question, context, answers, is_impossible, str(identity), place)

    def _answers(self, row: Mapping[str, Any], context: str) -> tuple[tuple[tuple[str, int], ...], bool]:
        given = row.get("answers")
        if not isinstance(given, list):
            raise _BadRow("there are no 'answers'")
        is_impossible = row.get("is_impossible", not given)
        if not isinstance(is_impossible, bool):
            raise _BadRow(f"'is_impossible' is {is_impossible!r}, neither true nor false")
        if is_impossible != (not given):
            raise _BadRow("it is marked as impossible, and has answers" if given else "it has no answers")
        found, moved, missing = [], 0, None
        for answer in given:
            text = answer.get("text") if isinstance(answer, dict) else None
            offset = answer.get("answer_start") if isinstance(answer, dict) else None
            if not isinstance(text, str) or type(offset) is not int:
                raise _BadRow("an answer has not 'text' and a whole number 'answer_start'")
            if not text.strip():
                raise _BadRow("an answer is empty")
            start, exact = _locate(context, text, offset)
            found.append((exact, start))
            moved += start not in (offset, NOT_FOUND) and exact == text
            if start == NOT_FOUND:
                missing = missing or (text, offset)
        lost = sum(start == NOT_FOUND for _, start in found)
        if found and lost == len(found):
            text, offset = missing
            raise _BadRow(f"the answer {_short(text)!r} is not in its context at {offset}, nor near it")
        self.moved += moved
        self.not_found += lost
        return tuple(found), is_impossible


def _locate(context: str, text: str, offset: int) -> tuple[int, str]:
    """Returns where an answer is in its context, or NOT_FOUND, and its text without spaces around where it has them."""
    if offset >= 0 and context.startswith(text, offset):
        # Spaces around an answer are no part of it: no piece stands for them.
        return offset + len(text) - len(text.lstrip()), text.strip()
    exact = text.strip()
    places = [
        place
        for place in range(max(0, offset - NEARBY), max(0, offset + NEARBY) + 1)
        if context.startswith(exact, place)
    ]
    if not places and context.count(exact) == 1:
        places = [context.index(exact)]  # far away, but there is no other that could be meant
    return (min(places, key=lambda place: abs(place - offset)), exact) if places else (NOT_FOUND, text)


def _transposed(answers: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Returns {"text": [...], "answer_start": [...]} as a list of answers; None if it is not that."""
    texts, starts = answers.get("text"), answers.get("answer_start")
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        return None
    return [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]


def _list_of(value: Any, key: str, path: str, where: str) -> list[Any]:
    items = value.get(key) if isinstance(value, dict) else None
    if not isinstance(items, list):
        raise UserError(f"{path} is not SQuAD's JSON: {where} has no list {key!r}")
    return items


def _plain(identity: Any) -> str:
    """Returns an id for messages: on one line, without quotes."""
    return show_json(identity).strip("'\"")


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
