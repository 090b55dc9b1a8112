"""Bigrams against a reference that writes every distribution out, and the search for neighbours against loops."""

import collections
import itertools

import numpy as np
import pytest

from bert_jax.tasks.neighbour_baseline import FARTHEST, LEFT, RIGHT, NeighbourBaseline, nearest_visible

SIZE = 14
# [CLS] and [SEP]: neighbours, and never predicted.
FIRST, LAST = 0, 1


def make_texts(number, seed=0):
    """Texts whose words follow each other by a rule, more or less: pairs are seen once, twice, and often."""
    random = np.random.default_rng(seed)
    texts = []
    for _ in range(number):
        words = [int(random.zipf(1.6)) % (SIZE - 2) + 2]
        while len(words) < random.integers(3, 12):
            follower = 2 + (words[-1] * 5 + 3) % (SIZE - 3)
            words.append(follower if random.random() < 0.5 else int(random.zipf(1.6)) % (SIZE - 2) + 2)
        texts.append([FIRST, *words, LAST])
    return texts


def make_baseline(texts):
    ids = np.array([token for text in texts for token in text], int)
    counts = np.bincount(ids, minlength=SIZE)
    counts[[FIRST, LAST]] = 0
    numbers = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    return NeighbourBaseline(ids, numbers, counts), counts


class Reference:
    """The module's docstring, word by word, in float64 and with loops."""

    def __init__(self, texts, counts):
        self.unigram = (counts + 1) / (counts + 1).sum()
        self.counts = {}
        for distance in range(1, FARTHEST + 1):
            left, right = collections.Counter(), collections.Counter()
            for text in texts:
                for one, other in zip(text, text[distance:], strict=False):
                    if counts[other]:
                        left[one, other] += 1
                    if counts[one]:
                        right[other, one] += 1
            self.counts[LEFT, distance], self.counts[RIGHT, distance] = left, right
        different = np.ones(SIZE)
        for side in (LEFT, RIGHT):
            for _, word in self.counts[side, 1]:
                different[word] += 1
        self.lower = different / different.sum()

    def given(self, side, token, distance):
        """P(word | token) at one side, of all words."""
        if not distance:
            return self.unigram
        pairs = self.counts[side, distance]
        n1, n2, n3, n4 = (sum(count == number for count in pairs.values()) for number in (1, 2, 3, 4))
        share = n1 / (n1 + 2 * n2)
        discounts = [0, 1 - 2 * share * n2 / n1, 2 - 3 * share * n3 / n2, 3 - 4 * share * n4 / n3]
        # The text has counts enough for its own discounts.
        assert all(0.1 < discount < number for number, discount in enumerate(discounts) if number)
        seen = {word: count for (neighbour, word), count in pairs.items() if neighbour == token}
        if not seen:
            return self.lower
        total = sum(seen.values())
        taken = sum(discounts[min(count, 3)] for count in seen.values())
        result = taken / total * self.lower
        for word, count in seen.items():
            result[word] += (count - discounts[min(count, 3)]) / total
        return result

    def given_both(self, left, right):
        product = self.given(LEFT, *left) * self.given(RIGHT, *right) / self.unigram
        return product / product.sum()


# Neighbours at every distance, on one side or both, and a token that stands beside nothing that is predicted.
SIDES = [(0, 0), (5, 1), (5, 2), (FIRST, 1), (LAST, 2), (2, 1), (13, 2)]


def test_the_losses_are_those_of_the_distributions_written_out():
    texts = make_texts(40)
    baseline, counts = make_baseline(texts)
    reference = Reference(texts, counts)
    for left, right in itertools.product(SIDES, SIDES):
        expected = reference.given_both(left, right)
        words = np.arange(SIZE)
        columns = [tuple(np.full(SIZE, value) for value in side) for side in (left, right)]
        losses, correct = baseline.score(words, *columns)
        np.testing.assert_allclose(np.exp(-losses), expected, rtol=1e-5, err_msg=f"{left} {right}")
        assert np.exp(-losses).sum() == pytest.approx(1, abs=1e-6)
        assert correct.tolist() == (expected >= expected.max() * (1 - 1e-9)).tolist(), (left, right)
        np.testing.assert_allclose(baseline.distribution(left, right), expected, rtol=1e-5)


@pytest.mark.parametrize("texts", [[], [[FIRST, 4, LAST]], [[FIRST, 4, 4, 4, 4, 4, LAST]]], ids=["none", "one", "same"])
def test_hardly_any_text_still_gives_distributions(texts):
    baseline, _ = make_baseline(texts)
    for left, right in itertools.product(SIDES, SIDES):
        losses, _ = baseline.score(
            np.arange(SIZE), *(tuple(np.full(SIZE, value) for value in one) for one in (left, right))
        )
        assert np.isfinite(losses).all() and np.exp(-losses).sum() == pytest.approx(1, abs=1e-6)


def test_words_that_follow_each_other_are_predicted():
    baseline, counts = make_baseline(make_texts(400))
    held_out = make_texts(50, seed=1)
    words, left, right = (
        np.concatenate([text[begin : len(text) - 2 + begin] for text in held_out]) for begin in (1, 0, 2)
    )
    near = np.ones(len(words), int)
    losses, correct = baseline.score(words, (left, near), (right, near))
    unigram = -np.log((counts + 1) / (counts + 1).sum())[words]
    assert losses.mean() < unigram.mean() - 0.4 and correct.mean() > (words == counts.argmax()).mean() + 0.1


def test_neighbours_are_visible_near_and_of_the_same_text():
    random = np.random.default_rng(3)
    batch_size, length, predictions = 20, 16, 6
    ids = random.integers(2, 90, (batch_size, length))
    segments = np.sort(random.integers(0, 4, (batch_size, length)))[:, ::-1].copy()
    positions = np.stack([random.permutation(length)[:predictions] for _ in range(batch_size)])
    weights = (random.random(positions.shape) < 0.8) & (np.take_along_axis(segments, positions, axis=1) > 0)
    batch = {"input_ids": ids, "segment_ids": segments, "masked_positions": positions, "masked_weights": weights * 1.0}
    tried = set()
    for side in (LEFT, RIGHT):
        neighbours, distances = nearest_visible(batch, side)
        for row, place in zip(*np.nonzero(weights), strict=True):
            masked = positions[row][weights[row]]
            expected = (0, 0)
            for distance in (2, 1):
                at = positions[row, place] + side * distance
                is_visible = 0 <= at < length and at not in masked
                if is_visible and segments[row, at] == segments[row, positions[row, place]]:
                    expected = (ids[row, at], distance)
            assert (neighbours[row, place], distances[row, place]) == expected
            tried.add(expected[1])
    assert tried == {0, 1, 2}
