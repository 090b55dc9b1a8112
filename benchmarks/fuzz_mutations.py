"""Damages files as nature and malice do: bits, lengths, lines, and JSON values of other types and sizes."""

import gzip
import json
import random
from collections.abc import Callable
from typing import Any

_DEEP = 100_000
# Bytes that some reader has a rule for, and some that none has.
_TOKENS = (
    *(b"", b"\0", b"\xff", b"\xed\xa0\x80", b"\xc3", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\xf0\x9f\x98\x80", b"\x85"),
    *(b"\n", b"\n\n", b"\r", b"\r\n", b"\t", b" ", b"\t\t\t", b"\n" * 300, b" " * 300, b"\t" * 12_000, b"," * 12_000),
    *(b'"', b'""', b'"\n', b",", b";", b"{", b"}", b"[", b"]", b":", b"\\", b"\\ud800", b"\\u0000", b"null", b"NaN"),
    *(b"[" * _DEEP, b'{"a":' * _DEEP, b"(" * _DEEP, b"9" * 400, b"9" * 5000, b"-1", b"1e999", b"0x10", b"a" * 100_000),
    *(b"#", b"%", b"@", b"<e1>", b"</e1>", b"<e2>", b"-DOCSTART-", b"B-", b"I-X", b"O", b"[MASK]", b"[unused0]"),
    *(b"<doc id=", b"</doc>", b"\x1f\x8b", b"PK\x03\x04", b"import os\n", b"include 'x.gin'\n", b"../", b"/etc/passwd"),
)
# JSON as text, as some of it no library writes.
_VALUES = (
    *("null", "true", "false", "[]", "{}", '""', '"x"', "0", "1", "-1", "1.5", "1e999", "-0.0", "NaN", "10000000"),
    *("9" * 19, "-" + "9" * 20, "9" * 400, "9" * 5000, '"\\ud800"', '"\\ud83d\\ude00"', '"\\u0000"', '"a\\nb"'),
    *('["x"]', '[["x"]]', "[null]", '{"a": {}}', '{"x": 1, "x": 2}', '"../../x"', '"' + "x" * 20_000 + '"'),
    *("[" * _DEEP + "]" * _DEEP, '{"a":' * _DEEP + "1" + "}" * _DEEP, "[" * 99 + "1" + "]" * 99, "[1,2,3]", '{"0": 1}'),
)
_PLACEHOLDER = "\x02value %d\x03"


def mutate(content: bytes, draw: random.Random) -> bytes:
    """Returns the content with one to four changes; sometimes compressed, and then perhaps changed again."""
    for _ in range(draw.choice((1, 1, 1, 2, 3, 4))):
        changed = _mutate_json(content, draw) if draw.random() < 0.5 else None
        content = draw.choice(_OF_BYTES)(content, draw) if changed is None else changed
    if draw.random() < 0.05:
        content = gzip.compress(content, 1, mtime=0)
        if draw.random() < 0.5:
            content = draw.choice((_flip, _truncate))(content, draw)
    return content


def _place(content: bytes, draw: random.Random) -> int:
    return draw.randint(0, len(content))


def _flip(content: bytes, draw: random.Random) -> bytes:
    if not content:
        return b"\0"
    changed = bytearray(content)
    changed[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _set_byte(content: bytes, draw: random.Random) -> bytes:
    if not content:
        return b"\xff"
    changed = bytearray(content)
    changed[draw.randrange(len(content))] = draw.randrange(256)
    return bytes(changed)


def _truncate(content: bytes, draw: random.Random) -> bytes:
    return content[: _place(content, draw)]


def _remove(content: bytes, draw: random.Random) -> bytes:
    start = _place(content, draw)
    return content[:start] + content[start + draw.choice((1, 2, 5, 20, 100)) :]


def _repeat(content: bytes, draw: random.Random) -> bytes:
    start = _place(content, draw)
    part = content[start : start + draw.choice((1, 2, 5, 20, 100))]
    return content[:start] + part * draw.choice((2, 2, 3, 50)) + content[start + len(part) :]


def _insert(content: bytes, draw: random.Random) -> bytes:
    place = _place(content, draw)
    return content[:place] + draw.choice(_TOKENS) + content[place:]


def _change_lines(content: bytes, draw: random.Random) -> bytes:
    lines = content.split(b"\n")
    one, other = draw.randrange(len(lines)), draw.randrange(len(lines))
    kind = draw.randrange(4)
    if kind == 0:
        lines[one], lines[other] = lines[other], lines[one]
    elif kind == 1:
        lines.insert(other, lines[one])
    elif kind == 2:
        del lines[one]
    else:
        lines[one] = draw.choice(_TOKENS)
    return b"\n".join(lines)


_OF_BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(_flip, _set_byte, _truncate, _remove, _repeat, _insert, _insert, _change_lines),
)


def _mutate_json(content: bytes, draw: random.Random) -> bytes | None:
    """Changes one value of a JSON text, or of one of its lines; None where there is none."""
    before, after = b"", b""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        lines = content.split(b"\n")
        at = draw.randrange(len(lines))
        before, after = (
            b"".join(line + b"\n" for line in lines[:at]),
            b"".join(b"\n" + line for line in lines[at + 1 :]),
        )
        try:
            value = json.loads(lines[at])
        except (ValueError, RecursionError):
            return None
    values: list[str] = []

    def placeholder() -> str:
        values.append(draw.choice(_VALUES))
        return _PLACEHOLDER % (len(values) - 1)

    value = _change(value, draw, placeholder)
    try:
        text = json.dumps(value, ensure_ascii=draw.random() < 0.5)
    except (ValueError, RecursionError):
        return None
    for index, replacement in enumerate(values):
        text = text.replace(json.dumps(_PLACEHOLDER % index), replacement)
    return before + text.encode("utf-8", "surrogatepass") + after


def _change(value: Any, draw: random.Random, placeholder: Callable[[], str]) -> Any:
    """Changes the value itself, or more often one that it holds."""
    if isinstance(value, dict) and value and draw.random() < 0.85:
        name = draw.choice(sorted(value))
        kind = draw.randrange(8)
        if kind == 0:
            return {other: inner for other, inner in value.items() if other != name}
        if kind == 1:
            return {
                draw.choice(("", "x", "a\nb", "9" * 30, "\ud800")) if other == name else other: value[other]
                for other in value
            }
        return {**value, name: _change(value[name], draw, placeholder)}
    if isinstance(value, list) and value and draw.random() < 0.85:
        at = draw.randrange(len(value))
        kind = draw.randrange(8)
        if kind == 0:
            return value[:at] + value[at + 1 :]
        if kind == 1:
            return value[:at] + [value[at]] * draw.choice((2, 2, 200)) + value[at + 1 :]
        return [*value[:at], _change(value[at], draw, placeholder), *value[at + 1 :]]
    kind = draw.randrange(4)
    if kind == 0:
        return [value]
    if kind == 1 and isinstance(value, str | int) and not isinstance(value, bool):
        return str(value) if isinstance(value, int) else value + draw.choice(("", " ", "\n", "x", "\ud800", "é"))
    return placeholder()
