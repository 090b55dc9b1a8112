"""Multiple choice: RACE's articles, SWAG's and HellaSwag's endings, and a plain shape, as JSON lines or CSV.

The shapes, told apart by the keys of the first row:
- RACE: {"article", "questions", "options", "answers", "id"}; one row holds several questions, answers are letters.
- SWAG: sent1, sent2, ending0 to ending3, label; as CSV or JSON lines. The context is the sentence sent1, and sent2, the
  start of the next one, stands in the place of the question.
- {"context" or "ctx", "ending_options" or "endings", "label"}: one text to go on with, without a question.
- plain: {"context", "question", "choices", "answer"}; question may be missing, answer is an index from 0, a letter, or
  the text of a choice.
"""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping

from bert_jax.errors import UserError
from bert_jax.tasks.examples.example_types import ChoiceExample
from bert_jax.tasks.examples.places import BadRows, Place, list_names
from bert_jax.tasks.examples.records import (
    check_readable,
    find_delimiter,
    find_format,
    read_csv,
    read_objects,
    read_tsv,
)
from bert_jax.text.json_files import json_kind

_BLANK = re.compile("_+")

# (row, its place, its number as an id, with answers) to examples. A row is bad for the reason that ValueError gives, or
# for the key that KeyError names.
_ReadRow = Callable[[Mapping, Place, str, bool], list[ChoiceExample]]


def read_choices(
    path: str, *, bad_rows: BadRows, with_answers: bool = True, format: str | None = None
) -> Iterator[ChoiceExample]:
    """Yields the examples of a file of one of the shapes above.

    RACE's ids are the row's id and the number of the question from 0, `high1.txt/0`; a row without an id has its number
    from 0, rows left out included.

    Args:
        path: the file, perhaps gzipped.
        bad_rows: what becomes of rows that cannot be used; a row of RACE is used or left out as a whole.
        with_answers: False leaves the answers out; True needs them.
        format: "csv", "tsv" or "jsonl"; None finds it out.

    Raises:
        UserError: the file has none of the shapes, or a bad row where that is fatal.
    """
    check_readable(path)
    rows = _rows(path, find_format(path, format), bad_rows)
    read_row: _ReadRow | None = None
    for number, (place, row) in enumerate(rows):
        if row is None:
            continue
        read_row = read_row or _find_shape(row, place)
        try:
            examples = read_row(row, place, str(number), with_answers)
        except KeyError as error:
            bad_rows.reject(place, f"the key {error} is missing")
            continue
        except ValueError as error:
            bad_rows.reject(place, str(error))
            continue
        yield from examples
    if read_row is None:
        raise UserError(f"{path} has no rows; {'; '.join(bad_rows.report())}".rstrip("; "))


def continuations(example: ChoiceExample) -> tuple[str, ...]:
    """Returns what follows the context for every choice: the question and the choice, as one text.

    A run of `_` in the question is the place of the choice (RACE's gap questions), which is put there; where there are
    several gaps, the parts of the choice between semicolons fill them one by one if they are as many. Otherwise the
    choice follows the question, gaps and all.
    """
    gaps = len(_BLANK.findall(example.question))
    texts = []
    for choice in example.choices:
        parts = [choice] if gaps == 1 else [part.strip() for part in choice.split(";")]
        if gaps and len(parts) == gaps:
            filling = iter(parts)
            texts.append(_BLANK.sub(lambda _, filling=filling: next(filling), example.question))
        else:
            texts.append(f"{example.question} {choice}".strip())
    return tuple(texts)


def _rows(path: str, format: str, bad_rows: BadRows) -> Iterator[tuple[Place, Mapping | None]]:
    if format == "jsonl":
        yield from read_objects(path, bad_rows)
        return
    records = read_tsv(path) if format == "tsv" else read_csv(path, find_delimiter(path), bad_rows)
    place, names = next(records)
    if names is None:
        raise UserError(f"{place}: the header cannot be read")
    names = [name.strip() for name in names]
    for place, fields in records:
        if fields is not None and len(fields) != len(names):
            bad_rows.reject(place, f"{len(fields)} fields where the header has {len(names)}")
            fields = None
        yield place, None if fields is None else dict(zip(names, fields, strict=True))


def _find_shape(row: Mapping, place: Place) -> _ReadRow:
    if {"article", "questions", "options"} <= row.keys():
        return _read_race
    if {"sent1", "sent2", "ending0"} <= row.keys():
        return _read_swag
    if "choices" in row and ("context" in row or "question" in row):
        return _read_plain
    if ("context" in row or "ctx" in row) and ("ending_options" in row or "endings" in row):
        return _read_endings
    raise UserError(
        f"{place}: not multiple choice: RACE has article, questions, options and answers, SWAG sent1, sent2, ending0"
        f" and so on and label, plain rows context, question, choices and answer; here are {list_names(row)}"
    )


def _read_race(row: Mapping, place: Place, row_id: str, with_answers: bool) -> list[ChoiceExample]:
    article = _text(row["article"], "article")
    row_id = row.get("id", row_id)
    columns = [_list(row[key], key) for key in ("questions", "options")]
    columns.append(_list(row["answers"], "answers") if with_answers else [None] * len(columns[0]))
    if len({len(column) for column in columns}) > 1:
        counts = ", ".join(str(len(column)) for column in columns)
        raise ValueError(f"questions, options and answers differ in number ({counts})")
    examples = []
    for number, (question, choices, answer) in enumerate(zip(*columns, strict=True)):
        there = Place(place.path, place.line, f"question {number}")
        try:
            example = _example(article, question, choices, answer, f"{row_id}/{number}", there, with_answers)
        except ValueError as error:
            raise ValueError(f"question {number}: {error}") from None
        examples.append(example)
    return examples


def _read_swag(row: Mapping, place: Place, row_id: str, with_answers: bool) -> list[ChoiceExample]:
    numbers = itertools.takewhile(lambda number: f"ending{number}" in row, itertools.count())
    choices = [row[f"ending{number}"] for number in numbers]
    # SWAG's own CSV has the row's number in a first column without a name.
    row_id = row.get("id") or row.get("") or row_id
    answer = row["label"] if with_answers else None
    return [_example(row["sent1"], row["sent2"], choices, answer, row_id, place, with_answers)]


def _read_endings(row: Mapping, place: Place, row_id: str, with_answers: bool) -> list[ChoiceExample]:
    context = row["context"] if "context" in row else row["ctx"]
    choices = row["ending_options"] if "ending_options" in row else row["endings"]
    row_id = row.get("id", row.get("ind", row_id))
    answer = row["label"] if with_answers else None
    return [_example(context, "", choices, answer, row_id, place, with_answers)]


def _read_plain(row: Mapping, place: Place, row_id: str, with_answers: bool) -> list[ChoiceExample]:
    context, question = row.get("context") or "", row.get("question") or ""
    if not context:
        # A question about nothing is itself what the choices follow.
        context, question = question, ""
    answer = row["label" if "label" in row and "answer" not in row else "answer"] if with_answers else None
    return [_example(context, question, row["choices"], answer, row.get("id", row_id), place, with_answers)]


def _example(context, question, choices, answer, row_id, place: Place, with_answers: bool) -> ChoiceExample:
    """Returns a checked example; ValueError with the reason if it is bad."""
    if not isinstance(question, str):
        raise ValueError(f"the question is {json_kind(question)}, not a string")
    texts = tuple(_text(choice, f"choice {number}") for number, choice in enumerate(_list(choices, "choices")))
    if len(texts) < 2:
        raise ValueError(f"{len(texts)} choices: two are the least")
    index = _index(answer, texts) if with_answers else None
    return ChoiceExample(_text(context, "context"), question, texts, index, str(row_id), place)


def _index(answer, choices: tuple[str, ...]) -> int:
    """Returns the index of the right choice, given as an index, a letter from A, or the choice's text."""
    found: set[int] = set()
    if isinstance(answer, str):
        answer = answer.strip()
        found |= {at for at, choice in enumerate(choices) if choice.strip() == answer}
        if len(answer) == 1 and answer.isascii() and answer.isalpha():
            found.add(ord(answer.upper()) - ord("A"))
        elif answer.isascii() and answer.isdigit() and len(answer) < 10:
            found.add(int(answer))
    elif type(answer) in (int, float) and answer % 1 == 0:  # not true and false, which are ints to Python
        found.add(int(answer))
    if not found:
        raise ValueError(f"the answer {answer!r} is neither an index from 0, nor a letter, nor one of the choices")
    if len(found) > 1:
        raise ValueError(f"the answer {answer!r} names several choices")
    index = found.pop()
    if not 0 <= index < len(choices):
        raise ValueError(f"the answer {answer!r} is none of {len(choices)} choices")
    return index


def _list(value, what: str) -> list:
    if not isinstance(value, list):
        raise ValueError(f"the {what} are {json_kind(value)}, not a list")
    return value


def _text(value, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"the {what} is {json_kind(value)}, not a string")
    if not value.strip():
        raise ValueError(f"the {what} is empty")
    return value
