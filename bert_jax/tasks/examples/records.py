"""Lines of text files to records: CSV and TSV fields, JSON objects. Knows no columns and no tasks."""

import os
import re
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from bert_jax.errors import UserError
from bert_jax.tasks.examples.places import BadRows, Place
from bert_jax.text.files import LONGEST_LINE, read_lines
from bert_jax.text.json_files import JsonError, json_kind, parse_json

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
# A quoted record that goes on for longer has lost a closing quote; the bound keeps memory constant.
_RECORD_CHARACTERS = 2 << 20
# Fields of a line; a table of texts has a few.
MOST_COLUMNS = 10_000
# Characters that are read again after records whose quotes were not balanced, in all.
_READ_AGAIN = 4 * LONGEST_LINE
_TOO_WIDE = f"more than {MOST_COLUMNS:,} fields: this is not a table of texts"


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
        place = Place(path, number)
        if line.count("\t") >= MOST_COLUMNS:
            raise UserError(f"{place}: {_TOO_WIDE}")
        yield place, line.split("\t")


def read_csv(path: str, delimiter: str, bad_rows: BadRows) -> Iterator[tuple[Place, list[str] | None]]:
    """Yields the fields of every record by RFC 4180: quoted fields may hold delimiters, line ends and doubled quotes.

    A quote inside of a field that does not begin with one is an ordinary character. After unbalanced quotes, reading
    goes on at the line after the one where the record began, so that one lost quote costs one row; None stands for it.
    """
    lines = deque[tuple[int, str]]()  # of the records ahead: those that a failed record had taken
    source = _without_last_blanks(read_lines(path))
    read_again = 0
    while True:
        taken: list[tuple[int, str]] = []
        characters = 0

        def take(taken=taken) -> str | None:
            nonlocal characters
            line = (lines.popleft() if lines else next(source, None)) if characters < _RECORD_CHARACTERS else None
            if line is None:
                return None
            taken.append(line)
            characters += len(line[1]) + 1
            return line[1]

        first = take()
        if first is None:
            return
        place = Place(path, taken[0][0])
        if '"' in first:
            fields = _quoted_fields(first, delimiter, take)
        else:
            fields = first.split(delimiter) if first.count(delimiter) < MOST_COLUMNS else _TOO_WIDE
        if isinstance(fields, str):
            bad_rows.reject(place, fields)
            read_again += characters
            if read_again > _READ_AGAIN:
                raise UserError(
                    f"{place}: the quotes of too many rows are not balanced; correct them, or where a quote is an"
                    " ordinary character separate the fields by tabs and pass --format=tsv"
                )
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
            start = end = position + 1
            while (end := line.find('"', end)) < 0 or line[end + 1 : end + 2] == '"':
                if end >= 0:
                    end += 2
                    continue
                parts.append(line[start:])
                following = take()
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
        if len(fields) >= MOST_COLUMNS:
            return _TOO_WIDE
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
        value = parse_json(line)
    except JsonError as error:
        raise ValueError(f"the line is no JSON object ({error})") from error
    if not isinstance(value, dict):
        raise ValueError(f"the line is {json_kind(value)}, not a JSON object")
    return value


def json_id(value) -> str:
    """Returns an id as a string; ValueError if it is neither a string nor a number."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"the id is {json_kind(value)}, neither a string nor a number")
    return str(value)


def _is_json(line: str) -> bool:
    try:
        return isinstance(parse_json(line), dict)
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
