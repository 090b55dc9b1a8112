"""Learns a tokenizer from text, wraps a given vocab.txt, or adds words to a model's, and saves it as a directory.

Example: python -m launch.train_tokenizer --input='corpus/*.txt' --kind=wordpiece --vocab_size=8192 --output=tokenizer
Example: python -m launch.train_tokenizer --from=MODEL_OR_TOKENIZER --add_words=words.txt --output=tokenizer
"""

import hashlib
import itertools
import os
import pathlib
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from absl import flags

from bert_jax.durable_files import check_can_write
from bert_jax.errors import UserError
from bert_jax.text import tokenizer as tokenizer_files
from bert_jax.text import tokenizers
from bert_jax.text.added_words import Listing, add_words
from bert_jax.text.documents import FORMATS, Passage, check_inputs, describe_inputs, read_passages
from bert_jax.text.files import read_lines
from bert_jax.text.json_files import expect_type
from launch.command import run
from launch.flag_conditions import only_where

DEFAULT_VOCAB_SIZE = 8192
SMALLEST_VOCAB_SIZE = 100
_MOST_TRAINING_MB = 10**9
SAMPLE_CHARACTERS = 200
# Of a listing of added words, this many are printed; all are in the tokenizer's description.
LISTED_WORDS = 20


def define_flags(values: flags.FlagValues) -> None:
    """Adds the flags of this launcher."""
    text = {"flag_values": values}
    flags.DEFINE_string("input", None, "Text: a glob, `pydocs`, or `tfds:NAME[/CONFIG][:FEATURE]`.", **text)
    flags.DEFINE_enum("kind", "wordpiece", tokenizers.KINDS, "Kind of tokenizer.", **text)
    flags.DEFINE_integer(
        "vocab_size",
        None,
        f"Number of ids, special tokens included; {DEFAULT_VOCAB_SIZE} by default.",
        upper_bound=tokenizer_files.MOST_TOKENS,
        **text,
    )
    flags.DEFINE_string("output", None, "Directory that will hold the tokenizer.", **text)
    flags.DEFINE_enum("algorithm", None, tokenizers.ALGORITHMS, "Of sentencepiece; unigram by default.", **text)
    flags.DEFINE_bool("cased", False, "Keep case (and, with wordpiece, accents).", **text)
    flags.DEFINE_string("vocab_file", None, "Wrap this vocab.txt (wordpiece) instead of learning one.", **text)
    flags.DEFINE_string("from", None, "A model or tokenizer whose vocabulary gets the words of --add_words.", **text)
    flags.DEFINE_string("add_words", None, "File of words, one a line, that become tokens of --from.", **text)
    flags.DEFINE_enum("format", "auto", FORMATS, "Format of the files of --input.", **text)
    flags.DEFINE_integer(
        "max_training_mb",
        1000,
        "Learn from this many MB of text at most.",
        lower_bound=1,
        upper_bound=_MOST_TRAINING_MB,
        **text,
    )
    only_where(
        values,
        ("input", "vocab_file", "vocab_size", "kind", "algorithm", "cased", "format", "max_training_mb"),
        lambda given: not given["from"].value and not given.add_words,
        "does not go with --from and --add_words: everything else stays as it is in --from",
    )
    only_where(
        values,
        ("input", "vocab_size", "format", "max_training_mb"),
        lambda given: not given.vocab_file,
        "does not go with --vocab_file: nothing is learned from text; leave it out",
    )
    only_where(
        values,
        ["algorithm"],
        lambda given: given.kind == "sentencepiece",
        "goes with --kind=sentencepiece only: leave it out, or change the kind",
    )


def execute(values: flags.FlagValues) -> int:
    """Learns, wraps or extends the tokenizer, saves it and prints a summary."""
    if values["from"].value or values.add_words:
        return _add_words(values)
    output = _output(values)
    request = _request(values)
    if _is_done(output, request):
        print(f"already there, made with the same settings: {output}")
        return 0
    if not values.vocab_file:
        check_inputs(values.input, values.format)
    check_can_write(output)

    training: dict[str, Any] = {"request": request}
    started = time.perf_counter()
    if values.vocab_file:
        tokenizer = tokenizers.wrap_vocabulary(values.vocab_file, cased=values.cased, training=training)
    else:
        # The first passage is read now: what is wrong with the beginning shows before anything is drawn.
        passages = read_passages(values.input, values.format)
        first = list(itertools.islice(passages, 1))
        if not first:
            raise UserError(f"--input={values.input} holds no text to learn from")
        print(f"reading {values.input}: {describe_inputs(values.input, values.format)}")
        tokenizer = tokenizers.train_tokenizer(
            _read_texts(itertools.chain(first, passages), values.max_training_mb, training),
            request["kind"],
            request["vocab_size"],
            cased=values.cased,
            algorithm=request["algorithm"] or "unigram",
            training=training,
        )
    tokenizer.save(output)
    _print_summary(tokenizer, time.perf_counter() - started, output)
    return 0


def _add_words(values: flags.FlagValues) -> int:
    """Adds words to the vocabulary of a model or tokenizer, saves it and prints which."""
    source, words_file = values["from"].value, values.add_words
    if not source or not words_file:
        raise UserError("--from and --add_words go together: a model or tokenizer, and a file of words, one a line")
    output = _output(values)
    words = [line for _, line in read_lines(words_file)]
    tokenizer = _open_tokenizer(source)
    request = {
        "from": source,
        "from_fingerprint": tokenizer.fingerprint,
        "add_words": words_file,
        "words_sha256": hashlib.sha256("\n".join(words).encode()).hexdigest(),
    }
    changed, listing = add_words(tokenizer, words, words_file, {"request": request})
    if _is_done(output, request):
        print(f"already there, made with the same settings: {output}")
        return 0
    changed.save(output)
    _print_listing(tokenizer, changed, listing)
    print(f"tokenizer is in {output}")
    return 0


def _open_tokenizer(source: str) -> tokenizers.Tokenizer:
    """Opens a tokenizer's directory or, if it is none, the tokenizer that a model has."""
    if tokenizers.holds_tokenizer(source):
        return tokenizers.load_tokenizer(source)
    from bert_jax.training.saved_models import LATEST
    from launch.model_choice import open_chosen

    return open_chosen(source, LATEST, "from").load_tokenizer()


def _output(values: flags.FlagValues) -> pathlib.Path:
    if not values.output:
        raise UserError("--output is missing: give the directory that will hold the tokenizer")
    return pathlib.Path(values.output)


def _request(values: flags.FlagValues) -> dict[str, Any]:
    """Returns what the flags ask for, as JSON values; two runs with equal requests make the same tokenizer."""
    if values.vocab_file:
        if values.kind != "wordpiece":
            raise UserError("--vocab_file goes with --kind=wordpiece: leave one of them out")
        return {"vocab_file": values.vocab_file, "kind": values.kind, "cased": values.cased}
    if not values.input:
        raise UserError("--input is missing: give a glob, pydocs or tfds:NAME (or a vocabulary with --vocab_file)")
    vocab_size = DEFAULT_VOCAB_SIZE if values.vocab_size is None else values.vocab_size
    if vocab_size < SMALLEST_VOCAB_SIZE:
        raise UserError(
            f"--vocab_size={vocab_size} is too small: special tokens and letters alone need about"
            f" {SMALLEST_VOCAB_SIZE}; {DEFAULT_VOCAB_SIZE} to 32768 are usual"
        )
    return {
        "input": values.input,
        "format": values.format,
        "kind": values.kind,
        "algorithm": (values.algorithm or "unigram") if values.kind == "sentencepiece" else None,
        "vocab_size": vocab_size,
        "cased": values.cased,
        "max_training_mb": values.max_training_mb,
    }


def _is_done(output: pathlib.Path, request: dict[str, Any]) -> bool:
    """Whether `output` holds the tokenizer that is asked for; a UserError if it holds anything else."""
    if not os.path.lexists(output):
        return False
    if not output.is_dir():
        raise UserError(f"{output} is a file: --output must name a directory")
    try:
        if not any(output.iterdir()):
            return False
    except OSError as error:
        raise UserError(f"cannot read {output}: {error.strerror or error}") from error
    description = tokenizers.read_description(output)
    if description is None:
        raise UserError(f"{output} is not empty and holds no tokenizer of this program: choose another --output")
    place = f"{output / tokenizer_files.DESCRIPTION_FILE}: training.request"
    made_with = expect_type(description["training"].get("request", {}), dict, place, "choose another --output")
    different = sorted(name for name in {*request, *made_with} if request.get(name) != made_with.get(name))
    if different:
        name = different[0]
        raise UserError(
            f"{output} holds a tokenizer made with {name}={made_with.get(name)!r}, not {request.get(name)!r}:"
            " choose another --output, or remove it first"
        )
    tokenizers.load_tokenizer(output)
    return True


def _read_texts(passages: Iterable[Passage], most_mb: int, statistics: dict[str, Any]) -> Iterator[str]:
    """Yields texts up to `most_mb`, and leaves documents, bytes and a sample in `statistics` when they end."""
    from tqdm import tqdm

    documents = size = 0
    last = sample = None
    with tqdm(unit="B", unit_scale=True, desc="reading", file=sys.stderr) as progress:
        for passage in passages:
            length = len(passage.text) if passage.text.isascii() else len(passage.text.encode("utf-8", "replace"))
            if size + length > most_mb * 1_000_000:
                break
            if passage.document_id != last:
                documents, last = documents + 1, passage.document_id
            size += length
            progress.update(length)
            # A heading or title says little; the first real paragraph does.
            if sample is None or (len(sample) < 40 and len(passage.text) >= 40):
                sample = " ".join(passage.text[:SAMPLE_CHARACTERS].split())
            yield passage.text
    statistics.update(documents=documents, bytes=size, sample=sample)


def _print_summary(tokenizer: tokenizers.Tokenizer, seconds: float, output: pathlib.Path) -> None:
    training = tokenizer.training
    if "bytes" in training:
        megabytes = training["bytes"] / 1e6
        print(
            f"{training['documents']} documents, {megabytes:.1f} MB, {seconds:.1f} seconds,"
            f" {megabytes / seconds:.1f} MB/s"
        )
    requested = training.get("requested_vocab_size", tokenizer.vocab_size)
    print(f"{tokenizer.kind}, {'cased' if tokenizer.settings['cased'] else 'uncased'}, {tokenizer.vocab_size} tokens")
    if tokenizer.vocab_size < requested:
        print(f"note: the text has pieces for {tokenizer.vocab_size} tokens only, not for the {requested} asked for")
    sample = training.get("sample") or tokenizer_files.DEFAULT_SAMPLE
    pieces = [tokenizer.id_to_token(index) for index in tokenizer.encode_batch([sample])[0]]
    print(f"sample: {sample}\n     -> {' '.join(pieces)}")
    print(f"tokenizer is in {output}")


def _print_listing(before: tokenizers.Tokenizer, after: tokenizers.Tokenizer, listing: Listing) -> None:
    """Prints the added words, with what they were cut into before."""
    slots = sum(word.unused_slot is not None for word in listing.added)
    print(
        f"{len(listing.added)} words added: {slots} in unused slots, {len(listing.added) - slots} at the end;"
        f" {before.vocab_size} -> {after.vocab_size} tokens"
    )
    width = max(len(word.word) for word in listing.added[:LISTED_WORDS])
    for word in listing.added[:LISTED_WORDS]:
        pieces = " ".join(before.id_to_token(piece) for piece in word.pieces)
        print(f"  {word.word:{width}}  {word.id:>6}  {word.unused_slot or 'new id':>11}  was {pieces}")
    if len(listing.added) > LISTED_WORDS:
        more = len(listing.added) - LISTED_WORDS
        print(f"  and {more} more: see training.added_words in {tokenizer_files.DESCRIPTION_FILE}")
    if listing.left_out:
        shown = ", ".join(listing.left_out[:LISTED_WORDS]) + (", ..." if len(listing.left_out) > LISTED_WORDS else "")
        print(f"{len(listing.left_out)} left out (tokens already, or repeated): {shown}")


def main(argv: Sequence[str]) -> int:
    """Runs the launcher; returns the exit code."""
    return run(argv, __doc__, define_flags, execute)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
