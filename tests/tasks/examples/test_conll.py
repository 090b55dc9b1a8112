"""Files of columns: what is a sentence, a comment, a mistake."""

import gzip

import pytest

from bert_jax.errors import UserError
from bert_jax.tasks.examples.conll import ColumnFile, Columns
from bert_jax.tasks.examples.places import BadRows
from bert_jax.tasks.examples.tagged_files import open_tagged
from bert_jax.tasks.examples.tagged_json import TaggedJsonFile

CONLL2003 = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O
German JJ B-NP B-MISC

-DOCSTART- -X- -X- O

Peter NNP B-NP B-PER
Blackburn NNP I-NP I-PER


Brussels NNP B-NP B-LOC
"""


@pytest.fixture
def written(tmp_path):
    def write(content, name="tags.txt"):
        path = tmp_path / name
        data = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return str(path)

    return write


def read(path, policy="fail", **options):
    return list(ColumnFile(path, BadRows(policy), **options))


@pytest.mark.parametrize(
    "content, name",
    [
        (CONLL2003, "tags.txt"),
        (CONLL2003, "tags.txt.gz"),
        (CONLL2003.replace("\n", "\r\n"), "tags.txt"),
        (b"\xef\xbb\xbf" + CONLL2003.encode(), "tags.txt"),
        (CONLL2003.replace(" ", "\t"), "tags.txt"),
        (CONLL2003.rstrip("\n"), "tags.txt"),
        (CONLL2003.replace("\n\n", "\n \t\n"), "tags.txt"),
    ],
    ids=["plain", "gzip", "crlf", "bom", "tabs", "no last line feed", "spaces in blank lines"],
)
def test_sentences_of_conll_2003(written, content, name):
    first, second, third = read(written(content, name))
    assert first.words == ("EU", "rejects", "German")
    assert first.tags == ("B-ORG", "O", "B-MISC")
    assert first.text == "EU rejects German"
    assert [first.text[start:end] for start, end in first.word_spans] == list(first.words)
    assert (second.words, second.tags) == (("Peter", "Blackburn"), ("B-PER", "I-PER"))
    assert [example.id for example in (first, second, third)] == ["0", "1", "2"]
    assert [example.place.line for example in (first, second, third)] == [3, 9, 13]


def test_columns_by_number_and_how_the_file_is_read_is_said(written):
    path = written("1 Ann B-PER x\n2 sees O y\n")
    file = ColumnFile(path, BadRows(), columns=Columns(word=2, tag=3))
    assert [(e.words, e.tags) for e in file] == [(("Ann", "sees"), ("B-PER", "O"))]
    assert file.description == (
        f"{path}: 4 columns, the word is column 2, the tag is column 3, its scheme is IOB2"
        " (found by looking at all tags)"
    )
    for columns in (Columns(word=5), Columns(tag=9)):
        with pytest.raises(UserError, match=r"tags.txt has no column"):
            ColumnFile(path, BadRows(), columns=columns)


@pytest.mark.parametrize(
    "content, scheme",
    [
        ("Ann I-PER\nLee I-PER\nBob B-PER\n", "IOB1"),
        ("Ann B-PER\nLee I-PER\nBob B-PER\n", "IOB2"),
        ("Ann B-PER\nLee E-PER\nBob S-PER\n", "BIOES"),
        ("Ann B-PER\nLee M-PER\nLi E-PER\n\nBob S-PER\n", "BMES"),
    ],
)
def test_every_scheme_becomes_iob2(written, content, scheme):
    file = ColumnFile(written(content), BadRows())
    assert file.scheme == scheme
    tags = [tag for example in file for tag in example.tags]
    assert tags == (["B-PER", "I-PER", "I-PER", "B-PER"] if scheme == "BMES" else ["B-PER", "I-PER", "B-PER"])


def test_a_given_scheme_is_not_looked_for(written):
    path = written("Ann I-PER\n")
    assert read(path, scheme="iob1")[0].tags == ("B-PER",)
    with pytest.raises(UserError, match=r"tags.txt:1: the tag 'I-PER' begins the sentence"):
        read(path, scheme="IOB2")


@pytest.mark.parametrize(
    "content, message",
    [
        ("a x B-PER\nb O\n", "tags.txt:2: the line has 2 columns, not 3"),
        ("a B-PER\n\nb O\nc I-PER\n", "tags.txt:4: the tag 'I-PER' follows 'O'"),
        ("a B-PER\n\nb I-PER\n", "tags.txt:3: the tag 'I-PER' begins the sentence"),
        ("a B-PER\nb PER\n", "tags.txt:2: 'PER' is no tag of IOB2"),
        ("a B-PER\nb NNP\n", "tags.txt:2: 'NNP' is no tag of IOB2"),
        ("a\tB-PER\n\tO\n", "tags.txt:2: the word is empty"),
    ],
)
def test_the_line_of_a_mistake_is_named(written, content, message):
    with pytest.raises(UserError) as raised:
        read(written(content))
    assert message in str(raised.value)
    assert "--on_bad_row=skip" in str(raised.value)


def test_whole_sentences_on_lines_are_not_cut_into_columns(written):
    """Their first words alone would be tagged, the first of each line."""
    with pytest.raises(UserError, match=r"tags.txt:2: the line has 4 columns, not 5 \(a word on each line;"):
        read(written("just a line of text\nand one more line\n"), with_tags=False)
    with pytest.raises(UserError, match=r"tags.txt has one line of 4 words or columns: write a word on each line"):
        read(written("bob lives in kala\n"), with_tags=False)
    assert [example.words for example in read(written("bob\n"), with_tags=False)] == [("bob",)]


def test_only_the_sentence_with_the_mistake_is_left_out(written):
    bad = BadRows("skip")
    examples = list(ColumnFile(written("a B-X\n\nb O\nc I-X\nd O\n\ne O\n"), bad))
    assert [(example.id, example.words) for example in examples] == [("0", ("a",)), ("2", ("e",))]
    assert bad.count == 1
    assert "tags.txt:4" in bad.report()[0]


def test_comments_and_words_that_look_like_them(written):
    text = "# sent_id = 1\nAnn\tB-PER\n#\tO\n\n# id 2 of 3\n#\tO\nBob\tB-PER\n"
    assert [example.words for example in read(written(text))] == [("Ann", "#"), ("#", "Bob")]


def test_other_spaces_are_words(written):
    assert read(written("a\u3000b O\n\xa0 O\n"))[0].words == ("a\u3000b", "\xa0")


def test_files_to_predict_need_no_tags(written):
    for content in ("Ann\nsees\n\nBob\n", "Ann nonsense\nsees I-PER\n\nBob B-\n"):
        examples = read(written(content), with_tags=False)
        assert [(example.words, example.tags) for example in examples] == [(("Ann", "sees"), None), (("Bob",), None)]


def test_sentences_know_their_document(written):
    examples = list(ColumnFile(written(CONLL2003), BadRows("fail")))
    assert [example.document for example in examples] == [0, 1, 1]
    without = "".join(line for line in CONLL2003.splitlines(keepends=True) if "DOCSTART" not in line)
    assert [example.document for example in ColumnFile(written(without), BadRows("fail"))] == [None] * 3


@pytest.mark.parametrize("content", ["", "\n\n", "-DOCSTART- -X- O\n\n"])
def test_a_file_without_sentences(written, content):
    with pytest.raises(UserError, match=r"tags.txt has no sentences"):
        ColumnFile(written(content), BadRows("skip"))


def test_one_column_is_not_enough_to_learn(written):
    with pytest.raises(UserError, match="the word and the tag are both column 1 of 1"):
        ColumnFile(written("Ann\nsees\n"), BadRows("skip"))


@pytest.mark.parametrize(
    "first, is_json",
    [
        ('{"tokens": ["a"], "tags": ["O"]}', True),
        ("{ O", False),
        ('[{"tokens": []}]', True),
        ("[ O", False),
        ("a O", False),
    ],
)
def test_the_kind_of_file_is_found(written, first, is_json):
    path = written(first + "\n")
    if first.startswith("[{"):
        with pytest.raises(UserError, match="one JSON array"):
            open_tagged(path, BadRows())
    else:
        assert isinstance(open_tagged(path, BadRows()), TaggedJsonFile if is_json else ColumnFile)
    with pytest.raises(UserError, match="'xml'"):
        open_tagged(path, BadRows(), format="xml")


def test_real_files(shared_data):
    for name, count in (("eng.train", 14041), ("eng.testa", 3250), ("eng.testb", 3453)):
        file = open_tagged(str(shared_data / "tasks" / "conll2003" / name), BadRows())
        assert file.scheme == "IOB2"
        assert sum(1 for _ in file) == count
