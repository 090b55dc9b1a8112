"""What every tokenizer offers, and the description that makes a saved one speak for itself.

A saved tokenizer is a directory. The file `bert_jax_tokenizer.json` in it describes it: kind, settings, size, special
tokens, how it was trained, a sample with the ids that it must give, and the fingerprint. Beside it lie the files that
Hugging Face's libraries read.
"""

import abc
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bert_jax.durable_files import publish, unfinished_folder
from bert_jax.errors import UserError
from bert_jax.text.offsets import Pieces, repair, repaired_positions, with_marks

PAD, UNK, CLS, SEP, MASK = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

DESCRIPTION_FILE = "bert_jax_tokenizer.json"
DESCRIPTION_VERSION = 1

# Tokens of a vocabulary; published ones of BERT have up to half a million. More are refused before they fill memory.
MOST_TOKENS = 1_000_000
# Bytes of a vocabulary or a model, and of a JSON file that holds one.
LARGEST_TOKENIZER_FILE = 64 << 20

# What the round trip is checked on where no training text gives a sample.
DEFAULT_SAMPLE = "The quick brown fox jumps over the lazy dog, 27 times in 1984."


class Tokenizer(abc.ABC):
    """Turns strings into ids and back.

    Attributes:
        kind: "wordpiece" or "sentencepiece".
        vocab_size: number of ids.
        fingerprint: sha256 in hex of all that decides the ids; equal fingerprints, equal ids for every text.
        settings: the choices behind the fingerprint, as JSON values (cased, algorithm, ...).
        training: how it came to be (input, documents, bytes, ...), as JSON values; decides nothing.
        pad_id, unk_id, cls_id, sep_id, mask_id: ids of the special tokens.
        starts_word: bool [vocab_size], whether a piece begins a word; whole-word masking groups pieces by it.
    """

    kind: str

    def __init__(self, tokens: Sequence[str], settings: dict[str, Any], content: bytes, training: dict[str, Any]):
        """Sets what all kinds share.

        Args:
            tokens: the vocabulary in order of ids.
            settings: see the class.
            content: the vocabulary or model as bytes; with `settings` it decides the ids.
            training: see the class.
        """
        if len(tokens) > MOST_TOKENS:
            raise UserError(f"the vocabulary has {len(tokens):,} tokens: at most {MOST_TOKENS:,} are allowed")
        self.settings = dict(settings)
        self.training = dict(training)
        self._tokens = list(tokens)
        self._ids = {token: index for index, token in enumerate(self._tokens)}
        self.vocab_size = len(self._tokens)
        missing = [token for token in SPECIAL_TOKENS if token not in self._ids]
        if missing:
            raise UserError(f"the vocabulary has no {', '.join(missing)}: BERT needs {', '.join(SPECIAL_TOKENS)}")
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (self._ids[t] for t in SPECIAL_TOKENS)
        self.fingerprint = fingerprint_of(self.kind, self.settings, content)
        self.starts_word = np.array([self._starts_word(token) for token in self._tokens], dtype=bool)

    @property
    def special_ids(self) -> tuple[int, ...]:
        """Ids of [PAD], [UNK], [CLS], [SEP], [MASK], in this order."""
        return (self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id)

    @abc.abstractmethod
    def _encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Like `encode_batch`."""

    @abc.abstractmethod
    def _encode_with_offsets(self, texts: Sequence[str]) -> list[Pieces]:
        """Like `encode_with_offsets`, of texts that are Unicode; marks may be left outside of the spans."""

    @abc.abstractmethod
    def encode_with_masks(self, text: str) -> list[int]:
        """Like `encode_batch` of one text, but each literal "[MASK]" becomes `mask_id`."""

    @abc.abstractmethod
    def _decode_ordinary(self, ids: Sequence[int]) -> str:
        """Returns the text of ids none of which is special."""

    @abc.abstractmethod
    def _starts_word(self, token: str) -> bool:
        """Whether the piece begins a word."""

    @abc.abstractmethod
    def _write_files(self, directory: pathlib.Path) -> None:
        """Writes the vocabulary and the files of Hugging Face's conventions."""

    @abc.abstractmethod
    def _library_version(self) -> dict[str, str]:
        """Name and version of the library behind the kind."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text, without special tokens; a literal "[MASK]" is ordinary text.

        Raises:
            TypeError: it is a single text, or not a list of texts.
        """
        return self._encode_batch(_list_of_texts(texts, "encode_batch"))

    def encode_with_offsets(self, texts: Sequence[str]) -> list[Pieces]:
        """Returns the pieces of each text, with their places in it as it was given; ids as `encode_batch` gives.

        Raises:
            TypeError: it is a single text, or not a list of texts.
        """
        texts = _list_of_texts(texts, "encode_with_offsets")
        repaired = [repair(text) for text in texts]
        encoded = self._encode_with_offsets(repaired)
        for index, (text, sound) in enumerate(zip(texts, repaired, strict=True)):
            pieces = with_marks(sound, encoded[index])
            if text != sound:
                positions = repaired_positions(text, sound)
                pieces = pieces._replace(starts=positions[pieces.starts], ends=positions[pieces.ends])
            encoded[index] = pieces
        return encoded

    def decode(self, ids: Sequence[int]) -> str:
        """Returns readable text: [PAD], [CLS] and [SEP] are left out, [MASK] and [UNK] are written as such."""
        parts, ordinary = [], []
        for index in [int(i) for i in ids]:
            if index not in self.special_ids:
                ordinary.append(index)
                continue
            if ordinary:
                parts.append(self._decode_ordinary(ordinary))
                ordinary = []
            if index in (self.mask_id, self.unk_id):
                parts.append(self._tokens[index])
        if ordinary:
            parts.append(self._decode_ordinary(ordinary))
        return " ".join(part for part in parts if part)

    def id_to_token(self, index: int) -> str:
        """Returns the piece with this id; IndexError if there is none."""
        if not 0 <= index < self.vocab_size:
            raise IndexError(f"id {index} is outside the vocabulary of {self.vocab_size}")
        return self._tokens[index]

    def token_to_id(self, token: str) -> int | None:
        """Returns the id of the piece, or None if it is not in the vocabulary."""
        return self._ids.get(token)

    def save(self, directory: str | os.PathLike) -> None:
        """Writes the tokenizer as a directory, at once or not at all; it is on disk when this returns.

        The directory must not exist, or be empty; otherwise, and where it cannot be written, a UserError.
        """
        target = pathlib.Path(directory)
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise UserError(f"{target} exists already: nothing is overwritten; choose another directory")
        sample = self.training.get("sample") or DEFAULT_SAMPLE
        description = {
            "version": DESCRIPTION_VERSION,
            "kind": self.kind,
            "settings": self.settings,
            "vocab_size": self.vocab_size,
            "special_tokens": dict(zip(SPECIAL_TOKENS, self.special_ids, strict=True)),
            "library": self._library_version(),
            "training": self.training,
            "sample": {"text": sample, "ids": self.encode_batch([sample])[0]},
            "fingerprint": self.fingerprint,
        }
        with unfinished_folder(target) as folder:
            self._write_files(folder)
            write_json(folder / DESCRIPTION_FILE, description)
            publish(folder, target)


def fingerprint_of(kind: str, settings: Mapping[str, Any], content: bytes) -> str:
    """Returns the fingerprint of a tokenizer of that kind, with those settings and that vocabulary or model."""
    deciding = json.dumps({"kind": kind, **settings}, sort_keys=True).encode() + b"\0" + content
    return hashlib.sha256(deciding).hexdigest()


def refuse_single_text(texts: Iterable[str], function: str) -> None:
    """Raises a TypeError for a text where several belong: it would be cut into letters without a word.

    Args:
        texts: what was given.
        function: that it was given to, for the message.
    """
    if isinstance(texts, str):
        shown = texts if len(texts) <= 40 else f"{texts[:40]}..."
        raise TypeError(f"{function} takes a list of texts, not a single one: write {function}([{shown!r}])")


def _list_of_texts(texts: Iterable[str], function: str) -> list[str]:
    """Returns the texts as a list; a TypeError if they are none. Arguments as of `refuse_single_text`."""
    refuse_single_text(texts, function)
    texts = list(texts)
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(
                f"{function} takes a list of texts, and number {index} of these is a {type(text).__name__}: write str"
            )
    return texts


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes JSON for people: indented, in UTF-8, ending in a newline."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def hugging_face_special_tokens() -> dict[str, str]:
    """Returns the entries of tokenizer_config.json that name the special tokens."""
    return dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL_TOKENS, strict=True))
