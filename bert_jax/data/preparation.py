"""Preparation from end to end: text in, a finished directory of rows out, or nothing.

Everything is made in a directory beside the output, which takes the output's name at the very end.
"""

import dataclasses
import itertools
import os
import pathlib
import shutil
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from bert_jax.data import rows
from bert_jax.durable_files import publish, unfinished_folder
from bert_jax.errors import UserError

_STORE_DIRECTORY = "tokens"


def check_output(output: str) -> pathlib.Path:
    """Returns the output directory, if rows may be written to it or lie there already; else a UserError."""
    if "://" in output:
        raise UserError(f"--output={output}: rows are prepared on a local disk; copy the finished directory there")
    path = pathlib.Path(output)
    if path.exists() and not path.is_dir():
        raise UserError(f"--output={output} is a file: give a directory")
    if path.is_dir() and any(path.iterdir()) and not (path / rows.MANIFEST_FILE).is_file():
        raise UserError(f"--output={output} holds other files: give a new directory")
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"--output={output} cannot be written: no permission for {parent}")
    return path


def is_prepared(
    output: pathlib.Path, recipe: rows.Recipe, source: Mapping[str, str], tokenizer_fingerprint: str
) -> bool:
    """Whether `output` holds finished rows made in this very way; rows made in another way are a UserError."""
    if not (output / rows.MANIFEST_FILE).is_file():
        return False
    manifest = rows.open_rows(output).manifest
    there = {**dataclasses.asdict(manifest.recipe), **manifest.source, "tokenizer": manifest.tokenizer_fingerprint}
    wanted = {**dataclasses.asdict(recipe), **source, "tokenizer": tokenizer_fingerprint}
    for name, value in wanted.items():
        if there[name] != value:
            if name == "tokenizer":
                raise UserError(f"--output={output} holds rows made with another tokenizer: give a new directory")
            raise UserError(
                f"--output={output} holds rows made with --{name}={there[name]}, not {value}: give a new directory"
            )
    return True


def prepare(
    *,
    inputs: str,
    tokenizer_directory: str,
    output: pathlib.Path,
    recipe: rows.Recipe,
    text_format: str = "auto",
    language: str = "en",
    workers: int = 1,
    show_progress: bool = False,
) -> dict[str, Any] | None:
    """Makes rows from text.

    Args:
        inputs: the text, as `bert_jax.text.documents.read_passages` takes it.
        tokenizer_directory: a saved tokenizer.
        output: where the rows will be; must not exist, or be empty, or hold the same rows already.
        recipe: how to make them.
        text_format: of the input.
        language: of the text, for splitting sentences.
        workers: number of processes; the rows do not depend on it.
        show_progress: draw bars on standard error.

    Returns:
        The report, or None if the rows were there already.

    Raises:
        UserError: the text is empty or too small for the recipe, the output holds something else, the disk is full, ...
    """
    from bert_jax.data import report, row_building, row_writer
    from bert_jax.data.held_out import hold_out
    from bert_jax.data.token_store import TokenStore
    from bert_jax.data.tokenization import tokenize_corpus
    from bert_jax.text.documents import read_passages
    from bert_jax.text.tokenizers import load_tokenizer

    tokenizer = load_tokenizer(tokenizer_directory)
    source = {"input": inputs, "format": text_format, "language": language}
    if is_prepared(output, recipe, source, tokenizer.fingerprint):
        return None
    # The first of them is read now: what is wrong with the beginning shows before anything is written or drawn.
    passages = read_passages(inputs, text_format)
    first = list(itertools.islice(passages, 1))
    if not first:
        raise UserError(f"--input={inputs} holds no text: nothing to prepare")
    with unfinished_folder(output) as directory:
        store_directory = directory / _STORE_DIRECTORY
        started = time.perf_counter()
        with _bar("tokenizing", "B", show_progress) as progress:
            corpus = tokenize_corpus(
                itertools.chain(first, passages),
                tokenizer_directory,
                tokenizer.vocab_size,
                language,
                store_directory,
                workers,
                progress,
            )
        store = TokenStore(store_directory, tokenizer.vocab_size)
        _check_corpus(store, inputs, recipe.pairs)
        tokenized = time.perf_counter()
        with _bar("building rows", "block", show_progress) as progress:
            held_out = hold_out(store, recipe)
            built = row_building.build_rows(store_directory, directory, recipe, tokenizer, workers, progress, held_out)
        if not built.statistics[rows.TRAIN].rows:
            raise UserError(
                f"--input={inputs}: no document is long enough for --pairs={recipe.pairs}; try --pairs=none"
            )
        seconds = {"tokenization": tokenized - started, "rows": time.perf_counter() - tokenized}
        its_report = report.make_report(recipe, corpus, store, built.statistics, seconds, workers, held_out)
        del store
        shutil.rmtree(store_directory)
        report.write_report(directory, its_report)
        row_writer.finish_rows(directory, recipe, source, tokenizer, built.shards, built.train_token_counts)
        publish(directory, output)
    return its_report


def _check_corpus(store: Any, inputs: str, pairs: str) -> None:
    if not store.num_documents:
        raise UserError(f"--input={inputs} holds no text: nothing to prepare")
    if store.num_documents == 1 and pairs == "nsp":
        raise UserError(
            f"--input={inputs} is a single document: next-sentence pairs need sentences of other documents;"
            " give more documents, or --pairs=sop|none"
        )


def _bar(description: str, unit: str, show: bool) -> tqdm:
    return tqdm(desc=description, unit=unit, unit_scale=unit == "B", disable=not show)
