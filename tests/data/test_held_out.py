"""Held-out text is about as much as was asked for, in whole documents where they allow it, and never trained on."""

import itertools
import random

import numpy as np
import pytest

from bert_jax.data import preparation, rows
from bert_jax.data.held_out import LEAST_ROWS, MOST_OVERSHOOT, draw_documents, hold_out
from bert_jax.data.token_store import TokenStore, TokenStoreWriter
from bert_jax.text.tokenizers import WordPieceTokenizer

VOCAB_SIZE = 1 << 20
WORDS = [f"{a}{b}{c}" for a in "bcdfghjklm" for b in "aeiou" for c in "nrst"]


def _store(directory, documents):
    """Writes documents, lists of paragraphs, which are lists of sentences' lengths; every token is another id."""
    with TokenStoreWriter(directory, VOCAB_SIZE) as writer:
        for paragraphs in documents:
            lengths = [length for paragraph in paragraphs for length in paragraph]
            tokens = np.arange(writer.num_tokens, writer.num_tokens + sum(lengths))
            starts = np.cumsum([0, *map(len, paragraphs)])[:-1]
            writer.append(tokens, np.array(lengths, np.int64), np.zeros(1, np.int64), starts)
    return TokenStore(directory, VOCAB_SIZE)


def _draw_corpus(generator):
    """Few or many documents, alike or not, with paragraphs and sentences of any length."""
    longest_sentence, paragraph, longest = (generator.choice(choice) for choice in ((9, 40, 400), (1, 5, 90), (3, 400)))
    return [
        [
            [generator.randint(1, longest_sentence) for _ in range(generator.randint(1, paragraph))]
            for _ in range(generator.randint(1, longest))
        ]
        for _ in range(generator.choice([1, 2, 3, 4, 5, 8, 30, 150]))
    ]


@pytest.mark.parametrize("seed", range(60))
def test_the_share_is_bounded_and_nothing_is_in_both_splits(tmp_path, seed):
    generator = random.Random(seed)
    documents = _draw_corpus(generator)
    recipe = rows.Recipe(
        seq_len=generator.choice([8, 32, 128]),
        pairs=generator.choice(rows.PAIRS),
        validation_fraction=generator.choice([0.0, 0.01, 0.05, 0.3]),
        seed=seed,
    )
    store = _store(tmp_path / "store", documents)
    split = hold_out(store, recipe)
    cut = TokenStore(tmp_path / "store", VOCAB_SIZE, split.cuts)
    tokens = {
        name: set(itertools.chain(*(range(*cut.document_sentences(one)[[0, -1]]) for one in parts)))
        for name, parts in split.documents.items()
    }
    assert not tokens["train"] & tokens["validation"]
    assert len(tokens["train"]) + len(tokens["validation"]) == store.num_tokens
    assert len(tokens["validation"]) == split.tokens

    drawn = draw_documents(len(documents), recipe)
    longest_sentence = max(itertools.chain(*itertools.chain(*documents)))
    wanted = max(recipe.validation_fraction * store.num_tokens, len(drawn) * LEAST_ROWS * recipe.seq_len)
    assert split.tokens <= MOST_OVERSHOOT * wanted + len(drawn) * longest_sentence
    # Each document that was drawn has a part in validation, so that pairs find another document there.
    starts = store.sentence_offsets[store.document_offsets]
    of_documents = np.searchsorted(starts, sorted(tokens["validation"]), side="right") - 1
    assert sorted(set(of_documents.tolist())) == drawn.tolist()
    if split.whole_tokens <= MOST_OVERSHOOT * wanted:
        assert not len(split.cuts) and split.documents["validation"].tolist() == drawn.tolist()
    assert split.cut == sum(
        1 for place in drawn if np.count_nonzero(of_documents == place) < store.document_lengths(np.array([place]))[0]
    )


def test_long_documents_are_cut_at_paragraphs(tmp_path):
    documents = [[[20] * 5] * 500 for _ in range(5)]
    store = _store(tmp_path / "store", documents)
    split = hold_out(store, rows.Recipe(seq_len=32, validation_fraction=0.01))
    assert (split.drawn, split.cut) == (2, 2) and len(split.cuts) in (3, 4)
    assert all(cut % 5 == 0 for cut in split.cuts)
    assert split.tokens == pytest.approx(0.01 * store.num_tokens, rel=0.1)
    assert split.whole_tokens == 0.4 * store.num_tokens


def test_without_paragraphs_they_are_cut_between_sentences(tmp_path):
    store = _store(tmp_path / "store", [[[20] * 2500] for _ in range(5)])
    split = hold_out(store, rows.Recipe(seq_len=32, validation_fraction=0.01))
    assert split.cut == 2 and split.tokens == pytest.approx(0.01 * store.num_tokens, rel=0.1)


@pytest.mark.parametrize(
    ("documents", "pairs", "fraction", "expected"),
    [
        (1000, "nsp", 0.01, 10),
        (50, "nsp", 0.01, 2),
        (50, "none", 0.01, 1),
        (4, "nsp", 0.01, 2),
        (3, "nsp", 0.01, 0),
        (2, "sop", 0.5, 1),
        (1, "none", 0.01, 0),
        (1000, "nsp", 0.0, 0),
    ],
)
def test_how_many_documents_are_drawn(documents, pairs, fraction, expected):
    recipe = rows.Recipe(seq_len=64, pairs=pairs, validation_fraction=fraction)
    drawn = draw_documents(documents, recipe)
    assert len(set(drawn.tolist())) == expected and set(drawn.tolist()) <= set(range(documents))


def _write_book(path, generator, paragraphs):
    """Every sentence of a book is another one, and each begins with the book's own word."""
    path.write_text(
        "\n\n".join(
            " ".join(
                f"{path.stem} " + " ".join(generator.choices(WORDS, k=generator.randint(4, 12))) + "."
                for _ in range(generator.randint(1, 7))
            ).capitalize()
            for _ in range(paragraphs)
        )
    )


def _prepare(inputs, tokenizer, output, **changed):
    settings = {"seq_len": 32, "validation_fraction": 0.02, **changed}
    workers = settings.pop("workers", 1)
    return preparation.prepare(
        inputs=str(inputs),
        tokenizer_directory=str(tokenizer),
        output=output,
        recipe=rows.Recipe(**settings),
        text_format="plain",
        workers=workers,
    )


@pytest.fixture(scope="module")
def books(tmp_path_factory):
    root = tmp_path_factory.mktemp("books")
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *WORDS, *(f"book{n}" for n in range(5))]
    WordPieceTokenizer(tokens, cased=False).save(root / "tokenizer")
    (root / "text").mkdir()
    generator = random.Random(1)
    for number in range(5):
        _write_book(root / f"text/book{number}.txt", generator, 600)
    return root


def test_of_few_books_a_part_is_held_out_and_the_report_says_so(books, tmp_path):
    outputs = [tmp_path / str(workers) for workers in (1, 3)]
    for workers, output in zip((1, 3), outputs, strict=True):
        its_report = _prepare(books / "text", books / "tokenizer", output, workers=workers)
    assert its_report["held_out"]["cut_documents"] == 2
    assert its_report["held_out"]["token_share"] < 0.04 < 0.3 < its_report["held_out"]["token_share_of_whole_documents"]
    said = (outputs[0] / "report.txt").read_text()
    assert "held out        a part of 2 documents: 2." in said and "% of the tokens (as a whole, they are" in said
    stores = [rows.open_rows(output) for output in outputs]
    assert stores[0].fingerprint == stores[1].fingerprint
    assert 10 < stores[0].num_rows("validation") < 0.05 * stores[0].num_rows("train")


@pytest.mark.parametrize("pairs", rows.PAIRS)
def test_random_sentences_come_from_another_book_than_the_rest_of_the_same(books, tmp_path, pairs):
    from tensorflow_datasets.proto import tf_example_pb2

    _prepare(books / "text", books / "tokenizer", tmp_path / "rows", pairs=pairs, short_seq_probability=0.0)
    store = rows.open_rows(tmp_path / "rows")
    first_book = 6 + len(WORDS)
    for split in rows.SPLITS:
        books_seen, random_pairs = set(), 0
        for record in store.read(split, range(store.num_rows(split))):
            feature = tf_example_pb2.Example.FromString(record).features.feature
            ids, length = feature["input_ids"].int64_list.value, feature["first_lengths"].int64_list.value[0]
            first, second = ({one for one in ids if one >= first_book} for ids in (ids[:length], ids[length:]))
            books_seen |= first | second
            if first and second:
                is_random = pairs == "nsp" and feature["next_sentence_labels"].int64_list.value[0] == 1
                assert (first != second) == is_random
                random_pairs += is_random
        assert len(books_seen) == (5 if split == "train" else 2 if pairs == "nsp" else 1)
        assert (random_pairs > 5) == (pairs == "nsp")


def test_on_real_books(shared_data, tmp_path):
    from bert_jax.text.tokenizers import wrap_vocabulary

    wrap_vocabulary(shared_data / "vocab/bert-base-uncased/vocab.txt", cased=False).save(tmp_path / "tokenizer")
    five = sorted((shared_data / "corpora/books").glob("*.gz"))[:5]
    settings = {"seq_len": 128, "validation_fraction": 0.01}
    its_report = _prepare(",".join(map(str, five)), tmp_path / "tokenizer", tmp_path / "rows", **settings)
    assert 0.008 < its_report["held_out"]["token_share"] < 0.015
    train, validation = (its_report["rows"][split]["rows"] for split in rows.SPLITS)
    assert 30 < validation < 0.02 * train


def test_rows_of_many_documents_are_those_of_every_version(tmp_path):
    """Their bytes are pinned, for rows that were made once are not made in another way without a word."""
    WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *WORDS], cased=False).save(
        tmp_path / "tokenizer"
    )
    generator = random.Random(7)
    (tmp_path / "text").mkdir()
    for number in range(120):
        _write_book(tmp_path / f"text/{WORDS[number]}.txt", generator, generator.randint(1, 20))
    _prepare(tmp_path / "text", tmp_path / "tokenizer", tmp_path / "rows", validation_fraction=0.05)
    manifest = rows.open_rows(tmp_path / "rows").manifest
    assert {split: [shard.sha256[:16] for shard in shards] for split, shards in manifest.shards.items()} == {
        "train": ["06f7c6c70141c3ec"],
        "validation": ["1571fbd94bffd8be"],
    }
