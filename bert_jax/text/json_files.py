"""JSON that others made, read within limits, and its values asked for by their type.

    fields = read_json_object(path)
    labels = expect_type(fields.get("labels"), list[str] | None, f"{path}: labels")

Whatever is wrong with a file or a field becomes one UserError that names it. JSON of a row, or of what is not a file,
goes through `parse_json`, whose error is a reason without a place.
"""

import dataclasses
import json
import math
import os
import re
import types
import typing
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from bert_jax.errors import UserError
from bert_jax.text.files import read_bounded

# Values inside of values; Python's own limit depends on its version and on how deep its stack is already.
DEEPEST = 100
# Lists and objects in all, and commas: a few bytes of a file, and some sixty and a hundred of memory.
MOST_CONTAINERS, MOST_COMMAS = 2_000_000, 4_000_000
# Bytes of a file that is read as a whole, unless its reader allows for more.
LARGEST_FILE = 16 << 20
COPY_AGAIN = "copy it again"

T = TypeVar("T")

_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_SHOWN_CHARACTERS = 60
_KINDS = {
    str: ("a string", "strings"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    bool: ("true or false", "true or false"),
    list: ("a list", "lists"),
    dict: ("an object", "objects"),
    type(None): ("null", "null"),
}


class JsonError(ValueError):
    """JSON that cannot be used; the message is the reason, in a few words and without the file.

    Attributes:
        line: where in the text, from 1; None where that is not one place.
    """

    def __init__(self, reason: str, line: int | None = None):
        super().__init__(reason)
        self.line = line


def parse_json(content: bytes | str, *, allow_surrogates: bool = False, unique_names: bool = False) -> Any:
    r"""Returns the value of a JSON text; every version of Python takes and refuses the same.

    Whole numbers may be long: `expect_type` bounds those that are used as numbers.

    Args:
        content: text, or bytes in UTF-8, perhaps with a byte-order mark.
        allow_surrogates: strings may hold halves of characters (an escape \ud800 to \udfff that is alone), which
            cannot be encoded; for callers that mend them.
        unique_names: whether an object that holds a name twice is refused; otherwise the last one counts.

    Raises:
        JsonError: the text is not JSON, is nested deeper than `DEEPEST`, holds more than `MOST_CONTAINERS` lists and
            objects, more than `MOST_COMMAS` commas or a whole number of thousands of digits, or breaks one of the rules
            above.
    """
    if isinstance(content, bytes):
        try:
            content = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise JsonError(f"not UTF-8 at byte {error.start}") from error
    if not content or content.isspace():
        raise JsonError("it is empty")
    containers = content.count("[") + content.count("{")
    if containers > MOST_CONTAINERS:
        raise JsonError(f"it holds more than {MOST_CONTAINERS:,} lists and objects")
    if content.count(",") > MOST_COMMAS:
        raise JsonError(f"it holds more than {MOST_COMMAS:,} values")
    try:
        value = json.loads(content, object_pairs_hook=_unique if unique_names else None)
    except RecursionError:
        raise JsonError("it is nested too deeply") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, character {error.colno}" if error.lineno > 1 else f"character {error.colno}"
        raise JsonError(f"{error.msg.removesuffix(' at')} at {place}", error.lineno) from error
    except JsonError:
        raise
    except ValueError as error:  # the one other reason that the parser has
        raise JsonError("a number has thousands of digits") from error
    if containers > DEEPEST and _is_deeper(value, DEEPEST):
        raise JsonError("it is nested too deeply")
    if not allow_surrogates and _ESCAPED_SURROGATE.search(content):
        check_whole_characters(json.dumps(value, ensure_ascii=False))
    return value


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise JsonError(f"{show_json(name)} stands there twice")
        found[name] = value
    return found


def _is_deeper(value: Any, limit: int) -> bool:
    containers = [value]
    for _ in range(limit):
        containers = [
            inner
            for outer in containers
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, list | dict)
        ]
        if not containers:
            return False
    return True


def check_whole_characters(text: str) -> None:
    """Raises a JsonError for what JSON can hold and no file: half of a character that needs two escapes."""
    if _SURROGATE.search(text):
        raise JsonError("an escape \\ud800 to \\udfff is half of a character")


def read_json_object(
    path: str | os.PathLike[str], remedy: str = COPY_AGAIN, *, largest: int = LARGEST_FILE, unique_names: bool = False
) -> dict[str, Any]:
    """Reads a file that holds one JSON object.

    Args:
        path: the file.
        remedy: what a user should do about a damaged file.
        largest: bytes that the file may have.
        unique_names: see `parse_json`.

    Raises:
        UserError: the file cannot be read, is too large, or is not such JSON; one line that names it.
    """
    content = read_bounded(path, largest, remedy)
    try:
        value = parse_json(content, unique_names=unique_names)
    except JsonError as error:
        raise UserError(f"{path} is damaged (no valid JSON: {error}): {remedy}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged (no JSON object, but {show_json(value)}): {remedy}")
    return value


def expect_type(value: Any, wanted: Any, place: str, remedy: str = COPY_AGAIN) -> Any:
    """Returns a value of JSON if it is of the type that is wanted.

    Args:
        value: what was parsed, or a part of it; None where a field is missing.
        wanted: str, int, float, bool, None, list, dict, list[X], dict[str, X], or a union of those. An int is a whole
            number of at most 64 bits and a float any finite number, and neither is true or false.
        place: the file and the field, such as "config.json: architectures".
        remedy: what a user should do; "" leaves that to the caller.

    Raises:
        UserError: the value is of another type; one line with the place in it, both types and the remedy.
    """
    if not is_type(value, wanted):
        raise UserError(f"{_mismatch(value, wanted, place)}{f': {remedy}' if remedy else ''}")
    return value


def from_fields(cls: type[T], values: dict[str, Any], place: str, remedy: str = COPY_AGAIN) -> T:
    """Makes a dataclass of an object that has its fields; those with a default may be missing.

    Raises:
        UserError: as `expect_type`, and for a field that the dataclass does not have.
    """
    expect_type(values, dict, place, remedy)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for name, field in fields.items():
        if name in values or field.default is dataclasses.MISSING:
            expect_type(values.get(name), field.type, f"{place}.{name}", remedy)
    for name in values:
        if name not in fields:
            raise UserError(f"{place} has an unknown field, {show_json(name)}{f': {remedy}' if remedy else ''}")
    return cls(**values)


def is_type(value: Any, wanted: Any) -> bool:
    """Whether a value of JSON is of the type that is wanted, as `expect_type` means it."""
    for alternative in _alternatives(wanted):
        outer, inner = _parts(alternative)
        if _is_one(value, outer) and (inner is None or all(is_type(part, inner) for _, part in _items(value))):
            return True
    return False


def _mismatch(value: Any, wanted: Any, place: str) -> str:
    """Says what is of another type than wanted, as near to it as can be."""
    for alternative in _alternatives(wanted):
        outer, inner = _parts(alternative)
        if inner is not None and _is_one(value, outer):
            name, part = next((name, part) for name, part in _items(value) if not is_type(part, inner))
            return _mismatch(part, inner, f"{place}[{show_json(name)}]")
    return f"{place} is {show_json(value)}, not {' or '.join(map(_describe, _alternatives(wanted)))}"


def _alternatives(wanted: Any) -> Sequence[Any]:
    return typing.get_args(wanted) if isinstance(wanted, types.UnionType) else (wanted,)


def _parts(wanted: Any) -> tuple[Any, Any]:
    """Returns the type of the whole, and that of what it holds, or None."""
    inner = typing.get_args(wanted)
    return typing.get_origin(wanted) or wanted, inner[-1] if inner else None


def _items(value: list | dict) -> Iterable[tuple[Any, Any]]:
    return value.items() if isinstance(value, dict) else enumerate(value)


def _is_one(value: Any, kind: type | None) -> bool:
    if kind is None:
        return value is None
    if kind is int:
        return type(value) is int and -(2**63) <= value < 2**63
    if kind is float:
        return _is_one(value, int) or (type(value) is float and math.isfinite(value))
    return isinstance(value, kind)


def _describe(wanted: Any) -> str:
    outer, inner = _parts(wanted)
    name = _KINDS[type(None) if outer is None else outer][0]
    if inner is None:
        return name
    return f"{name} of {' or '.join(_KINDS[_parts(one)[0]][1] for one in _alternatives(inner))}"


def json_kind(value: Any) -> str:
    """Names the kind of a JSON value for messages: "a list", "null"."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int | float):
        return "a number"
    return _KINDS[type(value)][0] if type(value) in _KINDS else f"a {type(value).__name__}"


def show_json(value: Any) -> str:
    """Returns a short form of a JSON value for messages: the value itself, or "a list", "an object"."""
    if isinstance(value, list | dict):
        return json_kind(value)
    if type(value) is int and value.bit_length() > 64:
        return "a number of more than 64 bits"
    text = repr(value) if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."
