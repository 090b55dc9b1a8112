"""The token store gives back what was appended, however the text was cut into blocks."""

import itertools
import random

import numpy as np
import pytest

from bert_jax.data.token_store import TokenStore, TokenStoreWriter


def _write(directory, documents, cuts, vocab_size=1000):
    """Writes documents (lists of sentences, lists of ids), one `append` for each stretch between the cuts."""
    sentences = [sentence for document in documents for sentence in document]
    starts = np.cumsum([0] + [len(document) for document in documents])[:-1]
    # The document starts of a block are those that come before one of its sentences; at the end, all that are left.
    with TokenStoreWriter(directory, vocab_size) as writer:
        bounds = [0, *cuts, len(sentences)]
        for first, end in itertools.pairwise(bounds):
            block = sentences[first:end]
            last = end == len(sentences)
            its_starts = [s - first for s in starts if first <= s and (s < end or last)]
            writer.append(
                np.array([i for sentence in block for i in sentence], np.int64),
                np.array([len(sentence) for sentence in block], np.int64),
                np.array(its_starts, np.int64),
                np.array([place for place, sentence in enumerate(block, first) if sentence[0] % 2], np.int64) - first,
            )


def _read(directory, vocab_size=1000):
    store = TokenStore(directory, vocab_size)
    documents = []
    for document in range(store.num_documents):
        offsets = store.document_sentences(document)
        documents.append([store.tokens[a:b].tolist() for a, b in itertools.pairwise(offsets)])
    return store, documents


@pytest.mark.parametrize("cuts", [[], [1], [2, 3], [1, 2, 3, 4, 5]])
def test_documents_come_back_and_empty_ones_are_dropped(tmp_path, cuts):
    documents = [[], [[1, 2], [3]], [], [], [[4, 5, 6]], [[7], [8, 9], [10]], []]
    _write(tmp_path / "store", documents, cuts)
    store, read = _read(tmp_path / "store")
    assert read == [document for document in documents if document]
    assert (store.num_tokens, store.num_sentences, store.num_documents) == (10, 6, 3)
    assert store.document_lengths(np.array([2, 0])).tolist() == [4, 3]


def test_any_cuts_give_the_same_files(tmp_path):
    generator = random.Random(5)
    documents = [
        [[generator.randrange(1000) for _ in range(generator.randint(1, 9))] for _ in range(generator.randint(0, 6))]
        for _ in range(60)
    ]
    total = sum(map(len, documents))
    for number in range(4):
        cuts = sorted(generator.sample(range(1, total), 5 * number))
        _write(tmp_path / str(number), documents, cuts)
        for file in (tmp_path / "0").iterdir():
            assert (tmp_path / str(number) / file.name).read_bytes() == file.read_bytes()


def test_an_empty_corpus_is_an_empty_store(tmp_path):
    _write(tmp_path / "store", [[], []], [])
    store, documents = _read(tmp_path / "store")
    assert documents == [] and store.num_tokens == store.num_sentences == 0


@pytest.mark.parametrize("vocab_size", [65536, 65537, 250_000])
def test_the_largest_id_survives(tmp_path, vocab_size):
    _write(tmp_path / "store", [[[0, vocab_size - 1]]], [], vocab_size)
    assert _read(tmp_path / "store", vocab_size)[1] == [[[0, vocab_size - 1]]]
