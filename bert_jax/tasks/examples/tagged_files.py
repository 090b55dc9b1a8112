"""Any file of tagged sentences: columns or JSON lines, told apart by the first line."""

import re

from bert_jax.errors import UserError
from bert_jax.tasks.examples.conll import ColumnFile, Columns
from bert_jax.tasks.examples.places import BadRows
from bert_jax.tasks.examples.tagged_json import TaggedJsonFile
from bert_jax.text.files import read_lines

FORMATS = ("conll", "jsonl")


def open_tagged(
    path: str,
    bad_rows: BadRows,
    *,
    format: str | None = None,
    columns: Columns = Columns(),  # noqa: B008 (frozen)
    scheme: str | None = None,
    with_tags: bool = True,
) -> ColumnFile | TaggedJsonFile:
    """Opens a file of tagged sentences; iterate over it for its `TaggedExample`s, and print its `description`.

    Args:
        path: may be gzip.
        bad_rows: takes the sentences that cannot be used.
        format: "conll" or "jsonl"; None to find it: JSON lines begin with a brace.
        columns: of a file of columns.
        scheme: the tags' scheme, one of `tag_schemes.SCHEMES`; None to find it.
        with_tags: False for files to predict.

    Raises:
        UserError: there is no such file or format, or it is a file of another kind.
    """
    if format not in (None, *FORMATS):
        raise UserError(f"cannot read the format {format!r} of tagged files: it is one of {', '.join(FORMATS)}")
    if format is None:
        first = next((line.strip() for _, line in read_lines(path) if line.strip()), "")
        # Braces and brackets are words, too: a line of columns has no quotes, or something after them.
        is_json = first == "{" or re.match(r'\{\s*"', first) or re.match(r"\[(\s*\{|$)", first)
        format = "jsonl" if is_json else "conll"
    if format == "jsonl":
        return TaggedJsonFile(path, bad_rows, scheme=scheme, with_tags=with_tags)
    return ColumnFile(path, bad_rows, columns=columns, scheme=scheme, with_tags=with_tags)
