"""Each format's reader, and how formats are told apart."""

import json
import os
import pathlib
import random

import pytest

from bert_jax.errors import UserError
from bert_jax.text import documents, formats
from bert_jax.text.passage import LONGEST_PASSAGE, Passage, cut_text

SHARED = pathlib.Path(
    os.environ.get("BERT_JAX_SHARED") or pathlib.Path(__file__).resolve().parents[2].parent / "shared"
)

PLAIN = """CHAPTER I

It was the best of times, it was the worst of times, it was
the age of wisdom, it was the age of foolishness. There were
a king with a large jaw
and a queen.


  Second paragraph, which is
  indented throughout.
"""
SENTENCES = "The cat sat on the mat.\nIt was warm there.\nNobody minded!\n\nA second document.\nIt has two lines.\n"
WIKI = """<doc id="12" url="?curid=12" title="Anarchism">
Anarchism

Anarchism is a political philosophy &amp; movement.
History.
It began long ago. It went on.

</doc>
<doc id="13" url="?curid=13" title="Empty">
Empty


</doc>
<doc id="14" url="?curid=14" title="Last">
Last

The last article.
</doc>
"""
JSON_LINES = (
    json.dumps({"id": 1, "title": "T", "text": "First line.\nSecond line.\n\nWrapped\ntext."})
    + "\n\n"
    + json.dumps({"text": "中文。"})
    + "\n"
    + json.dumps({"text": "  "})
    + "\n"
)


def write(tmp_path, content: str, name: str = "file") -> str:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (PLAIN, "plain"),
        (SENTENCES, "sentences"),
        ("\n\n" + SENTENCES, "sentences"),
        (SENTENCES.replace("\n", "\n\n"), "sentences"),
        ("我们去北京。\n天气很好。\n\n他说：“好！”\n", "sentences"),
        ("First one. Then another. And so on.\n\nAgain two sentences. Here they are.\n", "plain"),
        ("no punctuation at all\nin these lines\n", "plain"),
        (WIKI, "wikiextractor"),
        (JSON_LINES, "jsonl"),
        ('{"text": "damaged\n', "jsonl"),
        ("{curly} braces open this text.\nIt goes on here and\nthere", "plain"),
        ("", "plain"),
    ],
)
def test_format_is_recognised(tmp_path, content, expected):
    path = write(tmp_path, content)
    assert formats.detect_format(path) == expected
    assert documents.describe_inputs(path) == f"1 file, format {expected}"


def test_long_first_json_line_is_recognised(tmp_path):
    assert formats.detect_format(write(tmp_path, json.dumps({"text": "long " * 50_000}))) == "jsonl"


def test_plain_text_joins_wrapped_lines(tmp_path):
    path = write(tmp_path, PLAIN)
    texts = [passage.text for passage in formats.read_plain(path)]
    assert texts == [
        "CHAPTER I",
        "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness."
        " There were a king with a large jaw and a queen.",
        "Second paragraph, which is indented throughout.",
    ]
    assert {passage.document_id for passage in formats.read_plain(path)} == {path}
    assert not any(passage.is_sentence for passage in formats.read_plain(path))


def test_lines_that_are_paragraphs_are_not_joined():
    assert list(formats.split_paragraphs("One line ends.\nAnother one too.\n")) == [
        "One line ends.",
        "Another one too.",
    ]
    long_line = "word " * 80
    assert list(formats.split_paragraphs(f"Heading\n{long_line}")) == ["Heading", long_line.strip()]


def test_wrapped_chinese_lines_are_joined_without_a_space():
    assert list(formats.split_paragraphs("我们今天\n去北京，\n看看")) == ["我们今天去北京，看看"]


def test_plain_text_does_not_depend_on_blocks(tmp_path, monkeypatch):
    generator = random.Random(3)
    words = ["alpha", "beta.", "é", "中文", "\n", "\n\n", " \n \n", "gamma"]
    path = write(tmp_path, " ".join(generator.choice(words) for _ in range(3000)))
    whole = list(formats.read_plain(path))
    monkeypatch.setattr("bert_jax.text.files._BLOCK_BYTES", 7)
    assert list(formats.read_plain(path)) == whole
    assert len(whole) > 100


def test_sentences_and_documents(tmp_path):
    path = write(tmp_path, "\n\n" + SENTENCES.replace("\n\n", "\n \n\n"))
    assert list(formats.read_sentences(path)) == [
        Passage(f"{path}#1", "The cat sat on the mat.", True),
        Passage(f"{path}#1", "It was warm there.", True),
        Passage(f"{path}#1", "Nobody minded!", True),
        Passage(f"{path}#2", "A second document.", True),
        Passage(f"{path}#2", "It has two lines.", True),
    ]


def test_json_lines(tmp_path):
    path = write(tmp_path, JSON_LINES)
    assert list(formats.read_json_lines(path)) == [
        Passage(f"{path}:1", "First line.", False),
        Passage(f"{path}:1", "Second line.", False),
        Passage(f"{path}:1", "Wrapped text.", False),
        Passage(f"{path}:3", "中文。", False),
    ]


def test_lone_surrogate_of_json_can_be_encoded(tmp_path):
    path = write(tmp_path, r'{"text": "a 中 \ud83d b \ud83d\ude00"}')
    (passage,) = formats.read_json_lines(path)
    assert passage.text == "a 中 ? b \U0001f600"


@pytest.mark.parametrize("line", ['{"text": "cut', "[1, 2]", '{"body": "x"}', '{"text": 3}', "words", "[" * 100_000])
def test_bad_json_names_file_and_line(tmp_path, line):
    path = write(tmp_path, '{"text": "fine"}\n\n' + line + "\n", "dump.jsonl")
    with pytest.raises(UserError, match=r"dump\.jsonl:3: no "):
        list(formats.read_json_lines(path))


def test_wikiextractor(tmp_path):
    path = write(tmp_path, WIKI)
    assert list(formats.read_wikiextractor(path)) == [
        Passage(f"{path}#1", "Anarchism is a political philosophy & movement.", False),
        Passage(f"{path}#1", "History.", False),
        Passage(f"{path}#1", "It began long ago. It went on.", False),
        Passage(f"{path}#3", "The last article.", False),
    ]


def test_text_outside_articles_names_the_line(tmp_path):
    path = write(tmp_path, WIKI + "stray\n", "wiki_00")
    with pytest.raises(UserError, match=r"wiki_00:19: text outside"):
        list(formats.read_wikiextractor(path))


def test_over_long_text_is_cut_after_sentences():
    text = "A short sentence here. " * 200
    parts = list(cut_text(text, 100))
    assert all(len(part) <= 100 and part.endswith(".") for part in parts)
    assert " ".join(parts) == text.strip()
    assert "".join(cut_text("x" * 1050, 100)) == "x" * 1050
    assert list(cut_text("短句。" * 8, 13)) == ["短句。短句。短句。短句。"] * 2


@pytest.mark.parametrize("name", list(formats.READERS))
def test_no_reader_yields_an_over_long_or_empty_passage(tmp_path, name):
    text = "Many words without any line end. " * (LONGEST_PASSAGE // 10)
    content = {"jsonl": json.dumps({"text": text}), "wikiextractor": f'<doc id="1">\nTitle\n{text}\n</doc>'}
    passages = list(formats.READERS[name](write(tmp_path, content.get(name, text))))
    assert len(passages) >= 4
    assert all(0 < len(passage.text) <= LONGEST_PASSAGE for passage in passages)
    assert len({passage.document_id for passage in passages}) == 1
    assert " ".join(passage.text for passage in passages) == text.strip()


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [("wiki_en/wiki_00.gz", "wikiextractor"), ("books", "plain"), ("wiki_zh.jsonl.gz", "jsonl")],
)
def test_real_corpora_are_recognised(inputs, expected):
    path = SHARED / "data" / "corpora" / inputs
    if not path.exists():
        pytest.skip(f"{path} is not here")
    assert documents.describe_inputs(str(path)).endswith(f"format {expected}")
