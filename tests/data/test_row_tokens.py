"""Tokens read back from rows: those that were written, spread over a large split, and damage in a line."""

import pathlib
import types

import numpy as np
import pytest

from bert_jax.data.row_tokens import read_tokens
from bert_jax.data.row_writer import serialize_row
from bert_jax.errors import DataError


class Rows:
    """The part of a row store that is read here, in memory; rows of one or two pairs of texts."""

    directory, vocab_size, recipe = pathlib.Path("rows"), 100, types.SimpleNamespace(seq_len=10)

    def __init__(self, rows):
        self.rows = rows

    def num_rows(self, split):
        assert split == "train"
        return len(self.rows)

    def read(self, split, indices):
        assert split == "train"
        return [self.rows[index] for index in indices]


def make_row(*pairs):
    ids = np.array([token for pair in pairs for text in pair for token in text])
    first, second = ([len(pair[part]) for pair in pairs] for part in (0, 1))
    return serialize_row(ids, list(range(len(pairs))), first, second, [0] * len(pairs))


def test_the_tokens_are_those_that_were_written_and_know_their_pair():
    rows = [make_row(([2, 9, 3], [8, 3]), ([2, 7, 3], [])), make_row(([2, 5, 6, 3], [4, 3]))]
    ids, pairs = read_tokens(Rows(rows), "train", 10**6)
    assert ids.tolist() == [2, 9, 3, 8, 3, 2, 7, 3, 2, 5, 6, 3, 4, 3]
    assert pairs.tolist() == [0] * 5 + [1] * 3 + [2] * 6


def test_of_many_rows_some_are_read_all_over_the_split():
    rows = [make_row(([2, 10 + number, 3], [])) for number in range(80)]
    ids, pairs = read_tokens(Rows(rows), "train", 200)
    assert ids[1::3].tolist() == list(range(10, 90, 4)) and pairs.max() == 19


def test_no_rows_are_no_tokens():
    ids, pairs = read_tokens(Rows([]), "train", 200)
    assert ids.shape == pairs.shape == (0,)


@pytest.mark.parametrize(
    "row",
    [b"\xff\xff", make_row(([2, 100, 3], [])), serialize_row(np.array([2, 5, 3]), [0], [2], [0], [0])],
    ids=["bytes", "vocabulary", "lengths"],
)
def test_damage_is_said_in_a_line(row):
    with pytest.raises(DataError, match="a row of the split train is not as") as error:
        read_tokens(Rows([make_row(([2, 9, 3], [])), row]), "train", 200)
    assert "\n" not in str(error.value)
