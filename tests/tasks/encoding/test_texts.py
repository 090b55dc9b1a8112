"""Texts and pairs as rows: special tokens, what is kept of long texts, windows, markers."""

import pytest

from bert_jax.errors import UserError
from bert_jax.tasks.encoding.texts import LONG_TEXTS, TextEncoder, windows
from bert_jax.tasks.examples.example_types import TextExample
from bert_jax.tasks.examples.places import Place
from bert_jax.text.wordpiece import WordPieceTokenizer

_WORDS = [f"w{number}" for number in range(30)]


@pytest.fixture(scope="module")
def tokenizer():
    return WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[E1]", "[/E1]", *_WORDS], cased=True)


def example(first, second=None):
    def text(numbers):
        return " ".join(f"w{number}" for number in numbers)

    return TextExample(text(first), None if second is None else text(second), None, "0", Place("file", 1))


def rows_of(tokenizer, given, size, way="head", markers=()):
    encoder = TextEncoder(tokenizer, size, way, markers)
    ((_, rows),) = encoder.encode([given])
    return [[tokenizer.id_to_token(token) for token in row.tokens] for row in rows], rows, encoder.count


def words(*numbers):
    return [f"w{number}" for number in numbers]


def test_a_text_and_a_pair(tokenizer):
    tokens, rows, _ = rows_of(tokenizer, example([1, 2]), 8)
    assert tokens == [["[CLS]", "w1", "w2", "[SEP]"]] and rows[0].first_length == 4
    tokens, rows, _ = rows_of(tokenizer, example([1, 2], [3]), 8)
    assert tokens == [["[CLS]", "w1", "w2", "[SEP]", "w3", "[SEP]"]] and rows[0].first_length == 4


@pytest.mark.parametrize(
    ("way", "kept"),
    [
        ("head", words(0, 1, 2, 3, 4, 5, 6, 7)),
        ("tail", words(12, 13, 14, 15, 16, 17, 18, 19)),
        ("head_and_tail", words(0, 1, 14, 15, 16, 17, 18, 19)),
    ],
)
def test_a_long_text_is_cut(tokenizer, way, kept):
    tokens, _, count = rows_of(tokenizer, example(range(20)), 10, way)
    assert tokens == [["[CLS]", *kept, "[SEP]"]]
    assert (count.texts, count.long, count.longest) == (1, 1, 22)
    assert count.report(10, way).startswith("1 of 1 texts are longer than 10 tokens (the longest 22); ")


def test_windows_hold_every_token(tokenizer):
    tokens, rows, _ = rows_of(tokenizer, example(range(20)), 10, "windows")
    assert all(len(row) == 10 for row in tokens) and [row.example for row in rows] == [0] * len(rows)
    assert {token for row in tokens for token in row} >= set(words(*range(20)))
    assert windows(list(range(7)), 7) == [list(range(7))]
    assert windows(list(range(8)), 4) == [[0, 1, 2, 3], [3, 4, 5, 6], [4, 5, 6, 7]]


@pytest.mark.parametrize("way", LONG_TEXTS)
@pytest.mark.parametrize(("first", "second"), [(20, 3), (3, 20), (20, 20), (9, 8)])
def test_of_a_pair_the_longer_gives_up_tokens_first(tokenizer, way, first, second):
    tokens, rows, _ = rows_of(tokenizer, example(range(first), range(second)), 13, way)
    for row, tokens_of_row in zip(rows, tokens, strict=True):
        kept_first, kept_second = row.first_length - 2, len(row.tokens) - row.first_length - 1
        assert len(tokens_of_row) == 13 and kept_first + kept_second == 10
        # As if one token after the other were taken from the longer one.
        assert (kept_first, kept_second) == {(20, 3): (7, 3), (3, 20): (3, 7)}.get((first, second), (5, 5))


def test_markers_are_one_token_each(tokenizer):
    given = TextExample("w1 [E1]w2[/E1] w3", None, None, "0", Place("file", 1))
    tokens, _, _ = rows_of(tokenizer, given, 20, markers=("[E1]", "[/E1]"))
    assert tokens == [["[CLS]", "w1", "[E1]", "w2", "[/E1]", "w3", "[SEP]"]]
    assert "[E1]" not in rows_of(tokenizer, given, 20)[0][0]
    with pytest.raises(UserError, match=r"no \[E2\]"):
        TextEncoder(tokenizer, 20, markers=("[E2]",))


def test_an_unknown_way(tokenizer):
    with pytest.raises(UserError, match="one of head, tail, head_and_tail, windows, not 'middle'"):
        TextEncoder(tokenizer, 20, "middle")
