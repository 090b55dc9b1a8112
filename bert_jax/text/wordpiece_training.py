"""Learns WordPiece vocabularies, the same from the same text, through the `tokenizers` library."""

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from bert_jax.errors import UserError
from bert_jax.text import tokenizer as base
from bert_jax.text.wordpiece import CONTINUATION, LONGEST_WORD, PARALLELISM, WordPieceTokenizer, basic_tokenization

# Characters are taken into the alphabet until this share of the text is covered. A word holding any other is [UNK].
CHARACTER_COVERAGE = 0.9999
# Below this share the vocabulary is called too small for the text.
LEAST_COVERAGE = 0.98
# What the alphabet may take of the vocabulary; the rest is for longer pieces.
ALPHABET_SHARE = 0.75


def train_wordpiece(
    texts: Iterable[str], vocab_size: int, cased: bool, training: dict[str, Any] | None = None
) -> WordPieceTokenizer:
    """Learns a vocabulary from `texts`, in memory that depends on the number of distinct words alone.

    The same texts give the same vocabulary, bit for bit: the library numbers pieces in the order of a randomly seeded
    hash table, and breaks ties between merges by these numbers, unless every character is known to it beforehand. So
    the characters are counted first, while the texts go to a temporary file, and the library reads them from there.

    Args:
        texts: consumed once.
        vocab_size: the size to reach, special tokens included. A text with too few words reaches less.
        cased: keep case and accents.
        training: kept in the tokenizer's description, beside the statistics that are added here.

    Raises:
        UserError: no text, or a vocabulary too small for its characters.
    """
    from tokenizers import Tokenizer, models, trainers

    normalizer, pre_tokenizer = basic_tokenization(cased)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace", newline="\n") as spool:
        counts = _spool_and_count(texts, spool)
        alphabet, coverage = _choose_alphabet(counts, vocab_size, normalizer, pre_tokenizer)
        trainer = trainers.WordPieceTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            show_progress=False,
            special_tokens=[*base.SPECIAL_TOKENS, *alphabet],
            # The whole alphabet is among the tokens above; any other character is left out of training.
            limit_alphabet=sum(not piece.startswith(CONTINUATION) for piece in alphabet),
            initial_alphabet=[piece for piece in alphabet if not piece.startswith(CONTINUATION)],
            continuing_subword_prefix=CONTINUATION,
        )
        learner = Tokenizer(models.WordPiece(unk_token=base.UNK, max_input_chars_per_word=LONGEST_WORD))
        learner.normalizer, learner.pre_tokenizer = normalizer, pre_tokenizer
        spool.seek(0)
        with _all_threads():
            learner.train_from_iterator(spool, trainer)
    ids = learner.get_vocab()
    tokens = sorted(ids, key=ids.__getitem__)
    statistics = {"requested_vocab_size": vocab_size, "alphabet": len(alphabet), "character_coverage": coverage}
    return WordPieceTokenizer(tokens, cased, {**(training or {}), **statistics})


def _spool_and_count(texts: Iterable[str], spool: Any) -> np.ndarray:
    """Writes one text a line into `spool` and returns how often each code point occurs, int64 [0x110000]."""
    counts = np.zeros(0x110000, dtype=np.int64)
    batch, size = [], 0

    def flush() -> None:
        lines = "".join(batch)
        spool.write(lines)
        code_points = np.frombuffer(lines.encode("utf-32-le", errors="replace"), dtype=np.uint32)
        found = np.bincount(code_points)
        counts[: len(found)] += found

    for text in texts:
        line = " ".join(text.splitlines()) + "\n"
        batch.append(line)
        size += len(line)
        if size > 1 << 22:
            flush()
            batch, size = [], 0
    flush()
    return counts


def _choose_alphabet(
    counts: np.ndarray, vocab_size: int, normalizer: Any, pre_tokenizer: Any
) -> tuple[list[str], float]:
    """Returns the single-character pieces of the vocabulary, and the share of the text that they cover.

    Args:
        counts: int64 [0x110000], occurrences of each code point before normalization.
        vocab_size: size of the whole vocabulary.
        normalizer: what the text goes through first.
        pre_tokenizer: what splits it into words.
    """
    normalized: dict[str, int] = {}
    for code_point in np.flatnonzero(counts):
        for character in "".join(normalizer.normalize_str(chr(code_point)).split()):
            normalized[character] = normalized.get(character, 0) + int(counts[code_point])
    total = sum(normalized.values())
    if not total:
        raise UserError("there is no text to train a tokenizer on: the input holds no words")
    frequent = sorted(normalized, key=lambda character: (-normalized[character], character))

    room = int((vocab_size - len(base.SPECIAL_TOKENS)) * ALPHABET_SHARE)
    first, inside, covered = [], [], 0
    for character in frequent:
        # Punctuation and Chinese characters are words of their own and never stand inside one.
        word = pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(f"a{character}a"))
        pieces = 2 if len(word) == 1 else 1
        if covered >= CHARACTER_COVERAGE * total or len(first) + len(inside) + pieces > room:
            break
        first.append(character)
        inside += [CONTINUATION + character] * (pieces - 1)
        covered += normalized[character]
    if covered < LEAST_COVERAGE * total:
        raise UserError(
            f"a vocabulary of {vocab_size} is too small: this text has {len(frequent)} different characters, and the"
            f" most frequent ones that fit cover {covered / total:.1%} of it; choose a larger vocab_size"
        )
    return sorted(first) + sorted(inside), covered / total


@contextlib.contextmanager
def _all_threads() -> Iterator[None]:
    """Lets the library use all cores inside the block; what it does after a fork stays single-threaded."""
    before = os.environ[PARALLELISM]
    os.environ[PARALLELISM] = "true"
    try:
        yield
    finally:
        os.environ[PARALLELISM] = before
