"""Lines of text files to records: CSV and TSV fields, JSON objects. Knows no columns and no tasks."""

import json
import os
import re
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from bert_jax.errors import UserError
from bert_jax.tasks.examples.places import BadRows, Place
from bert_jax.text.files import read_lines

FORMATS = ("csv", "tsv", "jsonl")
_NAMES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".txt": "tsv",  # without tabs, every line is a text
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".jsonlines": "jsonl",
    ".json": "jsonl",
}
_MAGIC = {
    b"PAR1": "a Parquet file: write it as CSV or JSON lines first",
    b"PK\x03\x04": "a zip archive (an .xlsx sheet is one too): unpack it, or save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word file: save it as CSV",
    b"ARROW1": "an Arrow file: write it as CSV or JSON lines first",
    b"BZh": "compressed by bzip2: decompress it (only .gz is read as it is)",
    b"\xfd7zXZ": "compressed by xz: decompress it (only .gz is read as it is)",
    b"\x28\xb5\x2f\xfd": "compressed by zstd: decompress it (only .gz is read as it is)",
    b"SQLite format 3": "an SQLite database: write the table as CSV first",
    b"%PDF": "a PDF",
    b"\xff\xfe": "UTF-16 text: convert it to UTF-8",
    b"\xfe\xff": "UTF-16 text: convert it to UTF-8",
}
# A quoted field that goes on for longer has lost its closing quote; the bound keeps memory constant.
_FIELD_CHARACTERS = 1 << 20
_SURROGATE = re.compile("[\ud800-\udfff]")


def check_readable(path: str) -> None:
    """Raises a UserError unless the path is a file that may be text: no folder, not empty, of no known binary kind.

    Nor may it be a pipe: readers look at a file's beginning, and then begin anew.
    """
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise UserError(f"{path} is a folder: name one file in it")
        if not stat.S_ISREG(mode):
            raise UserError(f"{path} is a pipe or a device, which can be read only once: write it to a file first")
        with open(path, "rb") as file:
            head = file.read(16)
    except FileNotFoundError as error:
        raise UserError(f"no such file: {path}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    if not head:
        raise UserError(f"{path} is empty")
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            raise UserError(f"{path} is no text: it is {kind}")


def find_format(path: str, format: str | None = None) -> str:
    """Returns "csv", "tsv" or "jsonl": as given, else by the file's name (.gz aside), else by its first line.

    Raises:
        UserError: the first line contradicts the format, or says nothing.
    """
    if format is not None and format not in FORMATS:
        raise UserError(f"cannot read --format={format}: it is one of {', '.join(FORMATS)}")
    number, line = next(((number, line) for number, line in read_lines(path) if line.strip()), (0, ""))
    if not number:
        raise UserError(f"{path} is empty")
    place = Place(path, number)
    begins = line.lstrip()[:2]
    found = format or _NAMES.get(os.path.splitext(path.removesuffix(".gz"))[1].lower())
    if found is None:
        if begins.startswith("{"):
            return "jsonl"
        if begins.startswith("["):
            _refuse_array(place)
        return "tsv" if "\t" in line or "," not in line else "csv"
    if found == "jsonl":
        if begins.startswith("["):
            _refuse_array(place)
        if not begins.startswith("{"):
            raise UserError(f"{place}: the line is no JSON object; for a table pass --format=csv or --format=tsv")
    elif begins == '{"' and _is_json(line):
        raise UserError(f"{place}: the line is a JSON object; pass --format=jsonl")
    elif found == "csv" and not format and "\t" in line and "," not in line:
        raise UserError(f"{place}: the line has tabs and no commas; pass --format=tsv")
    return found


def find_delimiter(path: str) -> str:
    """Returns the delimiter of a CSV file: the comma, or the semicolon where the first line has only those."""
    line = next((line for _, line in read_lines(path) if line.strip()), "")
    unquoted = re.sub(r'"[^"]*"', "", line)
    return ";" if ";" in unquoted and "," not in unquoted else ","


def read_tsv(path: str) -> Iterator[tuple[Place, list[str]]]:
    """Yields the fields of every line, cut at tabs alone: as in GLUE, a quote is an ordinary character."""
    for number, line in _without_last_blanks(read_lines(path)):
        yield Place(path, number), line.split("\t")


def read_csv(path: str, delimiter: str, bad_rows: BadRows) -> Iterator[tuple[Place, list[str] | None]]:
    """Yields the fields of every record by RFC 4180: quoted fields may hold delimiters, line ends and doubled quotes.

    A quote inside of a field that does not begin with one is an ordinary character. After unbalanced quotes, reading
    goes on at the line after the one where the record began, so that one lost quote costs one row; None stands for it.
    """
    lines = deque[tuple[int, str]]()  # of the records ahead: those that a failed record had taken
    source = _without_last_blanks(read_lines(path))
    while True:
        taken: list[tuple[int, str]] = []

        def take(taken=taken) -> str | None:
            line = lines.popleft() if lines else next(source, None)
            if line is None:
                return None
            taken.append(line)
            return line[1]

        first = take()
        if first is None:
            return
        place = Place(path, taken[0][0])
        fields = first.split(delimiter) if '"' not in first else _quoted_fields(first, delimiter, take)
        if isinstance(fields, str):
            bad_rows.reject(place, fields)
            lines.extendleft(reversed(taken[1:]))
            yield place, None
        else:
            if len(taken) > 1:
                place = Place(path, taken[0][0], f"record up to line {taken[-1][0]}")
            yield place, fields


def _quoted_fields(line: str, delimiter: str, take: Callable[[], str | None]) -> list[str] | str:
    """Returns the fields of a record that has quotes, taking further lines as they are needed, or what is wrong."""
    fields: list[str] = []
    position = 0
    while True:
        if line[position : position + 1] == '"':
            parts: list[str] = []
            characters = 0
            start = end = position + 1
            while (end := line.find('"', end)) < 0 or line[end + 1 : end + 2] == '"':
                if end >= 0:
                    end += 2
                    continue
                parts.append(line[start:])
                characters += len(line)
                following = take() if characters < _FIELD_CHARACTERS else None
                if following is None:
                    return f"unbalanced quotes: the quote of field {len(fields) + 1} is never closed"
                line = following
                start = end = 0
            parts.append(line[start:end])
            fields.append("\n".join(parts).replace('""', '"'))
            position = end + 1
            if position < len(line) and line[position] != delimiter:
                return (
                    f"unbalanced quotes: the quote of field {len(fields)} is closed before"
                    f" {line[position : position + 10]!r}; a quote inside of quotes is written twice"
                )
        else:
            end = line.find(delimiter, position)
            end = len(line) if end < 0 else end
            fields.append(line[position:end])
            position = end
        if position >= len(line):
            return fields
        position += 1


def read_objects(path: str, bad_rows: BadRows) -> Iterator[tuple[Place, dict | None]]:
    """Yields the JSON object of every line; a line that is none is a bad row, for which None stands."""
    for number, line in _without_last_blanks(read_lines(path)):
        place = Place(path, number)
        try:
            value = parse_object(line)
        except ValueError as error:
            bad_rows.reject(place, str(error))
            value = None
        yield place, value


def parse_object(line: str) -> dict:
    """Returns the object of a line; ValueError with the reason if there is none."""
    if not line.strip():
        raise ValueError("the line is empty")
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"the line is no JSON object ({error.msg} at character {error.colno})") from error
    except ValueError as error:
        raise ValueError(f"the line is no JSON object ({error})") from error  # a number of thousands of digits
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"the line is {json_kind(value)}, not a JSON object")
    if "\\u" in line:
        check_whole_characters(json.dumps(value, ensure_ascii=False))
    return value


def check_whole_characters(text: str) -> None:
    """Raises ValueError for what JSON can hold and no file: half of a character that needs two escapes."""
    if _SURROGATE.search(text):
        raise ValueError("an escape \\ud800 to \\udfff is half of a character")


def json_id(value) -> str:
    """Returns an id as a string; ValueError if it is neither a string nor a number."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"the id is {json_kind(value)}, neither a string nor a number")
    return str(value)


def json_kind(value) -> str:
    """Names the kind of a JSON value for messages: "a list", "null"."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int | float):
        return "a number"
    return {str: "a string", list: "a list", dict: "an object"}.get(type(value), f"a {type(value).__name__}")


def _is_json(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _refuse_array(place: Place) -> None:
    raise UserError(f"{place}: the file is one JSON array; write one object a line (JSON lines)")


def _without_last_blanks(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Drops the empty lines at the end of a file, which editors leave; those between rows are the reader's to judge."""
    blanks = 0
    for number, line in lines:
        if not line:
            blanks += 1
            continue
        for blank in range(number - blanks, number):
            yield blank, ""
        blanks = 0
        yield number, line
