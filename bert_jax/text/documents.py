"""From the --input flag to passages: which files or corpus it means, and which reader each takes."""

import collections
import glob
import os
from collections.abc import Iterator

from bert_jax.errors import UserError
from bert_jax.text import files, pydocs, tfds_reader
from bert_jax.text.formats import READERS, detect_format
from bert_jax.text.passage import Passage

__all__ = ["FORMATS", "PYDOCS", "Passage", "check_inputs", "describe_inputs", "find_files", "read_passages"]

AUTO = "auto"
FORMATS = (AUTO, *READERS)

PYDOCS = "pydocs"


def read_passages(inputs: str, format: str = AUTO) -> Iterator[Passage]:
    """Yields the passages of a corpus, always in the same order, holding no more than one file's part in memory.

    Args:
        inputs: globs, files and directories separated by commas (files are sorted, each is read once); or `pydocs`,
            the documentation in the running Python's installation; or `tfds:NAME[/CONFIG][:FEATURE]`.
        format: one of `FORMATS`, for files; "auto" looks at each file.

    Raises:
        UserError: as `check_inputs`, and for a file that is damaged or not in its format, when it is reached.
    """
    if inputs == PYDOCS:
        yield from pydocs.read_pydocs()
    elif inputs.startswith(tfds_reader.PREFIX):
        yield from tfds_reader.read_dataset(inputs)
    else:
        for path in find_files(inputs):
            yield from READERS[_format_of(path, format)](path)


def check_inputs(inputs: str, format: str = AUTO) -> None:
    """Finds, without reading a text, what is wrong with the flags: a missing path, an empty glob, an unknown format."""
    if format not in FORMATS:
        raise UserError(f"unknown format {format!r}: choose one of {', '.join(FORMATS)}")
    if inputs == PYDOCS or inputs.startswith(tfds_reader.PREFIX):
        if format != AUTO:
            raise UserError(f"format {format!r} does not go with the input {inputs}: it is for files; leave it out")
        if inputs != PYDOCS:
            tfds_reader.parse(inputs)
        return
    for path in find_files(inputs):
        if not os.access(path, os.R_OK):
            raise UserError(f"cannot read {path}: permission denied")


def describe_inputs(inputs: str, format: str = AUTO) -> str:
    """Returns what will be read, for people: "64 files, format wikiextractor"; looks at the head of each file."""
    if inputs == PYDOCS:
        return "the documentation in this Python installation"
    if inputs.startswith(tfds_reader.PREFIX):
        name, feature = tfds_reader.parse(inputs)
        return f"TFDS dataset {name}, feature {feature}"
    counts = collections.Counter(_format_of(path, format) for path in find_files(inputs))
    return "; ".join(f"{count} {'file' if count == 1 else 'files'}, format {name}" for name, count in counts.items())


def find_files(inputs: str) -> list[str]:
    """Returns the files that comma-separated globs, paths and directories mean, sorted, each once."""
    found: set[str] = set()
    patterns = [pattern.strip() for pattern in inputs.split(",") if pattern.strip()]
    if not patterns:
        raise UserError("no input: give --input=GLOB, --input=pydocs or --input=tfds:NAME")
    for pattern in patterns:
        pattern = os.path.expanduser(pattern)
        # A name that exists is meant, even if it has a character that is special in globs.
        matches = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern, recursive=True))
        if not matches:
            kind = "no file matches" if glob.has_magic(pattern) else "no such file or directory:"
            raise UserError(f"{kind} {pattern}; check --input")
        below = []
        for match in matches:
            below += files.files_below(match) if os.path.isdir(match) else [match]
        if not below:
            raise UserError(f"no files in {pattern}; check --input")
        found.update(os.path.normpath(path) for path in below)
    return sorted(found)


def _format_of(path: str, format: str) -> str:
    return detect_format(path) if format == AUTO else format
