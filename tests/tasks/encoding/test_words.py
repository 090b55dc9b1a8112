"""Sentences as rows: every word predicted once, in its best window, at its first piece."""

import dataclasses

import numpy as np
import pytest

from bert_jax.errors import UserError
from bert_jax.tasks.encoding import words as encoding
from bert_jax.tasks.encoding.encoded_rows import NO_LABEL, EncodedRows
from bert_jax.tasks.encoding.words import (
    LABELS,
    WORDS,
    WordEncoder,
    gather_words,
    tag_names,
    tagging_prediction,
    word_windows,
)
from bert_jax.tasks.examples.conll import joined
from bert_jax.tasks.examples.example_types import TaggedExample
from bert_jax.tasks.examples.places import BadRows, Place
from bert_jax.tasks.examples.tagged_files import open_tagged
from bert_jax.text.sentencepiece import WORD_START
from bert_jax.text.tokenizers import train_tokenizer
from bert_jax.text.wordpiece import WordPieceTokenizer

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh", *(f"##{letter}" for letter in "abcdefgh")]


@pytest.fixture(scope="module")
def letters():
    """A tokenizer that cuts words into letters."""
    return WordPieceTokenizer(TOKENS, cased=False)


def sentence(words, tags=None):
    words = tuple(words.split())
    text, spans = joined(words)
    return TaggedExample(words, tuple(tags.split()) if tags else None, text, spans, "7", Place("dev.txt", 3))


def labels_of(rows):
    """What a model that is always right would say of every row."""
    return np.split(rows.token_targets[LABELS], rows.offsets[1:-1])


def test_the_label_is_on_the_first_piece(letters):
    encoder = WordEncoder(letters, 16, ["O", "B-X", "I-X"])
    ((_, (row,)),) = encoder.encode([sentence("abc d ef", "B-X I-X O")])
    assert " ".join(map(letters.id_to_token, row.tokens)) == "[CLS] a ##b ##c d e ##f [SEP]"
    assert row.token_targets[LABELS].tolist() == [-1, 1, -1, -1, 2, 0, -1, -1]
    assert row.token_targets[WORDS].tolist() == [-1, 0, -1, -1, 1, 2, -1, -1]
    assert row.first_length == 8 and row.example == 0
    batch = EncodedRows.of([row]).batch(np.array([0]), 10)
    assert batch[LABELS][0].tolist() == [-1, 1, -1, -1, 2, 0, -1, -1, -1, -1]


def in_documents(*documents):
    """Sentences of words, document after document."""
    return [
        dataclasses.replace(sentence(words, " ".join("O" for _ in words.split())), document=number)
        for number, texts in enumerate(documents)
        for words in texts
    ]


def rows_in_context(letters, examples, max_seq_len, context_len):
    encoder = WordEncoder(letters, max_seq_len, ["O", "B-X"], context_len)
    rows = [row for _, rows in encoder.encode(examples) for row in rows]
    shown = [" ".join(map(letters.id_to_token, row.tokens)).replace(" ##", "") for row in rows]
    return rows, shown


@pytest.mark.parametrize("batch", [2, 512])
def test_the_neighbours_of_a_sentence_are_read_and_not_predicted(letters, batch, monkeypatch):
    monkeypatch.setattr(encoding, "_BATCH", batch)
    examples = in_documents(["a b c", "d e", "f g h a"], ["b", "c d"])
    rows, shown = rows_in_context(letters, examples, 16, 2)
    assert shown == [
        "[CLS] a b c d e [SEP]",
        "[CLS] b c d e f g [SEP]",
        "[CLS] d e f g h a [SEP]",
        "[CLS] b c d [SEP]",
        "[CLS] b c d [SEP]",
    ]
    assert rows[1].token_targets[LABELS].tolist() == [-1, -1, -1, 0, 0, -1, -1, -1]
    assert rows[1].token_targets[WORDS].tolist() == [-1, -1, -1, 0, 1, -1, -1, -1]
    # Through several sentences, as far as the document goes.
    assert rows_in_context(letters, examples, 16, 5)[1][2] == "[CLS] a b c d e f g h a [SEP]"
    assert rows_in_context(letters, examples, 16, 0)[1][1] == "[CLS] d e [SEP]"
    alone = [dataclasses.replace(example, document=None) for example in examples]
    assert rows_in_context(letters, alone, 16, 2)[1][1] == "[CLS] d e [SEP]"


@pytest.mark.parametrize("context_len", [1, 2, 3, 7, 50])
def test_what_is_around_a_sentence_leaves_the_row_its_length(letters, context_len):
    texts = ["abc d", "e", "f g h a b c", "abcdefgh a b", "d " * 23, "e f"]
    examples = in_documents(texts, texts[::-1])
    for max_seq_len in (8, 9, 12, 24):
        rows, _ = rows_in_context(letters, examples, max_seq_len, context_len)
        bare, _ = rows_in_context(letters, examples, max_seq_len, 0)
        assert max(len(row.tokens) for row in rows) <= max_seq_len and len(rows) == len(bare)
        for row, without in zip(rows, bare, strict=True):
            words = row.token_targets[WORDS]
            assert words[words >= 0].tolist() == [word for word in without.token_targets[WORDS] if word >= 0]
            inner = without.tokens[1:-1]
            places = [at for at in range(len(row.tokens)) if row.tokens[at : at + len(inner)] == inner]
            assert len(row.tokens) - len(without.tokens) <= 2 * context_len and places
        # The first sentence has nothing before it, and 42 pieces after it: what one side does not need, the other gets.
        assert len(rows[0].tokens) == min(max_seq_len, 6 + min(context_len, 42))


def test_a_word_that_is_turned_into_nothing_keeps_its_place(letters):
    encoder = WordEncoder(letters, 16, ["O", "B-X"])
    ((_, (row,)),) = encoder.encode([sentence("a \u200b b", "O B-X O")])
    assert row.tokens[1:4] == [letters.token_to_id("a"), letters.unk_id, letters.token_to_id("b")]
    assert row.token_targets[LABELS].tolist() == [-1, 0, 1, 0, -1]
    assert encoder.empty_words == 1 and any("[UNK]" in line for line in encoder.report())


@pytest.mark.parametrize("max_seq_len", [3, 4, 7, 10, 25])
def test_no_word_is_lost_and_none_is_predicted_twice(letters, max_seq_len):
    random = np.random.default_rng(0)
    names = ["O", "B-X", "I-X"]
    examples = [
        sentence(
            " ".join("abcdefgh"[: random.integers(1, 9)] for _ in range(size)),
            " ".join(random.choice(names, size)),
        )
        for size in (1, 2, 5, 30, 60)
    ]
    encoder = WordEncoder(letters, max_seq_len, names)
    encoded = list(encoder.encode(examples))
    gathered = EncodedRows.of(row for _, rows in encoded for row in rows)
    labels = gather_words(examples, gathered, labels_of(gathered))
    for number, (example, rows) in enumerate(encoded):
        assert all(len(row.tokens) <= max_seq_len and row.example == number for row in rows)
        words = np.concatenate([row.token_targets[WORDS] for row in rows])
        assert sorted(words[words != NO_LABEL]) == list(range(len(example.words)))
        assert [names[label] for label in labels[number]] == list(example.tags)
        for row in rows:
            for place in np.flatnonzero(row.token_targets[WORDS] != NO_LABEL):
                word = example.words[row.token_targets[WORDS][place]]
                assert letters.id_to_token(row.tokens[place]) == word[0]
    assert encoder.sentences == 5
    assert f"of 5 sentences are longer than {max_seq_len} tokens" in encoder.report()[0]


def test_a_word_is_predicted_where_it_has_most_context(letters):
    (_, rows), *_ = WordEncoder(letters, 12).encode([sentence("a " * 23)])
    windows = word_windows(np.arange(24), 10)
    assert windows == [(0, 10), (5, 15), (10, 20), (13, 23)]
    for word in range(23):
        chosen = [index for index, row in enumerate(rows) if word in row.token_targets[WORDS]]
        contexts = [min(word - a, b - 1 - word) if a <= word < b else -1 for a, b in windows]
        assert chosen == [contexts.index(max(contexts))]


def test_a_long_word_is_cut_and_counted(letters):
    encoder = WordEncoder(letters, 5)
    ((_, rows),) = encoder.encode([sentence("abcdefgh a")])
    assert [len(row.tokens) for row in rows] == [5, 3]
    assert encoder.long_words == 1


def test_padded_values_are_gathered(letters):
    example = sentence("ab c d e fg h")
    ((_, rows),) = WordEncoder(letters, 6).encode([example])
    values = []
    for row in rows:
        padded = np.zeros((9, 2), np.float32)
        padded[: len(row.tokens), 0] = row.token_targets[WORDS]
        values.append(padded)
    (gathered,) = gather_words([example], EncodedRows.of(rows), values)
    assert gathered[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert gather_words([], EncodedRows.of([]), []) == []


def test_rows_too_short_for_a_word_are_refused(letters):
    with pytest.raises(UserError, match="max_seq_len is 2"):
        WordEncoder(letters, 2)


def test_both_tags_of_every_type_have_a_number():
    examples = [sentence("a b", "B-PER O"), sentence("a b", "B-LOC I-LOC"), sentence("a")]
    assert tag_names(examples) == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    assert tag_names([sentence("a b", "B I")]) == ["O", "B", "I"]


def test_sentencepiece_does_not_begin_a_word_where_no_space_is():
    tokenizer = train_tokenizer(
        ["中国人在北京 ok the cat (sat) on"] * 20, kind="sentencepiece", vocab_size=40, algorithm="bpe"
    )
    text = "中国 cat (sat"
    words, spans = ("中", "国", "cat", "(", "sat"), ((0, 1), (1, 2), (3, 6), (7, 8), (8, 11))
    example = TaggedExample(words, None, text, spans, "0", Place("x"))
    ((_, (row,)),) = WordEncoder(tokenizer, 40).encode([example])
    pieces = [tokenizer.id_to_token(index) for index in row.tokens[1:-1]]
    assert "".join(pieces).replace(WORD_START, " ").strip() == text
    assert (row.token_targets[WORDS] >= 0).sum() == 5


def test_examples_are_taken_as_they_come(letters):
    def endless():
        while True:
            yield sentence("a b")

    assert next(WordEncoder(letters, 9).encode(endless()))[0].words == ("a", "b")


def test_predictions_are_words_with_tags_and_spans_of_characters():
    text = "in 北京 (Ann  Lee)"
    words = ("in", "北", "京", "(", "Ann", "Lee", ")")
    spans = ((0, 2), (3, 4), (4, 5), (6, 7), (7, 10), (12, 15), (15, 16))
    example = TaggedExample(words, None, text, spans, "a7", Place("x"))
    tags = ["O", "B-LOC", "I-LOC", "O", "I-PER", "I-PER", "O"]
    prediction = tagging_prediction(example, tags, np.linspace(0.9, 0.3, 7))
    assert prediction["id"] == "a7" and prediction["words"] == list(words) and prediction["tags"] == tags
    assert [(e["label"], e["text"], e["start"], e["end"]) for e in prediction["entities"]] == [
        ("LOC", "北京", 3, 5),
        ("PER", "Ann  Lee", 7, 15),
    ]
    assert prediction["entities"][1]["probability"] == pytest.approx(0.4)
    assert "probabilities" not in tagging_prediction(example, tags)


@pytest.mark.parametrize("name, vocabulary", [("conll2003/eng.testb", "uncased"), ("cluener/dev.json", "chinese")])
def test_real_files_come_back_as_they_were(shared_data, name, vocabulary):
    from bert_jax.text.wordpiece import read_vocabulary

    tokens = read_vocabulary(shared_data / "vocab" / f"bert-base-{vocabulary}" / "vocab.txt")
    examples = list(open_tagged(str(shared_data / "tasks" / name), BadRows()))
    names = tag_names(examples)
    encoder = WordEncoder(WordPieceTokenizer(tokens, cased=False), 32, names)
    rows = EncodedRows.of(row for _, rows in encoder.encode(examples) for row in rows)
    for example, labels in zip(examples, gather_words(examples, rows, labels_of(rows)), strict=True):
        assert tuple(names[label] for label in labels) == example.tags
