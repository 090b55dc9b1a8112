"""The rules of the original data preparation, measured on the pairs."""

import random
from collections import Counter

import numpy as np
import pytest

from bert_jax.data.pairs import _next_sentence_pairs, _truncated, document_pairs

SEQ_LEN = 64


def _documents(number=400, seed=0, shortest=1, longest=30, sentence=25):
    """Sentence offsets of documents that lie one after the other, as in a token store."""
    generator = random.Random(seed)
    documents, position = [], 0
    for _ in range(number):
        lengths = [generator.randint(1, sentence) for _ in range(generator.randint(shortest, longest))]
        documents.append(position + np.cumsum([0, *lengths]))
        position = int(documents[-1][-1])
    return documents


def _pairs(pairs, documents, seq_len=SEQ_LEN, short=0.1, seed=1):
    """Returns the list of pairs of each document; random documents are never the same."""
    generator = random.Random(seed)
    result = []
    for place, offsets in enumerate(documents):

        def draw_other(place=place):
            other = generator.randrange(len(documents) - 1)
            return documents[other + (other >= place)]

        result.append(list(document_pairs(pairs, offsets, seq_len, short, generator, draw_other)))
    return result


def _inside(offsets, start, end):
    return offsets[0] <= start and end <= offsets[-1]


@pytest.mark.parametrize(("pairs", "special"), [("nsp", 3), ("sop", 3), ("none", 2)])
@pytest.mark.parametrize("seq_len", [8, 64, 512])
def test_lengths(pairs, special, seq_len):
    for its_pairs in _pairs(pairs, _documents(), seq_len):
        for pair in its_pairs:
            assert 0 < pair.num_tokens <= seq_len - special
            assert pair.first_end > pair.first_start
            assert (pair.second_end > pair.second_start) == (pairs != "none")


def test_a_long_sentence_is_truncated():
    documents = [np.array([0, 1000]), np.array([1000, 3000, 3001])]
    for its_pairs in _pairs("nsp", documents, short=0.0):
        for pair in its_pairs:
            assert pair.num_tokens <= SEQ_LEN - 3


def test_the_true_next_follows_and_the_random_one_is_of_another_document():
    documents = _documents()
    for offsets, its_pairs in zip(documents, _pairs("nsp", documents, short=0.0), strict=True):
        for pair in its_pairs:
            assert _inside(offsets, pair.first_start, pair.first_end)
            if pair.label:
                assert not offsets[0] <= pair.second_start < offsets[-1]
            else:
                assert _inside(offsets, pair.second_start, pair.second_end)
                assert pair.second_start >= pair.first_end
                # Between the two lie only tokens that truncation cut off, within the chunk.
                untruncated = pair.num_tokens < SEQ_LEN - 3
                assert not untruncated or pair.second_start == pair.first_end


def test_every_sentence_is_used_once_and_unused_ones_are_put_back():
    # In rows far longer than a chunk can become nothing is truncated: then the first segments and true second ones
    # are the document, in order, without gap and without overlap.
    documents = _documents()
    generator = random.Random(3)
    for place, offsets in enumerate(documents):
        other = documents[place - 1]
        target = 40
        position = offsets[0]
        for pair in _next_sentence_pairs(offsets, target, 10_000, generator, lambda other=other: other):
            assert pair.first_start == position
            position = pair.first_end if pair.label else pair.second_end
        assert position == offsets[-1]


def test_random_second_segments_fill_the_target_from_a_random_sentence():
    offsets = np.arange(0, 11)
    other = np.arange(100, 201)
    starts = Counter()
    for seed in range(2000):
        generator = random.Random(seed)
        for pair in document_pairs("nsp", offsets, 23, 0.0, generator, lambda: other):
            if pair.label:
                starts[pair.second_start] += 1
                wanted = 20 - (pair.first_end - pair.first_start)
                assert pair.second_end - pair.second_start == min(wanted, 200 - pair.second_start)
    assert set(starts) == set(range(100, 200))
    assert max(starts.values()) < 2.5 * sum(starts.values()) / 100


def test_share_of_random_next():
    # Chunks of one sentence always get a random second segment, all others half of the time.
    one_sentence = _pairs("nsp", [np.array([10 * i, 10 * i + 10]) for i in range(50)])
    assert all(pair.label == 1 for its_pairs in one_sentence for pair in its_pairs)
    documents = [200 * i + np.arange(0, 201) for i in range(200)]
    labels = [pair.label for its_pairs in _pairs("nsp", documents, short=0.0) for pair in its_pairs]
    # Putting back makes the chunks after it no less likely to be random; only a single last sentence adds to the half.
    assert abs(np.mean(labels) - 0.5) < 0.03


def test_a_first_segment_has_a_random_number_of_sentences():
    documents = [100 * i + np.arange(0, 101, 10) for i in range(3000)]
    firsts = Counter(
        (its_pairs[0].first_end - its_pairs[0].first_start) // 10 for its_pairs in _pairs("nsp", documents, 53, 0.0)
    )
    assert set(firsts) == {1, 2, 3, 4}
    assert all(abs(count / 3000 - 0.25) < 0.05 for count in firsts.values())


@pytest.mark.parametrize("pairs", ["nsp", "sop", "none"])
def test_one_document_in_ten_has_short_pairs(pairs):
    documents = [1000 * i + np.arange(0, 1001) for i in range(2000)]
    # The longest pair of a document shows its target, since all sentences have one token.
    special = 2 if pairs == "none" else 3
    targets = [max(pair.num_tokens for pair in its_pairs) for its_pairs in _pairs(pairs, documents)]
    short = [target for target in targets if target < SEQ_LEN - special]
    assert abs(len(short) / len(targets) - 0.1) < 0.03
    assert min(short) == 2 and max(short) > SEQ_LEN - 8
    assert abs(np.mean(short) - (SEQ_LEN - special + 2) / 2) < 4


def _truncate_one_by_one(first, second, maximum, generator):
    """The rule as stated: one token at a time, from the longer segment, at the front or at the back."""
    first, second = list(range(first)), list(range(1000, 1000 + second))
    while len(first) + len(second) > maximum:
        longer = first if len(first) > len(second) else second
        del longer[0 if generator.random() < 0.5 else -1]
    return first, second


def test_truncation_is_that_of_one_token_at_a_time():
    first, second = np.array([0, 40]), np.array([1000, 1033])
    ours, reference = [], []
    for seed in range(4000):
        pair = _truncated((first, 0, 1), (second, 0, 1), 0, 50, random.Random(seed))
        ours.append((pair.first_start, pair.first_end, pair.second_start, pair.second_end))
        a, b = _truncate_one_by_one(40, 33, 50, random.Random(seed + 10_000))
        reference.append((a[0], a[-1] + 1, b[0], b[-1] + 1))
    assert {(p[1] - p[0], p[3] - p[2]) for p in ours} == {(p[1] - p[0], p[3] - p[2]) for p in reference} == {(25, 25)}
    np.testing.assert_allclose(np.mean(ours, 0), np.mean(reference, 0), atol=0.2)
    np.testing.assert_allclose(np.std(ours, 0), np.std(reference, 0), atol=0.1)


@pytest.mark.parametrize("first", range(1, 30, 4))
@pytest.mark.parametrize("second", range(1, 30, 5))
def test_truncated_lengths_are_exact(first, second):
    maximum = 12
    pair = _truncated(
        (np.array([0, first]), 0, 1), (np.array([1000, 1000 + second]), 0, 1), 0, maximum, random.Random(0)
    )
    a, b = _truncate_one_by_one(first, second, maximum, random.Random(0))
    assert (pair.first_end - pair.first_start, pair.second_end - pair.second_start) == (len(a), len(b))


def test_sentence_order():
    documents = _documents(shortest=2)
    labels = []
    for offsets, its_pairs in zip(documents, _pairs("sop", documents, short=0.0), strict=True):
        position = offsets[0]
        for pair in its_pairs:
            labels.append(pair.label)
            spans = [(pair.first_start, pair.first_end), (pair.second_start, pair.second_end)]
            (early_start, early_end), (late_start, late_end) = spans[:: -1 if pair.label else 1]
            assert position <= early_start < early_end <= late_start < late_end <= offsets[-1]
            position = late_end
    assert abs(np.mean(labels) - 0.5) < 0.03
    assert not _pairs("sop", [np.array([0, 9])])[0]


def test_full_sentences_lose_no_token():
    documents = [*_documents(), np.array([0, 500, 503, 1000])]
    for offsets, its_pairs in zip(documents, _pairs("none", documents), strict=True):
        position = offsets[0]
        for pair in its_pairs:
            assert pair.first_start == position and pair.label == 0
            # It ends with a sentence, unless that sentence alone does not fit.
            whole = pair.first_end in offsets
            assert whole or pair.num_tokens == SEQ_LEN - 2
            if not whole:
                sentence_start = offsets[np.searchsorted(offsets, pair.first_end) - 1]
                assert sentence_start <= pair.first_start
            position = pair.first_end
        assert position == offsets[-1]


def test_full_sentences_fill_the_row():
    documents = [np.arange(0, 1001, 7)]
    lengths = [pair.num_tokens for pair in _pairs("none", documents, short=0.0)[0]]
    assert set(lengths[:-1]) == {56}, "eight sentences of 7 tokens fit into 62"
