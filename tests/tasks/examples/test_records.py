"""Records of CSV, TSV and JSON lines: quotes by RFC 4180, and files of other kinds named."""

import csv
import gzip
import io
import os
import random

import pytest

from bert_jax.errors import UserError
from bert_jax.tasks.examples import records
from bert_jax.tasks.examples.places import BadRows


def write(path, text: str) -> str:
    path.write_bytes(text.encode())
    return str(path)


def csv_fields(path: str, policy: str = "fail", delimiter: str = ","):
    return [fields for _, fields in records.read_csv(path, delimiter, BadRows(policy))]


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_csv_reads_what_the_csv_module_writes(tmp_path, delimiter):
    draw = random.Random(0)
    for _ in range(200):
        rows = [
            ["".join(draw.choices('ab,;"\n 中', k=draw.randint(0, 6))) for _ in range(3)]
            for _ in range(draw.randint(1, 5))
        ]
        text = io.StringIO()
        csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(rows)
        assert csv_fields(write(tmp_path / "a.csv", text.getvalue()), delimiter=delimiter) == rows


def test_a_quote_inside_of_an_unquoted_field_is_a_character(tmp_path):
    assert csv_fields(write(tmp_path / "a.csv", 'a 5" disk,1\n')) == [['a 5" disk', "1"]]


def test_places_of_records_with_line_ends(tmp_path):
    path = write(tmp_path / "a.csv", 'a,"b\r\nc",d\r\ne,f,g\r\n')
    places = [str(place) for place, _ in records.read_csv(path, ",", BadRows())]
    assert places == [f"{path}:1: record up to line 2", f"{path}:3"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('a,b\n"never closed,1\nx,2\ny,3\n', 2),
        ('a,b\nx,1\n"closed by the next,2\n"good, even with a comma",3\n', 3),
        ('a,b\n"said "no" twice",1\n', 2),
    ],
)
def test_unbalanced_quotes_are_named_where_the_record_begins(tmp_path, text, line):
    path = write(tmp_path / "a.csv", text)
    with pytest.raises(UserError, match=rf"a\.csv:{line}: unbalanced quotes"):
        csv_fields(path)


def test_a_lost_quote_costs_one_row(tmp_path):
    path = write(tmp_path / "a.csv", 'a,b\n"lost,1\n"x,\ny",2\nz,3\n')
    bad_rows = BadRows("skip")
    rows = [fields for _, fields in records.read_csv(path, ",", bad_rows)]
    assert rows == [["a", "b"], None, ["x,\ny", "2"], ["z", "3"]]
    assert bad_rows.count == 1


def test_a_quote_that_is_never_closed_does_not_read_the_whole_file_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "_RECORD_CHARACTERS", 100)
    path = write(tmp_path / "a.csv", '"lost,1\n' + "".join(f"text {number},2\n" for number in range(1000)))
    taken = 0

    def counted(path, read_lines=records.read_lines):
        nonlocal taken
        for line in read_lines(path):
            taken += 1
            yield line

    monkeypatch.setattr(records, "read_lines", counted)
    rows = records.read_csv(path, ",", BadRows("skip"))
    assert next(rows)[1] is None
    assert taken < 20
    assert sum(1 for _ in rows) == 1000


def test_a_table_whose_first_line_is_nested_json_is_not_one_of_json(tmp_path):
    path = write(tmp_path / "a.csv", '{"text":' * 100_000 + "\nx,y\n")
    assert records.find_format(path) == "csv"
    with pytest.raises(UserError, match="pass --format=jsonl"):
        records.find_format(write(tmp_path / "b.csv", '{"text": "x", "label": [1]}\nx,y\n'))


def test_rows_that_read_on_to_the_end_again_and_again_are_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "_READ_AGAIN", 10_000)
    path = write(tmp_path / "a.csv", "a,b\n" + 'b","a\n' * 1000)
    with pytest.raises(UserError, match=r"a\.csv:\d+: the quotes of too many rows are not balanced"):
        csv_fields(path, "skip")


@pytest.mark.parametrize("text", ["," * 12_000, '"a",' * 12_000])
def test_a_row_of_far_too_many_fields_is_a_bad_row(tmp_path, text):
    assert csv_fields(write(tmp_path / "a.csv", f"a,b\n{text}\nc,d\n"), "skip") == [["a", "b"], None, ["c", "d"]]
    with pytest.raises(UserError, match="more than 10,000 fields"):
        list(records.read_tsv(write(tmp_path / "a.tsv", "\t" * 12_000)))


def test_tsv_knows_no_quotes(tmp_path):
    path = write(tmp_path / "a.tsv", 'a\tb\n" lone\t1\n"x"\t\n')
    assert [fields for _, fields in records.read_tsv(path)] == [["a", "b"], ['" lone', "1"], ['"x"', ""]]


def test_empty_lines_at_the_end_are_dropped_and_those_between_kept(tmp_path):
    path = write(tmp_path / "a.tsv", "a\n\n\nb\n\n\n")
    assert [(place.line, fields) for place, fields in records.read_tsv(path)] == [
        (1, ["a"]),
        (2, [""]),
        (3, [""]),
        (4, ["b"]),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": "a"', "no JSON object .*delimiter at character 13"),
        ('["text"]', "is a list, not a JSON object"),
        ('"text"', "is a string, not"),
        ("3", "is a number, not"),
        ("null", "is null, not"),
        ("", "the line is empty"),
        ('{"text": "\\ud83d"}', "half of a character"),
        ("[" * 100_000, "nested too deeply"),
    ],
    ids=str.__len__,
)
def test_lines_that_are_no_objects(tmp_path, line, reason):
    path = write(tmp_path / "a.jsonl", f'{{"text": "\\ud83d\\ude00"}}\n{line}\n{{"text": "b"}}\n')
    with pytest.raises(UserError, match=rf"a\.jsonl:2: .*{reason}"):
        list(records.read_objects(path, BadRows()))
    assert [value for _, value in records.read_objects(path, BadRows("skip"))] == [{"text": "😀"}, None, {"text": "b"}]


@pytest.mark.parametrize(
    ("name", "text", "format"),
    [
        ("a.csv", "text,label\n", "csv"),
        ("a.CSV.gz", "text,label\n", "csv"),
        ("a.tsv", "text\tlabel\n", "tsv"),
        ("a.jsonl.gz", '\n{"text": 1}', "jsonl"),
        ("a.json", '{"text": 1}', "jsonl"),
        ("a.data", '{"text": 1}', "jsonl"),
        ("a", "text, and\tlabel\n", "tsv"),
        ("a", "text,label\n", "csv"),
        ("a.txt", "a text, with a comma\n", "tsv"),
    ],
)
def test_formats_are_found(tmp_path, name, text, format):
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    records.check_readable(str(path))
    assert records.find_format(str(path)) == format


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '[\n{"text": 1}]', r"a\.json:1: .*JSON array; write one object a line"),
        ("a", "[1]", "JSON array"),
        ("a.jsonl", "text,label\n", "pass --format=csv"),
        ("a.csv", '{"text": 1}\n', "pass --format=jsonl"),
        ("a.csv", "text\tlabel\n", "pass --format=tsv"),
        ("a.csv", "\n \n", "is empty"),
    ],
)
def test_a_format_that_the_file_contradicts(tmp_path, name, text, message):
    with pytest.raises(UserError, match=message):
        records.find_format(write(tmp_path / name, text))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"PAR1\x15\x04", "Parquet"),
        (b"PK\x03\x04\x14", "zip archive .*xlsx"),
        (b"\xff\xfea\0", "UTF-16"),
        (b"BZh91AY", "bzip2"),
    ],
)
def test_files_of_other_kinds_are_named(tmp_path, data, message):
    path = tmp_path / "train.csv"
    path.write_bytes(data)
    with pytest.raises(UserError, match=message):
        records.check_readable(str(path))


def test_a_pipe_is_refused(tmp_path):
    """Each look at its beginning would take that away from the rows."""
    os.mkfifo(tmp_path / "pipe.tsv")
    with pytest.raises(UserError, match=r"pipe.tsv is a pipe or a device, .* write it to a file first"):
        records.check_readable(str(tmp_path / "pipe.tsv"))


def test_folders_and_missing_files(tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        records.check_readable(str(tmp_path))
    with pytest.raises(UserError, match="no such file"):
        records.check_readable(str(tmp_path / "none.csv"))
