"""Tables of texts with labels: CSV, TSV, JSON lines, each perhaps gzipped, and TFDS names; to examples, in a stream."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence

from bert_jax.errors import UserError
from bert_jax.tasks.examples import glue, tfds_tables
from bert_jax.tasks.examples.columns import ColumnChoice, Columns, choose_columns, looks_like_header
from bert_jax.tasks.examples.example_types import TextExample
from bert_jax.tasks.examples.labels import KINDS, parse_label
from bert_jax.tasks.examples.places import BadRows, Place
from bert_jax.tasks.examples.records import (
    check_readable,
    find_delimiter,
    find_format,
    json_id,
    read_csv,
    read_objects,
    read_tsv,
)
from bert_jax.text import tfds_reader
from bert_jax.text.json_files import json_kind

HEADERS = ("auto", "yes", "no")
_SHOWN_CHARACTERS, _SHOWN_FIELDS = 30, 20
_MISSING = object()

# The value of a row by the position of its column, _MISSING where the row does not have it.
_Row = Callable[[int], object]
# Yields every row, with None in its place if it was rejected already.
_ReadRows = Callable[[BadRows], Iterator[tuple[Place, _Row | None]]]


@dataclasses.dataclass(frozen=True)
class TextTable:
    """A table whose columns are known; made by `open_table`.

    Attributes:
        source: the file, or the TFDS name.
        names: the names of all columns; numbers from 1 where the file has no header.
        columns: which of them are used.
        kind: "single", "multi", "float" or "none" (labels are not read).
        separator: what stands between several labels.
        remark: what was recognised about the layout: "GLUE's CoLA, no header", or "".
    """

    source: str
    names: tuple[str, ...]
    columns: Columns
    kind: str
    separator: str
    remark: str
    _read_rows: _ReadRows

    @property
    def is_pair(self) -> bool:
        """Whether every example is a pair of texts."""
        return self.columns.pair is not None

    def describe(self) -> str:
        """Returns the line that says aloud which columns are read as what."""
        columns = self.columns
        parts = [f"text from column {self._name(columns.text)}"]
        if columns.pair is not None:
            parts.append(f"second text from {self._name(columns.pair)}")
        if columns.label is not None:
            several = f" (several, between {self.separator!r})" if self.kind == "multi" else ""
            numbers = " (numbers)" if self.kind == "float" else ""
            parts.append(f"label from {self._name(columns.label)}{several}{numbers}")
        parts.append("row numbers as ids" if columns.id is None else f"id from {self._name(columns.id)}")
        used = {columns.text, columns.pair, columns.label, columns.id}
        unused = [self._name(at) for at in range(len(self.names)) if at not in used]
        remark = f" ({self.remark})" if self.remark else ""
        return f"{self.source}{remark}: {', '.join(parts)}{'; unused: ' + ', '.join(unused) if unused else ''}"

    def _name(self, at: int) -> str:
        name = self.names[at]
        return name if name == str(at + 1) else repr(name)

    def read(self, bad_rows: BadRows) -> Iterator[TextExample]:
        """Yields the examples in the order of the table, in constant memory.

        Without an id column an example's id is its row's number from 0; rows left out count, so that an id leads to the
        row.

        Raises:
            UserError: a bad row where that is fatal, or no row that can be used.
        """
        found = False
        for number, (place, row) in enumerate(self._read_rows(bad_rows)):
            if row is None:
                continue
            try:
                example = self._example(row, number, place)
            except ValueError as error:
                bad_rows.reject(place, str(error))
                continue
            found = True
            yield example
        if not found:
            raise UserError(f"{self.source}: no row can be used; {'; '.join(bad_rows.report())}")

    def _example(self, row: _Row, number: int, place: Place) -> TextExample:
        """Raises ValueError with the reason if the row is bad."""
        columns = self.columns
        for at in (columns.text, columns.pair, columns.label, columns.id):
            if at is not None and row(at) is _MISSING:
                raise ValueError(f"the key {self._name(at)} is missing")
        text = _text(row(columns.text), "text")
        pair = None if columns.pair is None else _text(row(columns.pair), "second text")
        label = None
        if columns.label is not None:
            label = row(columns.label)
            if label == "-" and self.names[columns.label] == "gold_label":
                raise ValueError("there is no gold label ('-'): the annotators did not agree")
            label = parse_label(label, self.kind, self.separator)
        row_id = str(number) if columns.id is None else _row_id(row(columns.id))
        return TextExample(text, pair, label, row_id, place)


def open_table(
    source: str,
    *,
    columns: ColumnChoice | None = None,
    kind: str = "single",
    format: str | None = None,
    header: str = "auto",
    separator: str = "|",
) -> TextTable:
    """Looks at the beginning of a table and decides how it is read. Cheap; it finds all mistakes that concern the file.

    The first line of a CSV or TSV file is a header if one of its fields is a usual name of a text or a label, or a name
    that `columns` gives. It is data if it shows CoLA's layout, or if all columns are given as numbers. Otherwise it
    cannot be known, and is an error that `header` resolves.

    Args:
        source: a file, or `tfds:NAME[/CONFIG][:VERSION]` with a split in brackets, such as `tfds:glue/sst2[train]`.
        columns: the columns that the user gives; the others are guessed.
        kind: of labels: "single" (one name), "multi" (several names or none), "float" (a number; regression), or "none"
            (labels are not read, such as for prediction).
        format: "csv", "tsv" (no quoting: a quote is an ordinary character) or "jsonl"; None finds it out.
        header: "yes", "no" (columns are then numbers from 1), or "auto".
        separator: what stands between several labels, such as "|" or ",".

    Raises:
        UserError: the file is missing, empty, of another kind, has no rows or lacks a column.
    """
    columns = columns or ColumnChoice()
    if kind not in KINDS:
        raise ValueError(f"kind is one of {KINDS}, not {kind!r}")
    if header not in HEADERS:
        raise UserError(f"cannot read --header={header}: it is one of {', '.join(HEADERS)}")
    if not separator:
        raise UserError("the separator of labels is empty: give one, such as | or a comma")
    if source.startswith(tfds_reader.PREFIX):
        dataset = tfds_tables.open_dataset(source)
        chosen = choose_columns(dataset.names, columns, kind=kind, place=source)
        return TextTable(source, dataset.names, chosen, kind, separator, "", _rows_by_key(dataset.names, dataset.rows))
    check_readable(source)
    format = find_format(source, format)
    if format == "jsonl":
        return _open_objects(source, columns, kind, separator)
    return _open_delimited(source, columns, kind, separator, header, format)


def read_texts(source: str, *, bad_rows: BadRows, **options) -> Iterator[TextExample]:
    """Yields the examples of a table; `options` are those of `open_table`."""
    return open_table(source, **options).read(bad_rows)


def _open_objects(path: str, choice: ColumnChoice, kind: str, separator: str) -> TextTable:
    """Opens JSON lines; the keys of the first object are the columns."""
    bad_rows = BadRows("skip")
    objects = ((place, value) for place, value in read_objects(path, bad_rows) if value is not None)
    place, first = next(objects, (None, None))
    if first is None:
        raise UserError(f"{path}: no line is a JSON object; {'; '.join(bad_rows.report())}")
    names = tuple(first)
    columns = choose_columns(names, choice, kind=kind, place=str(place))
    return TextTable(
        path, names, columns, kind, separator, "", _rows_by_key(names, lambda bad: read_objects(path, bad))
    )


def _open_delimited(path: str, choice: ColumnChoice, kind: str, separator: str, header: str, format: str) -> TextTable:
    """Opens a CSV or TSV file."""
    delimiter = "\t" if format == "tsv" else find_delimiter(path)

    def read_records(bad_rows: BadRows) -> Iterator[tuple[Place, list[str] | None]]:
        return read_tsv(path) if format == "tsv" else read_csv(path, delimiter, bad_rows)

    bad_rows = BadRows("skip")
    (place, first), *others = itertools.islice(read_records(bad_rows), 2)
    if first is None:
        raise UserError(f"{place}: the first line cannot be read; {bad_rows.report()[0]}")
    layout = glue.recognize(first) if format == "tsv" else None
    has_header = _has_header(first, layout, header, choice, kind, place)
    if layout is not None and layout.has_header != has_header:
        layout = None
    if has_header and not others:
        raise UserError(f"{path} has a header and no rows")
    remarks = ["fields between semicolons"] if delimiter == ";" else []
    if layout is not None:
        remarks.append(f"GLUE's layout of {layout.task}{'' if has_header else ', no header'}")
        names = layout.names
    elif has_header:
        names = tuple(name.strip() for name in first)
    else:
        cut = (field[:_SHOWN_CHARACTERS] + "..." * (len(field) > _SHOWN_CHARACTERS) for field in first[:_SHOWN_FIELDS])
        shown = ", ".join(map(repr, cut))
        remarks.append(f"no header; the first row is {shown}")
        names = tuple(str(number) for number in range(1, len(first) + 1))
        if len(names) == 1 and choice.text is None:
            choice = dataclasses.replace(choice, text="1")
    where = str(place) if has_header else f"{place} (read as a row, not as a header)"
    columns = choose_columns(names, choice, kind=kind, place=where, layout=layout)

    def read_rows(bad_rows: BadRows) -> Iterator[tuple[Place, _Row | None]]:
        for place, fields in itertools.islice(read_records(bad_rows), int(has_header), None):
            if fields is not None and len(fields) != len(names):
                bad_rows.reject(place, _ragged(fields, len(names), format, has_header))
                fields = None
            yield place, None if fields is None else fields.__getitem__

    return TextTable(path, names, columns, kind, separator, "; ".join(remarks), read_rows)


def _has_header(
    first: Sequence[str], layout: glue.Layout | None, header: str, choice: ColumnChoice, kind: str, place: Place
) -> bool:
    """Decides as `open_table` says."""
    if header != "auto":
        return header == "yes"
    if layout is not None:
        return layout.has_header
    if looks_like_header(first, choice):
        return True
    named = choice.named()
    if (named and all(name.isdigit() for name in named)) or (len(first) == 1 and kind == "none"):
        return False
    shown = ", ".join(repr(field[:_SHOWN_CHARACTERS]) for field in first[:_SHOWN_FIELDS])
    commas = "; if commas separate fields, --format=csv" if len(first) == 1 and "," in first[0] else ""
    raise UserError(
        f"{place}: this first line may be a header or a row: {shown}; pass --header=no with --text_column and"
        f" --label_column as numbers, or --header=yes with names of this line{commas}"
    )


def _rows_by_key(
    names: Sequence[str], read_objects: Callable[[BadRows], Iterator[tuple[Place, dict | None]]]
) -> _ReadRows:
    def read_rows(bad_rows: BadRows) -> Iterator[tuple[Place, _Row | None]]:
        for place, value in read_objects(bad_rows):
            # Bound as a default: the loop's variable goes on to the next row.
            yield place, None if value is None else lambda at, value=value: value.get(names[at], _MISSING)

    return read_rows


def _ragged(fields: Sequence[str], width: int, format: str, has_header: bool) -> str:
    if fields == [""]:
        return "the line is empty"
    cause = "a tab in a text" if format == "tsv" else "a text with a delimiter belongs in quotes"
    of = "the header" if has_header else "the first line"
    return f"{len(fields)} {'field' if len(fields) == 1 else 'fields'} where {of} has {width} ({cause}?)"


def _text(value, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"the {what} is {json_kind(value)}, not a string")
    if not value.strip():
        raise ValueError(f"the {what} is empty")
    return value


def _row_id(value) -> str:
    if not (text := json_id(value).strip()):
        raise ValueError("the id is empty")
    return text
