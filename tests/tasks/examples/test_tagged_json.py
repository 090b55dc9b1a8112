"""JSON lines of tagged sentences, in all layouts; and the words of raw text."""

import json

import pytest

from bert_jax.errors import UserError
from bert_jax.tasks.examples.basic_words import split_words
from bert_jax.tasks.examples.places import BadRows
from bert_jax.tasks.examples.tagged_files import open_tagged
from bert_jax.tasks.examples.tagged_json import TaggedJsonFile


@pytest.fixture
def written(tmp_path):
    def write(*rows):
        path = tmp_path / "tags.json"
        lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return str(path)

    return write


def read(path, **options):
    return list(TaggedJsonFile(path, BadRows(), **options))


def test_cluener(written):
    row = {"text": "在北京的CSOL 2玩家，", "label": {"game": {"CSOL 2": [[4, 9]]}, "address": {"北京": [[1, 2]]}}}
    example = read(written(row))[0]
    assert example.words == ("在", "北", "京", "的", "CSOL", "2", "玩", "家", "，")
    assert example.tags == ("O", "B-address", "I-address", "O", "B-game", "I-game", "O", "O", "O")
    assert [example.text[start:end] for start, end in example.word_spans] == list(example.words)


@pytest.mark.parametrize("key", ["entities", "spans"])
@pytest.mark.parametrize("as_list", [False, True])
def test_spans_whose_end_is_outside(written, key, as_list):
    text = "Ann Lee's café, in New York."
    spans = [(19, 27, "LOC"), (0, 7, "PER")]
    entries = [list(s) if as_list else {"start": s[0], "end": s[1], "label": s[2]} for s in spans]
    example = read(written({"id": 7, "text": text, key: entries}))[0]
    assert example.id == "7"
    assert example.words == ("Ann", "Lee", "'", "s", "café", ",", "in", "New", "York", ".")
    assert example.tags == ("B-PER", "I-PER", "O", "O", "O", "O", "O", "B-LOC", "I-LOC", "O")


@pytest.mark.parametrize("tags_key", ["tags", "ner_tags", "labels"])
@pytest.mark.parametrize("words_key", ["tokens", "words"])
def test_lists_of_words_and_tags(written, words_key, tags_key):
    path = written({words_key: ["Ann", "Lee", "sees"], tags_key: ["B-P", "E-P", "O"]})
    file = open_tagged(path, BadRows())
    assert file.scheme == "BIOES" and "BIOES (found" in file.description
    example = next(iter(file))
    assert (example.words, example.tags) == (("Ann", "Lee", "sees"), ("B-P", "I-P", "O"))
    assert (example.text, example.word_spans) == ("Ann Lee sees", ((0, 3), (4, 7), (8, 12)))


def test_words_are_cut_where_an_entity_ends_inside_and_counted(written):
    file = TaggedJsonFile(written({"text": "the iPhone6s is", "entities": [[4, 10, "BRAND"]]}), BadRows())
    example = next(iter(file))
    assert example.words == ("the", "iPhone", "6s", "is")
    assert example.tags == ("O", "B-BRAND", "O", "O")
    assert file.words_cut == 1


def test_files_to_predict_need_no_tags(written):
    path = written({"text": "见 Ann"}, {"tokens": ["a", "b"]}, {"text": "x y", "entities": "nonsense"})
    examples = read(path, with_tags=False)
    assert [example.words for example in examples] == [("见", "Ann"), ("a", "b"), ("x", "y")]
    assert all(example.tags is None for example in examples)
    assert [example.id for example in examples] == ["0", "1", "2"]


@pytest.mark.parametrize(
    "row, message",
    [
        ({"text": "abc def", "entities": [[0, 3, "A"], [2, 5, "B"]]}, "a A and a B overlap at character 2"),
        ({"text": "abc", "entities": [[1, 4, "A"]]}, "the A at 1 to 4 is outside of the text, which has 3 characters"),
        ({"text": "abc", "entities": [[-1, 2, "A"]]}, "outside of the text"),
        ({"text": "abc", "entities": [[2, 2, "A"]]}, "outside of the text"),
        ({"text": "abc", "label": {"A": {"b": [[0, 0]]}}}, "the A 'b' is not what the text has at 0: 'a'"),
        ({"text": "abc", "label": {"A": {"b": [1]}}}, "are no [first, last]"),
        ({"text": "abc", "label": {"A": ["b"]}}, "no object of surfaces"),
        ({"text": "abc", "entities": [{"start": 0, "label": "A"}]}, "has not start, end and label"),
        ({"text": "abc", "entities": [[0, "1", "A"]]}, "'1' is no whole number"),
        ({"text": "a  b", "entities": [[1, 3, "A"]]}, "holds no word"),
        ({"text": "abc"}, "there are no tags"),
        ({"text": "  ", "entities": []}, "the text is empty"),
        ({"id": 1}, "neither 'text' nor a list"),
        ({"tokens": ["a", "b"], "tags": ["O"]}, "2 words and 1 tags"),
        ({"tokens": ["a", ""], "tags": ["O", "O"]}, "word 1 of 'tokens'"),
        ({"tokens": ["a"], "ner_tags": [0]}, "write the tags' names for their numbers"),
        ({"tokens": ["a"], "tags": ["I-X"]}, "the tag 'I-X' begins the sentence"),
        ({"tokens": [], "tags": []}, "'tokens' is empty"),
        ("[1, 2]", "a list, not a JSON object"),
        ("{", "no JSON object ("),
        ('{"text": "\\ud83d", "entities": []}', "half of a character"),
        ({"id": None, "tokens": ["a"], "tags": ["O"]}, "the id is null"),
    ],
)
def test_bad_lines_are_named_or_counted(written, row, message):
    good = {"tokens": ["a", "b"], "tags": ["B-X", "I-X"]}
    path = written(good, row, good)
    with pytest.raises(UserError) as raised:
        read(path)
    assert "tags.json:2: " in str(raised.value) and message in str(raised.value)
    bad = BadRows("skip")
    assert [example.id for example in TaggedJsonFile(path, bad)] == ["0", "2"]
    assert bad.count == 1


def test_an_empty_file(written):
    with pytest.raises(UserError, match=r"tags.json is empty"):
        TaggedJsonFile(written(), BadRows())


def test_words_of_raw_text():
    text = "Hello, wörld! 北京C3 $5 हिन्दी cafe\u0301 don't a\u3000b 👍🏽x"
    words = [text[start:end] for start, end in split_words(text)]
    assert words == (
        [
            "Hello",
            ",",
            "wörld",
            "!",
            "北",
            "京",
            "C3",
            "$",
            "5",
            "हिन्दी",
            "cafe\u0301",
            "don",
            "'",
            "t",
            "a",
            "b",
            "👍🏽x",
        ]
    )
    assert split_words("ab cd", {1, 2, 4}) == [(0, 1), (1, 2), (3, 4), (4, 5)]


def test_real_files(shared_data):
    """One line of the real file has entities that overlap."""
    for name, count, skipped in (("train", 10748, 1), ("dev", 1343, 0)):
        bad = BadRows("skip")
        examples = list(open_tagged(str(shared_data / "tasks" / "cluener" / f"{name}.json"), bad))
        assert (len(examples), bad.count) == (count - skipped, skipped)
        assert all(any(tag != "O" for tag in example.tags) for example in examples[:100])
