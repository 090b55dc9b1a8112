"""Training, saving and loading tokenizers of either kind.

`load_tokenizer` opens what `Tokenizer.save` wrote, checked (files, sizes, special tokens and a round trip), and the
directories of others, with a tokenizer.json or a vocab.txt and nothing of ours.
"""

import os
import pathlib
import tempfile
from collections.abc import Iterable
from typing import Any

from bert_jax.errors import UserError
from bert_jax.text import sentencepiece, wordpiece, wordpiece_training
from bert_jax.text.files import read_bounded
from bert_jax.text.json_files import expect_type, read_json_object
from bert_jax.text.published_tokenizers import CONFIG_FILE, TOKENIZER_FILE, load_published_tokenizer
from bert_jax.text.sentencepiece import ALGORITHMS, SentencePieceTokenizer
from bert_jax.text.tokenizer import (
    DESCRIPTION_FILE,
    DESCRIPTION_VERSION,
    LARGEST_TOKENIZER_FILE,
    MOST_TOKENS,
    SPECIAL_TOKENS,
    Tokenizer,
    fingerprint_of,
    refuse_single_text,
)
from bert_jax.text.wordpiece import WordPieceTokenizer, read_vocabulary

__all__ = [
    "ALGORITHMS",
    "KINDS",
    "SPECIAL_TOKENS",
    "SentencePieceTokenizer",
    "Tokenizer",
    "WordPieceTokenizer",
    "holds_tokenizer",
    "load_tokenizer",
    "read_description",
    "tokenizer_files",
    "train_tokenizer",
    "wrap_vocabulary",
]

KINDS = ("wordpiece", "sentencepiece")
_REMEDY = "train or copy the tokenizer again"

# All that `Tokenizer.save` writes.
_FILES = (DESCRIPTION_FILE, wordpiece.VOCABULARY_FILE, TOKENIZER_FILE, CONFIG_FILE, sentencepiece.MODEL_FILE)

_FIELDS = {
    "version": int,
    "kind": str,
    "settings": dict,
    "vocab_size": int,
    "special_tokens": dict,
    "training": dict,
    "sample": dict,
    "fingerprint": str,
}


def train_tokenizer(
    texts: Iterable[str],
    kind: str = "wordpiece",
    vocab_size: int = 8192,
    *,
    cased: bool = False,
    algorithm: str = "unigram",
    training: dict[str, Any] | None = None,
) -> Tokenizer:
    """Learns a tokenizer; the same texts and arguments give the same one, bit for bit.

    Args:
        texts: passages of any length, consumed once.
        kind: "wordpiece" or "sentencepiece".
        vocab_size: number of ids, the five special tokens (ids 0 to 4) included.
        cased: keep case (and, for wordpiece, accents).
        algorithm: of sentencepiece, "unigram" or "bpe".
        training: a record of where the texts came from, kept in the description; `sample`, if given, is the text that
            loading is checked with.

    Raises:
        UserError: unknown kind or algorithm, no text, or a vocabulary size that does not fit the text.
        TypeError: it is a single text, not several.
    """
    refuse_single_text(texts, "train_tokenizer")
    if vocab_size > MOST_TOKENS:
        raise UserError(f"a vocabulary of {vocab_size} is too large: at most {MOST_TOKENS:,} tokens are allowed")
    if kind == "wordpiece":
        return wordpiece_training.train_wordpiece(texts, vocab_size, cased, training)
    if kind == "sentencepiece":
        return sentencepiece.train_sentencepiece(texts, vocab_size, cased, algorithm, training)
    raise UserError(f"unknown kind of tokenizer {kind!r}: choose one of {', '.join(KINDS)}")


def wrap_vocabulary(
    path: str | os.PathLike, *, cased: bool, training: dict[str, Any] | None = None
) -> WordPieceTokenizer:
    """Returns the WordPiece tokenizer of a given vocab.txt, ids as in the file."""
    return WordPieceTokenizer(read_vocabulary(path), cased, training)


def read_description(directory: str | os.PathLike) -> dict[str, Any] | None:
    """Returns the description in a tokenizer's directory, or None if there is none; UserError if it is damaged."""
    path = pathlib.Path(directory) / DESCRIPTION_FILE
    if not path.is_file():
        return None
    description = read_json_object(path, _REMEDY, largest=LARGEST_TOKENIZER_FILE)
    for name, kind in _FIELDS.items():
        expect_type(description.get(name), kind, f"{path}: {name}", _REMEDY)
    if description["version"] != DESCRIPTION_VERSION:
        raise UserError(
            f"{path} has version {description['version']}, this code reads {DESCRIPTION_VERSION}: train it again"
        )
    return description


def holds_tokenizer(directory: str | os.PathLike) -> bool:
    """Whether `load_tokenizer` would find a tokenizer in a directory, damaged or not."""
    names = (DESCRIPTION_FILE, TOKENIZER_FILE, wordpiece.VOCABULARY_FILE)
    return any((pathlib.Path(directory) / name).exists() for name in names)


def load_tokenizer(directory: str | os.PathLike) -> Tokenizer:
    """Opens a tokenizer's directory and checks it.

    Raises:
        UserError: nothing there, or a file is missing, damaged or does not fit the others; names the file.
    """
    directory = pathlib.Path(directory)
    if not directory.is_dir():
        raise UserError(f"no such tokenizer: {directory} is not a directory; make one with launch.train_tokenizer")
    description = read_description(directory)
    if description is None:
        return load_published_tokenizer(directory)
    path = directory / DESCRIPTION_FILE
    kind, settings, training = description["kind"], description["settings"], description["training"]
    expect_type(training.get("sample"), str | None, f"{path}: training.sample", _REMEDY)
    try:
        if kind == "wordpiece":
            file = directory / wordpiece.VOCABULARY_FILE
            rules = wordpiece.check_rules(settings, path)
            tokenizer: Tokenizer = WordPieceTokenizer(read_vocabulary(file), settings["cased"], training, rules=rules)
        elif kind == "sentencepiece":
            file = directory / sentencepiece.MODEL_FILE
            model = read_bounded(file, LARGEST_TOKENIZER_FILE, _REMEDY)
            chosen = {"cased": settings["cased"], "algorithm": settings["algorithm"]}
            # Before the library sees it, which does not survive every damage.
            if fingerprint_of(kind, chosen, model) != description["fingerprint"]:
                raise _another(file, path)
            tokenizer = sentencepiece.load_model(file, model, **chosen, training=training)
        else:
            raise UserError(f"{path}: unknown kind {kind!r:.60}: known are {', '.join(KINDS)}")
    except KeyError as error:
        raise UserError(f"{path} is damaged (settings has no {error}): train or copy the tokenizer again") from error
    _check(tokenizer, description, file, path)
    return tokenizer


def tokenizer_files(tokenizer: Tokenizer, directory: pathlib.Path | None) -> dict[str, bytes]:
    """Returns the files of a tokenizer, by their names in a checkpoint, from which `load_tokenizer` makes it again.

    What `Tokenizer.save` wrote is copied. The files of others are written anew, as some of what they mean stands in
    files beside them; and so is a folder with links, as what a link points to may be nobody's business.

    Args:
        tokenizer: a tokenizer.
        directory: where it was opened; None if it lies nowhere yet.

    Raises:
        UserError: a file cannot be read any more.
    """
    paths = [directory / name for name in _FILES if (directory / name).is_file()] if directory else []
    if paths and paths[0].name == DESCRIPTION_FILE and not any(path.is_symlink() for path in paths):
        return {f"tokenizer/{path.name}": read_bounded(path, LARGEST_TOKENIZER_FILE, _REMEDY) for path in paths}
    with tempfile.TemporaryDirectory() as folder:
        saved = pathlib.Path(folder) / "tokenizer"
        tokenizer.save(saved)
        return {f"tokenizer/{path.name}": path.read_bytes() for path in sorted(saved.iterdir())}


def _check(tokenizer: Tokenizer, description: dict[str, Any], file: pathlib.Path, path: pathlib.Path) -> None:
    """Compares a tokenizer with its description (in `path`); `file` is what it was read from."""
    if tokenizer.vocab_size != description["vocab_size"]:
        raise UserError(
            f"{file} holds {tokenizer.vocab_size} tokens, but {path} says {description['vocab_size']}:"
            " copy the tokenizer again"
        )
    special_tokens = dict(zip(SPECIAL_TOKENS, tokenizer.special_ids, strict=True))
    if special_tokens != description["special_tokens"]:
        raise UserError(f"{file} has other ids of special tokens than {path}: copy the tokenizer again")
    if tokenizer.fingerprint != description["fingerprint"]:
        raise _another(file, path)
    sample = description["sample"]
    expect_type(sample.get("text"), str, f"{path}: sample.text", _REMEDY)
    if tokenizer.encode_batch([sample["text"]])[0] != sample.get("ids"):
        raise UserError(
            f"{file} does not give the ids that {path} expects of its sample: the installed library"
            f" ({tokenizer._library_version()}) may differ from the one it was made with"
            f" ({description.get('library')!s:.60}); train it again, or install that one"
        )


def _another(file: pathlib.Path, path: pathlib.Path) -> UserError:
    return UserError(f"{file} is not the one that {path} describes (fingerprints differ): copy the tokenizer again")
