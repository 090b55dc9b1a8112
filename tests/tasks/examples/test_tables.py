"""Tables to examples: formats, headers, labels of every kind, and every mistake with its file and line."""

import gzip
import json

import pytest

from bert_jax.errors import UserError
from bert_jax.tasks.examples import tables
from bert_jax.tasks.examples.columns import ColumnChoice
from bert_jax.tasks.examples.places import BadRows
from bert_jax.tasks.examples.tables import open_table, read_texts


def write(path, text: str) -> str:
    path.write_bytes(text.encode())
    return str(path)


def read(path: str, policy: str = "fail", **options):
    return list(read_texts(path, bad_rows=BadRows(policy), **options))


def texts_and_labels(path: str, **options):
    return [(example.text, example.label) for example in read(path, **options)]


EXPECTED = [('好的, said "she"', "pos"), ("two", "neg")]


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", 'text,label\n"好的, said ""she""",pos\ntwo,neg\n'),
        ("a.csv", '\ufefftext,label\r\n"好的, said ""she""", pos\r\ntwo,neg\r\n\r\n'),
        ("a.csv", 'text;label\n"好的, said ""she""";pos\ntwo;neg\n'),
        ("a.csv", 'label,id,text\npos,7,"好的, said ""she"""\nneg,8,two'),
        ("a.tsv", 'sentence\tlabel\n好的, said "she"\tpos\ntwo\tneg\n'),
        ("a.tsv", '\ufeffLabel\tSentence\r\npos\t好的, said "she"\r\nneg\ttwo\r\n'),
        ("a.jsonl", '{"text": "好的, said \\"she\\"", "label": "pos"}\n{"label": " neg ", "text": "two", "x": 1}\n'),
        ("a.txt", 'sentence\tlabel\n好的, said "she"\tpos\ntwo\tneg\n'),
    ],
    ids=["csv", "BOM and CRLF", "semicolons", "other order", "tsv", "tsv with BOM and CRLF", "jsonl", "txt"],
)
def test_formats_give_the_same_examples(tmp_path, name, text, compress):
    path = tmp_path / (f"{name}.gz" if compress else name)
    path.write_bytes(gzip.compress(text.encode()) if compress else text.encode())
    assert texts_and_labels(str(path)) == EXPECTED


def test_ids_are_the_files_or_row_numbers(tmp_path):
    assert [e.id for e in read(write(tmp_path / "a.csv", "id,text,label\nx7,a,1\nx9,b,0\n"))] == ["x7", "x9"]
    assert [e.id for e in read(write(tmp_path / "a.jsonl", '{"idx": 4, "text": "a", "label": 0}'))] == ["4"]
    path = write(tmp_path / "b.csv", 'text,label\na,1\n,0\nb,0\n\nc\n"lost,1\nd,1\n')
    bad_rows = BadRows("skip")
    examples = list(read_texts(path, bad_rows=bad_rows))
    # Rows that are left out count, so that an id leads to the row.
    assert [(e.text, e.id, e.place.line) for e in examples] == [("a", "0", 2), ("b", "2", 4), ("d", "6", 8)]
    assert bad_rows.count == 4


def test_pairs(tmp_path):
    path = write(tmp_path / "a.csv", "premise,hypothesis,gold_label\na,b,entailment\n")
    table = open_table(path)
    assert table.is_pair
    (example,) = table.read(BadRows())
    assert (example.text, example.pair, example.label) == ("a", "b", "entailment")
    (example,) = read(path, columns=ColumnChoice(text="hypothesis"))
    assert (example.text, example.pair) == ("b", None)
    (example,) = read(path, columns=ColumnChoice(pair="none", text="premise"))
    assert example.pair is None


def test_what_is_read_is_said(tmp_path):
    path = write(tmp_path / "a.csv", "qid,title,review,stars\n1,t,r,5\n")
    line = open_table(path, kind="float").describe()
    assert line == f"{path}: text from column 'review', label from 'stars' (numbers), id from 'qid'; unused: 'title'"
    path = write(tmp_path / "b.tsv", "pos\ta text\n")
    line = open_table(path, columns=ColumnChoice(text="2", label="1")).describe()
    assert line == (
        f"{path} (no header; the first row is 'pos', 'a text'): text from column 2, label from 1, row numbers as ids"
    )
    path = write(tmp_path / "c.csv", "text,labels\na,x|y\n")
    assert "label from 'labels' (several, between '|')" in open_table(path, kind="multi").describe()


class TestHeaders:
    def test_numbers_read_a_file_without_header(self, tmp_path):
        path = write(tmp_path / "a.csv", "1,good\n0,bad\n")
        for header in ("auto", "no"):
            columns = ColumnChoice(text="2", label="1")
            assert texts_and_labels(path, columns=columns, header=header) == [("good", "1"), ("bad", "0")]

    def test_given_names_show_a_header(self, tmp_path):
        path = write(tmp_path / "a.csv", "Satz,Urteil\ngut,1\n")
        assert texts_and_labels(path, columns=ColumnChoice(text="Satz", label="urteil")) == [("gut", "1")]

    def test_a_first_line_that_may_be_either_is_an_error(self, tmp_path):
        path = write(tmp_path / "a.csv", "good,1\nbad,0\n")
        with pytest.raises(UserError, match=r"a\.csv:1: .* may be a header or a row: 'good', '1'; pass --header=no"):
            open_table(path)
        with pytest.raises(UserError, match=r"no column looks like the text; .*the columns are '1', '2'"):
            open_table(path, header="no")

    def test_commas_in_a_file_that_does_not_say_its_format(self, tmp_path):
        path = write(tmp_path / "a.txt", "text,label\na,1\n")
        with pytest.raises(UserError, match="if commas separate fields, --format=csv"):
            open_table(path)
        assert texts_and_labels(path, format="csv") == [("a", "1")]

    def test_header_yes_and_no_overrule(self, tmp_path):
        path = write(tmp_path / "a.tsv", "text\tlabel\nnews\tother\n")
        columns = ColumnChoice(text="1", label="2")
        assert texts_and_labels(path, columns=columns, header="no") == [("text", "label"), ("news", "other")]
        assert texts_and_labels(path, columns=columns, header="yes") == [("news", "other")]

    def test_lines_to_predict_need_no_header(self, tmp_path):
        path = write(tmp_path / "a.txt", "a text, with commas\nanother\n")
        assert texts_and_labels(path, kind="none") == [("a text, with commas", None), ("another", None)]


class TestLabels:
    def test_names_stay_as_written(self, tmp_path):
        path = write(tmp_path / "a.csv", "text,label\na,1\nb,01\nc,1.0\nd,true\n")
        assert [label for _, label in texts_and_labels(path)] == ["1", "01", "1.0", "true"]

    def test_json_values_become_names(self, tmp_path):
        values = ["1", 1, 1.0, 0.5, True, False]
        path = write(tmp_path / "a.jsonl", "\n".join(json.dumps({"text": "a", "label": value}) for value in values))
        assert [label for _, label in texts_and_labels(path)] == ["1", "1", "1", "0.5", "true", "false"]

    def test_several_labels(self, tmp_path):
        path = write(tmp_path / "a.csv", 'text,labels\na,x|y\nb,\nc,x| x |\nd,"[""p|q"", 3]"\n')
        expected = [("x", "y"), (), ("x",), ("p|q", "3")]
        assert [label for _, label in texts_and_labels(path, kind="multi")] == expected
        path = write(tmp_path / "a.jsonl", '{"text": "a", "labels": "x,y"}\n{"text": "a", "labels": null}')
        assert [label for _, label in texts_and_labels(path, kind="multi", separator=",")] == [("x", "y"), ()]
        path = write(tmp_path / "b.jsonl", '{"text": "a", "labels": ["x", "y"]}\n{"text": "a", "labels": []}')
        assert [label for _, label in texts_and_labels(path, kind="multi")] == [("x", "y"), ()]

    def test_numbers(self, tmp_path):
        path = write(tmp_path / "a.jsonl", '{"text": "a", "score": "2.5"}\n{"text": "a", "score": -3}')
        assert [label for _, label in texts_and_labels(path, kind="float")] == [2.5, -3.0]

    def test_labels_are_not_read_for_prediction(self, tmp_path):
        path = write(tmp_path / "a.csv", "text,label\na,\n")
        assert texts_and_labels(path, kind="none") == [("a", None)]


@pytest.mark.parametrize(
    ("name", "text", "options", "message"),
    [
        ("a.csv", "text,label\na,1\nb,2,3\n", {}, r":3: 3 fields where the header has 2"),
        ("a.csv", "text,label\na,1\nb\n", {}, r":3: 1 field where the header has 2"),
        ("a.csv", "text,label\na,1\n\nb,2\n", {}, r":3: the line is empty"),
        ("a.tsv", "text\tlabel\na\t1\nb\tc\t2\n", {}, r":3: 3 fields .*\(a tab in a text\?\)"),
        ("a.csv", 'text,label\na,1\n"b,1\nc,0\n', {}, r":3: unbalanced quotes"),
        ("a.csv", "text,label\na,1\n  ,1\n", {}, r":3: the text is empty"),
        ("a.csv", "sentence1,sentence2,label\na,b,1\nc,,1\n", {}, r":3: the second text is empty"),
        ("a.csv", "text,label\na,1\nb,\n", {}, r":3: the label is empty"),
        ("a.csv", "id,text,label\n,b,1\n", {}, r":2: the id is empty"),
        ("a.csv", "text,score\na,1.5\nb,high\n", {"kind": "float"}, r":3: the label 'high' is not a finite number"),
        ("a.csv", "text,score\na,nan\n", {"kind": "float"}, r":2: the label 'nan' is not a finite number"),
        ("a.csv", "text,score\na,-inf\n", {"kind": "float"}, r":2: the label '-inf' is not"),
        ("a.csv", "text,score\na,1_000\n", {"kind": "float"}, r":2: the label '1_000' is not"),
        ("a.jsonl", '{"text": "a", "score": NaN}', {"kind": "float"}, r":1: the label nan is not"),
        ("a.jsonl", '{"text": "a", "score": true}', {"kind": "float"}, r":1: the label is true, not a number"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": "b"}', {}, r":2: the key 'label' is missing"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"label": 1}', {}, r":2: the key 'text' is missing"),
        ("a.jsonl", '{"text": 5, "label": 1}', {}, r":1: the text is a number, not a string"),
        ("a.jsonl", '{"text": "a", "label": null}', {}, r":1: the label is empty"),
        ("a.jsonl", '{"text": "a", "label": NaN}', {}, r":1: the label is nan, no name"),
        ("a.jsonl", '{"text": "a", "label": ["x"]}', {}, r":1: the label is a list; .*--labels=multi"),
        ("a.jsonl", '{"text": "a", "label": {}}', {"kind": "multi"}, r":1: the labels are an object"),
        ("a.jsonl", '{"text": "a", "label": "x"}\n[1]', {}, r":2: the line is a list, not a JSON object"),
        ("a.csv", 'text,labels\na,"[x, y]"\n', {"kind": "multi"}, r":2: .* begin like a JSON list"),
        ("a.csv", "sentence1,sentence2,gold_label\na,b,-\n", {}, r":2: there is no gold label"),
    ],
)
def test_bad_rows_are_named_or_left_out(tmp_path, name, text, options, message):
    path = write(tmp_path / name, text)
    with pytest.raises(UserError, match=message) as raised:
        read(path, **options)
    assert "\n" not in str(raised.value)
    bad_rows = BadRows("skip")
    try:
        list(read_texts(path, bad_rows=bad_rows, **options))
    except UserError as error:
        # The bad row was the only one.
        assert "no row can be used; 1 row skipped" in str(error)
    assert bad_rows.count == 1


@pytest.mark.parametrize(
    ("name", "text", "options", "message"),
    [
        ("a.csv", "", {}, "a.csv is empty"),
        ("a.csv", "text,label\n\n", {}, "has a header and no rows"),
        ("a.csv", "text,stuff\na,1\n", {}, r":1: no column looks like the label; .*columns are 'text', 'stuff'"),
        ("a.csv", "label,stuff\n1,a\n", {}, r":1: no column looks like the text; name it with --text_column"),
        ("a.csv", "title,headline,label\na,b,1\n", {}, r":1: the text may be 'title' or 'headline'; say which"),
        ("a.csv", "text,class,category\na,b,1\n", {}, r"the label may be 'class' or 'category'; .*--label_column"),
        ("a.csv", "text,label,text\na,1,b\n", {}, r"the text may be 'text' or 'text'"),
        ("a.csv", 'text,"label\na,1\n', {}, r":1: the first line cannot be read; .*unbalanced quotes"),
        ("a.jsonl", '{"body_text": "a", "label": 1}', {}, r":1: no column looks like the text; .*'body_text', 'label'"),
        ("a.jsonl", "{}\n", {}, "no column looks like the text"),
        ("a.jsonl", '{"text": \n{"text"', {}, "no line is a JSON object; 2 rows skipped"),
        ("a.json", '[{"text": "a"}]', {}, "JSON array"),
        ("a.csv", "text,label\na,1\n", {"columns": ColumnChoice(text="body")}, "no column 'body', which --text_column"),
        ("a.csv", "text,label\na,1\n", {"columns": ColumnChoice(label="text", text="text")}, "chosen for two things"),
        ("a.csv", "text,x,x\na,1,2\n", {"columns": ColumnChoice(label="x")}, "columns 2 and 3 are both called 'x'"),
        ("a.csv", "text,label\na,1\n", {"format": "parquet"}, "--format=parquet: it is one of csv, tsv, jsonl"),
        ("a.csv", "text,label\na,1\n", {"header": "maybe"}, "--header=maybe"),
    ],
)
def test_mistakes_of_the_whole_file(tmp_path, name, text, options, message):
    path = write(tmp_path / name, text)
    with pytest.raises(UserError, match=message) as raised:
        open_table(path, **options)
    assert "\n" not in str(raised.value)


def test_a_table_whose_rows_are_all_bad_is_an_error(tmp_path):
    path = write(tmp_path / "a.csv", "text,label\n,1\n,0\n")
    with pytest.raises(
        UserError, match=r"a\.csv: no row can be used; 2 rows skipped: .*a\.csv:2 \(the text is empty\)"
    ):
        read(path, policy="skip")


def test_a_broken_first_line_of_json_may_be_left_out(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": \n{"text": "a", "label": "x"}')
    assert [e.text for e in read(path, policy="skip")] == ["a"]
    with pytest.raises(UserError, match=":1: the line is no JSON object"):
        read(path)


def test_examples_stream(tmp_path, monkeypatch):
    path = write(tmp_path / "a.tsv", "text\tlabel\n" + "a\t1\n" * 10_000)
    taken = 0

    def counted(path, read_tsv=tables.read_tsv):
        nonlocal taken
        for record in read_tsv(path):
            taken += 1
            yield record

    monkeypatch.setattr(tables, "read_tsv", counted)
    examples = read_texts(path, bad_rows=BadRows())
    next(examples)
    assert taken < 10
    assert sum(1 for _ in examples) == 9_999
