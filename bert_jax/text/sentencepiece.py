"""SentencePiece, unigram or BPE, with the special tokens of BERT.

Pieces are cut from raw text; a piece that begins a word carries the prefix U+2581. Uncased models fold case when they
normalize (rule `nmt_nfkc_cf`), so that the model file alone decides the ids.
"""

import io
import pathlib
import random
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from bert_jax.errors import UserError
from bert_jax.text import tokenizer as base
from bert_jax.text.offsets import Pieces, repair
from bert_jax.text.passage import cut_text

MODEL_FILE = "spiece.model"
ALGORITHMS = ("unigram", "bpe")
WORD_START = "\u2581"

# The share of the text whose characters get a piece; any other character is one [UNK]. The library's default.
CHARACTER_COVERAGE = 0.9995

# The trainer skips lines of more bytes than it is told; texts are cut to this many characters so that none is skipped.
_LONGEST_LINE = 500
# The trainer holds its text in memory, some 20 bytes a character: at most this many lines, drawn from longer texts.
_MOST_LINES = 100_000
# The trainer sums in one order per number of threads: a constant, whatever the machine, keeps the result the same.
_TRAINING_THREADS = 8


class SentencePieceTokenizer(base.Tokenizer):
    """See the module and `Tokenizer`. Settings: cased (bool), algorithm ("unigram" or "bpe")."""

    kind = "sentencepiece"

    def __init__(self, model: bytes, cased: bool, algorithm: str, training: dict[str, Any] | None = None):
        """Makes the tokenizer of a serialized model; RuntimeError if the library cannot read it."""
        from sentencepiece import SentencePieceProcessor

        self._model = model
        self._processor = SentencePieceProcessor(model_proto=model)
        tokens = [self._processor.id_to_piece(index) for index in range(self._processor.get_piece_size())]
        super().__init__(tokens, {"cased": cased, "algorithm": algorithm}, model, training or {})

    def _encode_batch(self, texts: list[str]) -> list[list[int]]:
        try:
            return self._processor.encode(texts, out_type=int, num_threads=1)
        except (RuntimeError, TypeError):
            # What is no text in Unicode (halves of surrogate pairs) is rare, so that only then each text is looked at.
            return self._processor.encode([repair(text) for text in texts], out_type=int, num_threads=1)

    def _encode_with_offsets(self, texts: Sequence[str]) -> list[Pieces]:
        encodings = self._processor.encode(list(texts), out_type="offset_mapping", num_threads=1)
        return [_without_spaces(text, encoding) for text, encoding in zip(texts, encodings, strict=True)]

    def encode_with_masks(self, text: str) -> list[int]:
        """See `Tokenizer.encode_with_masks`.

        A mask stands for a piece that begins a word if a space is before it; what follows without a space continues.
        """
        # Encoding the parts one by one would make each begin a word. So a character that the model does not know, and
        # that it therefore leaves as it is, holds the place of each mask.
        place = next(
            character
            for character in map(chr, range(0xE000, 0xF8FF))
            if character not in text and self.token_to_id(character) is None
        )
        ids: list[int] = []
        for piece in self._processor.encode(text.replace(base.MASK, place), out_type=str):
            if place not in piece:
                ids.append(self._processor.piece_to_id(piece))
                continue
            if ids and ids[-1] == self.token_to_id(WORD_START):
                ids.pop()
            runs = re.findall(f"{place}|[^{place}{WORD_START}]+", piece)
            ids += [self.mask_id if run == place else self.unk_id for run in runs]
        return ids

    def _decode_ordinary(self, ids: Sequence[int]) -> str:
        return self._processor.decode(list(ids))

    def _starts_word(self, token: str) -> bool:
        # Punctuation is a word of its own, as in WordPiece; and scripts that are written without spaces (Chinese,
        # Japanese, Thai) mark no words, so that there each piece counts as one.
        first = token[:1]
        return first == WORD_START or not first.isalnum() or _is_written_without_spaces(first)

    def _write_files(self, directory: pathlib.Path) -> None:
        (directory / MODEL_FILE).write_bytes(self._model)
        base.write_json(
            directory / "tokenizer_config.json",
            {
                "tokenizer_class": "AlbertTokenizer",
                "do_lower_case": not self.settings["cased"],
                "keep_accents": True,
                "remove_space": True,
                "bos_token": base.CLS,
                "eos_token": base.SEP,
                **base.hugging_face_special_tokens(),
            },
        )

    def _library_version(self) -> dict[str, str]:
        import sentencepiece

        return {"sentencepiece": sentencepiece.__version__}


def train_sentencepiece(
    texts: Iterable[str],
    vocab_size: int,
    cased: bool,
    algorithm: str = "unigram",
    training: dict[str, Any] | None = None,
) -> SentencePieceTokenizer:
    """Learns a model from `texts`; the same texts give the same model, bit for bit.

    Args:
        texts: consumed once; from very long corpora a random sample of lines is kept.
        vocab_size: the exact size, special tokens included.
        cased: keep case.
        algorithm: "unigram" or "bpe".
        training: kept in the tokenizer's description, beside the statistics that are added here.

    Raises:
        UserError: no text, or a size that does not fit it.
    """
    from sentencepiece import SentencePieceTrainer

    if algorithm not in ALGORITHMS:
        raise UserError(f"unknown algorithm {algorithm!r}: choose one of {', '.join(ALGORITHMS)}")
    lines, seen = _sample_lines(texts, _MOST_LINES)
    if not lines:
        raise UserError("there is no text to train a tokenizer on: the input holds no words")
    model = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type=algorithm,
            vocab_size=vocab_size,
            character_coverage=CHARACTER_COVERAGE,
            normalization_rule_name="nmt_nfkc" if cased else "nmt_nfkc_cf",
            max_sentence_length=4 * _LONGEST_LINE + 4,
            num_threads=_TRAINING_THREADS,
            # Ids 0 to 4. Control symbols are never found in a text, so a literal "[MASK]" stays ordinary.
            pad_id=0,
            unk_id=1,
            bos_id=2,
            eos_id=3,
            pad_piece=base.PAD,
            unk_piece=base.UNK,
            bos_piece=base.CLS,
            eos_piece=base.SEP,
            control_symbols=[base.MASK],
            minloglevel=2,
        )
    except RuntimeError as error:
        raise UserError(_explain(str(error), vocab_size)) from error
    statistics = {"requested_vocab_size": vocab_size, "lines": seen, "lines_used": len(lines)}
    return SentencePieceTokenizer(model.getvalue(), cased, algorithm, {**(training or {}), **statistics})


def load_model(
    path: pathlib.Path, model: bytes, cased: bool, algorithm: str, training: dict[str, Any]
) -> SentencePieceTokenizer:
    """Opens a model that was read from `path`; UserError if it is damaged."""
    try:
        return SentencePieceTokenizer(model, cased, algorithm, training)
    except (RuntimeError, UnicodeDecodeError) as error:  # the latter for a piece that is not UTF-8
        raise UserError(f"{path} is damaged (no SentencePiece model): train or copy the tokenizer again") from error


def _sample_lines(texts: Iterable[str], most: int) -> tuple[list[str], int]:
    """Returns at most `most` lines, drawn uniformly and reproducibly, and how many lines there were."""
    generator = random.Random(0)
    lines: list[str] = []
    seen = 0
    for text in texts:
        for line in cut_text(" ".join(text.split()), _LONGEST_LINE):
            seen += 1
            if len(lines) < most:
                lines.append(line)
            elif (place := generator.randrange(seen)) < most:
                lines[place] = line
    return lines, seen


def _explain(message: str, vocab_size: int) -> str:
    """Turns the trainer's complaint about the vocabulary's size into what the user can do."""
    if found := re.search(r"too high .*<= (\d+)", message):
        return (
            f"a vocabulary of {vocab_size} is larger than this text supports:"
            f" set vocab_size to {found[1]} or less, or give more text"
        )
    if found := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return (
            f"a vocabulary of {vocab_size} is too small: the characters of this text alone need {found[1]};"
            " choose a larger vocab_size"
        )
    return f"SentencePiece cannot be trained on this text with a vocabulary of {vocab_size}: {message}"


def _without_spaces(text: str, encoding: dict[str, Any]) -> Pieces:
    """Returns pieces whose spans do not begin with the space that the mark of a word's beginning stands for."""
    spans = np.asarray(encoding["offsets"], np.int32).reshape(-1, 2)
    starts, ends = spans[:, 0], spans[:, 1]
    # From the end: of a character that is normalized to several pieces (a ligature, a fraction), the library gives its
    # span to the last alone, and an empty one to the others.
    for index, piece in reversed(list(enumerate(encoding["pieces"]))):
        start, end = int(starts[index]), int(ends[index])
        while start < end and _is_space(text[start]) and text[start] not in piece:
            start += 1
        if start == end and piece != WORD_START and index + 1 < len(starts) and starts[index + 1] == start:
            end = int(ends[index + 1])
        starts[index], ends[index] = start, end
    return Pieces(encoding["ids"], starts, ends)


def _is_space(character: str) -> bool:
    """Whether the library's normalization makes a space of the character, as of U+200B, or removes it."""
    return character.isspace() or unicodedata.category(character) in ("Cf", "Cc")


def _is_written_without_spaces(character: str) -> bool:
    code_point = ord(character)
    return (
        0x0E00 <= code_point <= 0x0EFF  # Thai, Lao
        or 0x3040 <= code_point <= 0x30FF  # kana
        or 0x3400 <= code_point <= 0x4DBF
        or 0x4E00 <= code_point <= 0x9FFF
        or 0xF900 <= code_point <= 0xFAFF
        or 0x20000 <= code_point <= 0x323AF
    )
