"""Training pairs from the sentences of a document.

The rules are those of the original data preparation (Devlin et al. 2018, appendix A.2, and Google's
create_pretraining_data); sentence-order prediction is ALBERT's (Lan et al. 2019, section 3.1), and full sentences
without a second task are RoBERTa's (Liu et al. 2019, section 4.2, DOC-SENTENCES).

Sentences lie one after the other in a token store, so that a segment of several sentences is a span of it and a pair is
no more than two spans. No token is touched here.
"""

import bisect
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np


class Pair(NamedTuple):
    """Two segments, as spans of the token store, and the label of the second task.

    The second segment is empty where there is no second task. Label 0: the second segment follows the first in its
    document; 1: it comes from another document (next-sentence prediction), or it precedes the first (sentence order).
    """

    first_start: int
    first_end: int
    second_start: int
    second_end: int
    label: int

    @property
    def num_tokens(self) -> int:
        """Tokens of both segments, without special tokens."""
        return self.first_end - self.first_start + self.second_end - self.second_start


# Returns the sentence offsets of a random other document, int64 [sentences + 1].
DrawOther = Callable[[], np.ndarray]


def special_tokens(pairs: str) -> int:
    """Returns how many tokens frame the segments: `[CLS] A [SEP] B [SEP]`, or `[CLS] A [SEP]` without a second task."""
    return 2 if pairs == "none" else 3


def document_pairs(
    pairs: str,
    offsets: np.ndarray,
    seq_len: int,
    short_seq_probability: float,
    generator: random.Random,
    draw_other: DrawOther,
) -> Iterator[Pair]:
    """Yields the pairs of one document, in the order of its sentences.

    Args:
        pairs: the second task: "nsp", "sop" or "none".
        offsets: where the document's sentences start in the token store, and the last one's end, int64 [sentences + 1].
        seq_len: most tokens of a pair, special tokens included.
        short_seq_probability: of aiming at a length drawn from 2 to the longest, for the whole document, so that the
            model sees short sequences too.
        generator: of all random choices.
        draw_other: draws a document for random second segments; used by "nsp" alone.
    """
    maximum = seq_len - special_tokens(pairs)
    target = generator.randint(2, maximum) if generator.random() < short_seq_probability else maximum
    if pairs == "nsp":
        return _next_sentence_pairs(offsets, target, maximum, generator, draw_other)
    if pairs == "sop":
        return _sentence_order_pairs(offsets, target, maximum, generator)
    return _full_sentences(offsets, target, maximum)


def _next_sentence_pairs(
    offsets: np.ndarray, target: int, maximum: int, generator: random.Random, draw_other: DrawOther
) -> Iterator[Pair]:
    sentence = 0
    while sentence < len(offsets) - 1:
        chunk_end = _filled(offsets, sentence, target)
        sentences = chunk_end - sentence
        first_end = sentence + (generator.randint(1, sentences - 1) if sentences > 1 else 1)
        if sentences == 1 or generator.random() < 0.5:
            other = draw_other()
            other_start = generator.randrange(len(other) - 1)
            missing = target - int(offsets[first_end] - offsets[sentence])
            second, label = (other, other_start, _filled(other, other_start, missing)), 1
            # The sentences that the random segment stands in for are put back: they begin the next chunk.
            next_sentence = first_end
        else:
            second, label = (offsets, first_end, chunk_end), 0
            next_sentence = chunk_end
        yield _truncated((offsets, sentence, first_end), second, label, maximum, generator)
        sentence = next_sentence


def _sentence_order_pairs(offsets: np.ndarray, target: int, maximum: int, generator: random.Random) -> Iterator[Pair]:
    """A chunk holds at least two sentences; a sentence that is left over alone at the end has no pair."""
    sentence = 0
    while sentence < len(offsets) - 2:
        chunk_end = max(_filled(offsets, sentence, target), sentence + 2)
        middle = generator.randint(sentence + 1, chunk_end - 1)
        segments = (offsets, sentence, middle), (offsets, middle, chunk_end)
        label = int(generator.random() < 0.5)
        yield _truncated(segments[label], segments[1 - label], label, maximum, generator)
        sentence = chunk_end


def _full_sentences(offsets: np.ndarray, target: int, maximum: int) -> Iterator[Pair]:
    """Whole sentences up to the target; one that is longer than `maximum` alone is cut, and its rest goes on."""
    position = int(offsets[0])
    sentence = 0
    while sentence < len(offsets) - 1:
        end_sentence = bisect.bisect_left(offsets, position + target, sentence + 1, len(offsets) - 1)
        if offsets[end_sentence] - position > maximum and end_sentence > sentence + 1:
            end_sentence -= 1
        end = min(int(offsets[end_sentence]), position + maximum)
        yield Pair(position, end, end, end, 0)
        sentence = end_sentence if end == offsets[end_sentence] else end_sentence - 1
        position = end


def _filled(offsets: np.ndarray, start: int, tokens: int) -> int:
    """Returns the end of the shortest run of sentences from `start` with that many tokens; at least one sentence."""
    return bisect.bisect_left(offsets, offsets[start] + tokens, start + 1, len(offsets) - 1)


Segment = tuple[np.ndarray, int, int]


def _truncated(first: Segment, second: Segment, label: int, maximum: int, generator: random.Random) -> Pair:
    """Cuts two runs of sentences (offsets, first sentence, end) down to `maximum` tokens together.

    Tokens are taken one at a time from the segment that is longer then (the second if they are equal), each from its
    front or its back at random. How many each segment loses is thus known beforehand, and how many of them at the front
    is binomial: the number of ones in as many random bits.
    """
    first_start, first_end = (int(first[0][index]) for index in first[1:])
    second_start, second_end = (int(second[0][index]) for index in second[1:])
    first_length, second_length = first_end - first_start, second_end - second_start
    excess = first_length + second_length - maximum
    if excess <= 0:
        return Pair(first_start, first_end, second_start, second_end, label)
    until_equal = min(excess, abs(first_length - second_length))
    first_loss = (excess - until_equal) // 2
    second_loss = (excess - until_equal) - first_loss
    if first_length > second_length:
        first_loss += until_equal
    else:
        second_loss += until_equal
    first_front = generator.getrandbits(first_loss).bit_count()
    second_front = generator.getrandbits(second_loss).bit_count()
    return Pair(
        first_start + first_front,
        first_end - (first_loss - first_front),
        second_start + second_front,
        second_end - (second_loss - second_front),
        label,
    )
