"""Rows of a stream in chunks: those of the whole, numbered anew, with the neighbours that a chunk's edge would hide."""

import numpy as np
import pytest

from bert_jax.tasks.encoding.encoded_rows import EncodedRows
from bert_jax.tasks.encoding.example_encoder import encode_all, encode_in_chunks
from bert_jax.tasks.encoding.texts import WINDOWS, TextEncoder
from bert_jax.tasks.encoding.words import WordEncoder
from bert_jax.tasks.examples.conll import joined
from bert_jax.tasks.examples.example_types import TaggedExample, TextExample
from bert_jax.tasks.examples.places import Place

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def rows_of(rows: EncodedRows) -> list[list[int]]:
    return [rows.tokens[first:last].tolist() for first, last in zip(rows.offsets[:-1], rows.offsets[1:], strict=True)]


def sentences():
    for number, letter in enumerate(LETTERS):
        text, spans = joined([letter])
        yield TaggedExample((letter,), None, text, spans, str(number), Place("new.txt", number + 1), document=0)


@pytest.mark.parametrize("size", [1, 4, 100])
def test_chunks_show_the_neighbours_that_the_whole_shows(letter_tokenizer, size):
    whole = encode_all(WordEncoder(letter_tokenizer, 12, context_len=3), sentences())
    assert len(rows_of(whole)[10]) == 2 + 7
    chunks = list(encode_in_chunks(WordEncoder(letter_tokenizer, 12, context_len=3), sentences(), size))
    assert [tokens for _, rows in chunks for tokens in rows_of(rows)] == rows_of(whole)
    for examples, rows in chunks:
        assert rows.examples.tolist() == list(range(len(examples)))


def test_windows_count_from_each_chunk_on(letter_tokenizer):
    texts = [TextExample(" ".join(LETTERS[:n]), None, None, str(n), Place("new.txt", n)) for n in (3, 20, 1, 26, 9)]
    encoder = TextEncoder(letter_tokenizer, 8, WINDOWS)
    chunks = list(encode_in_chunks(encoder, iter(texts), 2))
    assert [len(examples) for examples, _ in chunks] == [2, 2, 1]
    assert [np.unique(rows.examples).tolist() for _, rows in chunks] == [[0, 1], [0, 1], [0]]
    assert "3 of 5 texts are longer than 8 tokens" in encoder.report()[0]


def test_no_more_is_read_than_the_chunk_at_hand_needs(letter_tokenizer):
    def endless():
        while True:
            yield from sentences()

    examples, rows = next(encode_in_chunks(WordEncoder(letter_tokenizer, 12), endless(), 30))
    assert len(examples) == len(rows) == 30
