"""WordPiece as in the original BERT, through the `tokenizers` library.

Text goes through Google's basic tokenization (control characters removed, Chinese characters set apart, accents
stripped and letters lowered when uncased, split at whitespace and punctuation); each word is then cut greedily into the
longest pieces of the vocabulary, pieces inside a word carrying the prefix "##".
"""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from bert_jax.errors import UserError
from bert_jax.text import tokenizer as base

CONTINUATION = "##"
VOCABULARY_FILE = "vocab.txt"

# A word with more characters than this is one [UNK], as in Hugging Face's BertTokenizer.
LONGEST_WORD = 100

# Characters are taken into the alphabet until this share of the text is covered. A word holding any other is [UNK].
CHARACTER_COVERAGE = 0.9999
# Below this share the vocabulary is called too small for the text.
LEAST_COVERAGE = 0.98
# What the alphabet may take of the vocabulary; the rest is for longer pieces.
ALPHABET_SHARE = 0.75

# Read by the library. Workers of the preparation have one process per core, so threads inside each only cost; and a
# value that is set keeps the library from warning when such workers are forked.
_PARALLELISM = "TOKENIZERS_PARALLELISM"
os.environ.setdefault(_PARALLELISM, "false")


class WordPieceTokenizer(base.Tokenizer):
    """See the module and `Tokenizer`. Settings: cased (bool)."""

    kind = "wordpiece"

    def __init__(self, tokens: Sequence[str], cased: bool, training: dict[str, Any] | None = None):
        """Makes the tokenizer of a vocabulary, `tokens` in order of ids."""
        from tokenizers import Tokenizer, decoders, models

        super().__init__(tokens, {"cased": cased}, "\n".join(tokens).encode(), training or {})
        self._backend = Tokenizer(
            models.WordPiece(
                vocab=self._ids,
                unk_token=base.UNK,
                max_input_chars_per_word=LONGEST_WORD,
                continuing_subword_prefix=CONTINUATION,
            )
        )
        self._backend.normalizer, self._backend.pre_tokenizer = _basic_tokenization(cased)
        self._backend.decoder = decoders.WordPiece(prefix=CONTINUATION)
        # The special tokens are not declared to the backend, so that nothing in a text can turn into one.

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """See `Tokenizer.encode_batch`."""
        return [encoding.ids for encoding in self._backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_with_masks(self, text: str) -> list[int]:
        """See `Tokenizer.encode_with_masks`."""
        first, *others = self.encode_batch(text.split(base.MASK))
        for part in others:
            first += [self.mask_id, *part]
        return first

    def _decode_ordinary(self, ids: Sequence[int]) -> str:
        return self._backend.decode(list(ids), skip_special_tokens=False)

    def _starts_word(self, token: str) -> bool:
        return not token.startswith(CONTINUATION)

    def _write_files(self, directory: pathlib.Path) -> None:
        from tokenizers import AddedToken, Tokenizer, processors

        (directory / VOCABULARY_FILE).write_text("".join(f"{token}\n" for token in self._tokens), encoding="utf-8")
        published = Tokenizer.from_str(self._backend.to_str())
        published.add_special_tokens(
            [AddedToken(token, special=True, normalized=False) for token in base.SPECIAL_TOKENS]
        )
        published.post_processor = processors.BertProcessing((base.SEP, self.sep_id), (base.CLS, self.cls_id))
        published.save(str(directory / "tokenizer.json"))
        base.write_json(
            directory / "tokenizer_config.json",
            {
                "tokenizer_class": "BertTokenizer",
                "do_lower_case": not self.settings["cased"],
                "strip_accents": None,
                "tokenize_chinese_chars": True,
                "clean_up_tokenization_spaces": True,
                **base.hugging_face_special_tokens(),
            },
        )

    def _library_version(self) -> dict[str, str]:
        import tokenizers

        return {"tokenizers": tokenizers.__version__}


def read_vocabulary(path: str | os.PathLike) -> list[str]:
    """Returns the tokens of a vocab.txt (one a line, in order of ids); UserError names the file and the line."""
    path = pathlib.Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"no such vocabulary: {path}") from error
    except OSError as error:
        raise UserError(f"cannot read the vocabulary {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 at byte {error.start}: a vocabulary is a text file, one token a line"
        ) from error
    # Not splitlines(): some vocabularies hold U+2028 and its like as tokens.
    tokens = [line.rstrip("\r") for line in text.split("\n")]
    while tokens and not tokens[-1]:
        tokens.pop()
    if not tokens:
        raise UserError(f"{path} is empty: a vocabulary has one token a line")
    lines: dict[str, int] = {}
    for number, token in enumerate(tokens, start=1):
        if not token:
            raise UserError(f"{path}:{number}: empty line: a vocabulary has one token a line")
        if token in lines:
            raise UserError(f"{path}:{number}: {token!r} is already on line {lines[token]}: tokens must differ")
        lines[token] = number
    missing = [token for token in base.SPECIAL_TOKENS if token not in lines]
    if missing:
        raise UserError(f"{path} has no {', '.join(missing)}: add a line for each, BERT needs them")
    return tokens


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

    normalizer, pre_tokenizer = _basic_tokenization(cased)
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


def _basic_tokenization(cased: bool) -> tuple[Any, Any]:
    """Returns the library's normalizer and pre-tokenizer for Google's basic tokenization."""
    from tokenizers import normalizers, pre_tokenizers

    # strip_accents=None means "when lower-casing", as in the original.
    normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=not cased
    )
    return normalizer, pre_tokenizers.BertPreTokenizer()


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
    before = os.environ[_PARALLELISM]
    os.environ[_PARALLELISM] = "true"
    try:
        yield
    finally:
        os.environ[_PARALLELISM] = before
