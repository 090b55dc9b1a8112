"""One place that loads JSON: what it takes, what it refuses, and in which words."""

import json
import os

import pytest

from bert_jax.errors import UserError
from bert_jax.text.json_files import DEEPEST, JsonError, expect_type, parse_json, read_json_object


@pytest.mark.parametrize("opening, closing", [("[", "]"), ('{"a":', "}")])
def test_nesting_has_one_limit_whatever_the_stack_is(opening, closing):
    def nested(depth):
        return opening * depth + "1" + closing * depth

    parse_json(nested(DEEPEST))
    for text in (nested(DEEPEST + 1), nested(100_000), opening * 100_000, f"[{nested(DEEPEST)}]"):
        with pytest.raises(JsonError, match="nested too deeply"):
            parse_json(text)


def test_many_brackets_that_are_not_deep_are_taken():
    rows = [[[index], {"a": [index]}] for index in range(1000)]
    assert parse_json(json.dumps(rows)) == rows
    assert parse_json(json.dumps("[" * 1000)) == "[" * 1000


def test_more_containers_than_fit_in_memory_are_refused_before_they_are_made():
    with pytest.raises(JsonError, match="2,000,000 lists"):
        parse_json("[" + "[]," * 2_000_000 + "[]]")
    with pytest.raises(JsonError, match="4,000,000 values"):
        parse_json("[" + "0," * 4_000_001 + "0]")


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "empty"),
        (" \n", "empty"),
        (b"\xff{}", "not UTF-8 at byte 0"),
        (b'{"a": "\xed\xa0\x80"}', "not UTF-8"),  # a surrogate that was encoded, which json.loads lets pass
        ('{"a": 1,\n"b"}', "line 2, character 4"),
        ("1" * 5000, "thousands of digits"),
        (r'{"a": ["\ud83d"]}', "half of a character"),
        (r'{"\uDC00": 1}', "half of a character"),
    ],
)
def test_the_reason_is_said(content, reason):
    with pytest.raises(JsonError, match=reason):
        parse_json(content)


def test_what_is_harmless_is_taken():
    long = "1" * 400
    assert parse_json(f'\ufeff{{"id": {long}}}'.encode()) == {"id": int(long)}
    assert parse_json(r'["\ud83d\ude00", "\\ud83d"]') == ["\U0001f600", r"\ud83d"]
    assert parse_json(r'"\ud83d"', allow_surrogates=True) == "\ud83d"
    assert parse_json('{"a": 1, "a": 2}') == {"a": 2}


def test_a_name_that_stands_there_twice_is_refused_on_request():
    with pytest.raises(JsonError, match="'a' stands there twice"):
        parse_json('[{"b": {"a": 1, "a": 1}}]', unique_names=True)


def test_a_file_that_is_not_one_object_is_one_line_with_its_name(tmp_path):
    path = tmp_path / "config.json"
    for content, reason in (
        (b"", "empty"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[1]", "no JSON object, but a list"),
        (b"null", "no JSON object, but null"),
        (b'"' + b"x" * 1000 + b'"', r"no JSON object, but 'x{20}.*\.\.\."),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"config.json is damaged \(.*{reason}.*\): fetch it again") as raised:
            read_json_object(path, "fetch it again")
        assert "\n" not in str(raised.value) and len(str(raised.value)) < 300


def test_files_without_end_or_without_bounds_are_refused(tmp_path):
    large, pipe = tmp_path / "large.json", tmp_path / "pipe.json"
    large.write_bytes(b'{"a": 1}' + b" " * (2 << 20))
    assert read_json_object(large) == {"a": 1}
    with pytest.raises(UserError, match="larger than the 1 MiB"):
        read_json_object(large, largest=1 << 20)
    os.mkfifo(pipe)  # opening it would wait for a writer
    for path in (pipe, tmp_path):
        with pytest.raises(UserError, match="is not a file"):
            read_json_object(path)
    for path in (tmp_path / "absent.json", tmp_path / "a\0b", tmp_path / ("x" * 300)):
        with pytest.raises(UserError, match="cannot read"):
            read_json_object(path)


@pytest.mark.parametrize(
    "value, wanted",
    [
        ("x", str),
        (2**63 - 1, int),
        (5, float),
        (True, bool),
        (None, str | None),
        (["x"], list[str] | None),
        ({"a": {"b": 1}}, dict[str, dict[str, int]]),
        ([[1], {"a": 2}], list[list | dict]),
    ],
)
def test_a_value_of_the_wanted_type_is_returned(value, wanted):
    assert expect_type(value, wanted, "place") is value


@pytest.mark.parametrize(
    "value, wanted, message",
    [
        ([["x"]], list[str], "x.json: a[0] is a list, not a string: mend it"),
        ({"b": 5}, dict[str, str], "x.json: a['b'] is 5, not a string: mend it"),
        ({"b": [None]}, dict[str, list[int]], "x.json: a['b'][0] is null, not a whole number: mend it"),
        (None, int, "x.json: a is null, not a whole number: mend it"),
        (True, int, "x.json: a is true, not a whole number: mend it"),
        (1.5, int, "x.json: a is 1.5, not a whole number: mend it"),
        (2**63, int, "x.json: a is 9223372036854775808, not a whole number: mend it"),
        (10**400, float, "x.json: a is a number of more than 64 bits, not a number: mend it"),
        (float("inf"), float, "x.json: a is Infinity, not a number: mend it"),
        (5, list[str] | None, "x.json: a is 5, not a list of strings or null: mend it"),
        ([5], list[str] | str, "x.json: a[0] is 5, not a string: mend it"),
        ([], dict[str, str | bool], "x.json: a is a list, not an object of strings or true or false: mend it"),
        ({}, list[list[str]], "x.json: a is an object, not a list of lists: mend it"),
    ],
)
def test_a_value_of_another_type_is_one_line_with_both_types(value, wanted, message):
    with pytest.raises(UserError) as raised:
        expect_type(value, wanted, "x.json: a", "mend it")
    assert str(raised.value) == message
