"""What the golden results are computed on, for the script that makes them and for the tests: numpy alone.

The numbers come from RandomState, whose stream numpy promises never to change, so that batches need not be stored.
"""

import zlib
from collections.abc import Mapping, Sequence

import numpy as np

VOCAB_SIZE = 99
MAX_POSITIONS = 28
PAD, CLS, SEP, MASK = 0, 2, 3, 4
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SEQUENCE_LABELS = ("negative", "neutral", "positive", "mixed")
TOKEN_LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")

# Of the optimizer's fifty steps.
STEPS = 50
WARMUP_STEPS = 5
LEARNING_RATE = 5e-3
WEIGHT_DECAY = 0.3
BETAS = (0.9, 0.98)
EPSILON = 1e-6
CLIP_NORM = 2.0

# Ten sentences of two languages, the same five in each.
SENTENCES = (
    "The cat is asleep.",
    "It is raining today.",
    "The sun is hot.",
    "She plays the piano.",
    "The river is deep.",
    "Die Katze schläft.",
    "Es regnet heute.",
    "Die Sonne ist heiß.",
    "Sie spielt Klavier.",
    "Der Fluss ist tief.",
)


def vocabulary() -> list[str]:
    """The word pieces of the tiny models: special tokens, letters, letters inside words, syllables, endings, signs."""
    letters = [chr(ord("a") + number) for number in range(26)]
    syllables = [consonant + vowel for consonant in "bdfgklm" for vowel in "aeiou"]
    inside = ["##" + piece for piece in (*letters, "er", "ed", "ing")]
    return [*SPECIAL_TOKENS, *letters, *inside, *syllables, *".,!?"]


def pretraining_batch(seed: int, lengths: Sequence[int]) -> dict[str, np.ndarray]:
    """Makes masked sentence pairs, one in each row, in bert_jax's layout of a batch.

    There is something to learn: within a sentence ids go up by a fixed stride, and the second sentence goes on with the
    first one's stride (label 0) or has another (label 1).

    Args:
        seed: of the batch.
        lengths: tokens of each row, at least 8; the longest is the length of the batch, the others are padded.

    Returns:
        input_ids, token_type_ids, position_ids, segment_ids `[rows, length]`, masked_positions, masked_ids,
        masked_weights `[rows, 4]`, cls_positions, next_sentence_labels, next_sentence_weights `[rows, 1]`.
    """
    random = np.random.RandomState(seed)
    rows, length = len(lengths), max(lengths)
    by_token, by_prediction = (rows, length), (rows, 4)
    batch = {name: np.zeros(by_token, np.int32) for name in ("input_ids", "token_type_ids", "segment_ids")}
    batch["position_ids"] = np.tile(np.arange(length, dtype=np.int32), (rows, 1))
    batch |= {name: np.zeros(by_prediction, np.int32) for name in ("masked_positions", "masked_ids")}
    batch["masked_weights"] = np.zeros(by_prediction, np.float32)
    batch["cls_positions"] = np.zeros((rows, 1), np.int32)
    batch["next_sentence_labels"] = np.zeros((rows, 1), np.int32)
    batch["next_sentence_weights"] = np.ones((rows, 1), np.float32)
    ordinary = VOCAB_SIZE - len(SPECIAL_TOKENS)
    for row, used in enumerate(lengths):
        first = random.randint(4, used - 3)  # tokens of [CLS] A [SEP]
        label = random.randint(2)
        strides = random.choice([1, 3, 7], 2, replace=False)
        starts = random.randint(0, ordinary, 2)
        ids = np.zeros(used, np.int32)
        for sentence, (begin, end) in enumerate(((1, first - 1), (first, used - 1))):
            stride = strides[sentence * label]
            ids[begin:end] = len(SPECIAL_TOKENS) + (starts[sentence] + stride * np.arange(end - begin)) % ordinary
        ids[[0, first - 1, used - 1]] = CLS, SEP, SEP
        places = np.sort(random.choice(np.flatnonzero(ids > MASK), random.randint(1, 5), replace=False))
        batch["masked_positions"][row, : len(places)] = places
        batch["masked_ids"][row, : len(places)] = ids[places]
        batch["masked_weights"][row, : len(places)] = 1
        ids[places] = MASK
        batch["input_ids"][row, :used] = ids
        batch["token_type_ids"][row, first:used] = 1
        batch["segment_ids"][row, :used] = 1
        batch["next_sentence_labels"][row] = label
    return batch


def evaluation_batch() -> dict[str, np.ndarray]:
    """The batch of all forward passes: three rows, the first without padding."""
    return pretraining_batch(1000, (13, 9, 9))


def training_batch(step: int) -> dict[str, np.ndarray]:
    """The batch of an optimizer step, counted from 0."""
    return pretraining_batch(step, (24, 8, 9, 11, 14, 16, 19, 22))


def checksum(batch: Mapping[str, np.ndarray]) -> int:
    """A number that tells whether a batch was made again as it was."""
    return zlib.crc32(b"".join(np.ascontiguousarray(batch[name]).tobytes() for name in sorted(batch)))


def learning_rate_factor(step: int) -> float:
    """The share of the peak at a step: Google's linear schedule, written from its source (optimization.py).

    The decay runs from step 0, as if there were no warm-up, and the warm-up replaces its beginning.
    """
    return step / WARMUP_STEPS if step < WARMUP_STEPS else 1 - step / STEPS
