"""Files of sentences with two marked entities: SemEval-2010 task 8's layout, or a table whose texts have the tags."""

import dataclasses
import re
from collections.abc import Iterator

from bert_jax.errors import UserError
from bert_jax.tasks.examples import records
from bert_jax.tasks.examples.columns import ColumnChoice
from bert_jax.tasks.examples.example_types import TextExample
from bert_jax.tasks.examples.places import BadRows
from bert_jax.tasks.examples.semeval import mark_entities, read_semeval
from bert_jax.tasks.examples.tables import open_table
from bert_jax.text import tfds_reader
from bert_jax.text.files import read_lines

SEMEVAL = "semeval"
FORMATS = (SEMEVAL, *records.FORMATS)

_NUMBERED_SENTENCE = re.compile(r'\s*\d+\t"[^\t]*"\s*')


def open_relations(
    source: str,
    bad_rows: BadRows,
    *,
    with_labels: bool = True,
    format: str | None = None,
    columns: ColumnChoice | None = None,
    header: str = "auto",
) -> tuple[str, Iterator[TextExample]]:
    """Opens a file of relations.

    Args:
        source: a file, or a TFDS name. The entities of a table's texts stand between <e1> and </e1>, <e2> and </e2>.
        bad_rows: takes the examples that cannot be used.
        with_labels: False for files to predict, whose relations, if there are any, are not looked at.
        format: one of FORMATS; None to find it.
        columns: of a table.
        header: of a table; see `open_table`.

    Returns:
        A line for people that says how the file is read, and the examples, with marker words in place of the tags.

    Raises:
        UserError: there is no such file, or it is a file of another kind.
    """
    if format not in (None, *FORMATS):
        raise UserError(f"cannot read the format {format!r} of relations: it is one of {', '.join(FORMATS)}")
    if format is None and not source.startswith(tfds_reader.PREFIX):
        records.check_readable(source)
        first = next((line for _, line in read_lines(source) if line.strip()), "")
        format = SEMEVAL if _NUMBERED_SENTENCE.fullmatch(first) else None
    if format == SEMEVAL:
        return (
            f"{source}: SemEval-2010 task 8's layout",
            read_semeval(source, bad_rows=bad_rows, with_labels=with_labels),
        )
    kind = "single" if with_labels else "none"
    table = open_table(source, columns=columns, kind=kind, format=format, header=header)
    return table.describe(), _marked(table.read(bad_rows), bad_rows)


def _marked(examples: Iterator[TextExample], bad_rows: BadRows) -> Iterator[TextExample]:
    for example in examples:
        try:
            text = mark_entities(example.text)
        except ValueError as error:
            bad_rows.reject(example.place, str(error))
            continue
        yield dataclasses.replace(example, text=text)
