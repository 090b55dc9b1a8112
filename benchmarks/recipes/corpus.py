"""Cuts a corpus into training and held-out documents that are no copies of each other, and makes rows of both.

    python -m benchmarks.recipes.corpus --input='wiki/*.gz' --megabytes=18 --output=/tmp/wiki18

Every recipe is then scored on the same held-out rows, in the pieces of the same tokenizer. A document is not held out
if some training document holds more than a fifth of its runs of eight words: such pages, written by a template, would
be known by heart.
"""

import argparse
import itertools
import json
import pathlib
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator

from bert_jax.data.preparation import prepare
from bert_jax.data.rows import Recipe
from bert_jax.durable_files import publish, unfinished_folder
from bert_jax.text.documents import read_passages
from bert_jax.text.tokenizers import train_tokenizer

_RUN, _MOST_SHARED = 8, 0.2
_EVERY = 50
# A recipe trains on rows of one of these kinds, in a directory of that name; all are scored on those of "held_out".
ROWS = {
    "pairs": Recipe(seq_len=128, pairs="nsp", validation_fraction=0.0),
    "packed_pairs": Recipe(seq_len=128, pairs="nsp", packing=True, max_pairs_per_row=8, validation_fraction=0.0),
    "texts": Recipe(seq_len=128, pairs="none", validation_fraction=0.0),
    "packed": Recipe(seq_len=128, pairs="none", packing=True, max_pairs_per_row=8, validation_fraction=0.0),
    "short": Recipe(seq_len=64, pairs="none", packing=True, max_pairs_per_row=4, validation_fraction=0.0),
}
HELD_OUT = "held_out"


def documents(inputs: str, megabytes: float | None) -> Iterator[str]:
    """Yields the documents of a corpus, up to so many megabytes, their passages one a line."""
    size = 0
    for _, passages in itertools.groupby(read_passages(inputs), key=lambda passage: passage.document_id):
        text = "\n".join(passage.text for passage in passages)
        size += len(text.encode())
        if megabytes is not None and size > megabytes * 1e6:
            return
        yield text


def runs_of_words(text: str) -> set[int]:
    """Returns every run of eight words of a text, as numbers; of a shorter one, the whole."""
    words = re.findall(r"\w+", text.lower())
    return {
        zlib.crc32(" ".join(words[start : start + _RUN]).encode()) for start in range(max(len(words) - _RUN, 0) + 1)
    }


def hold_out(texts: Iterable[str]) -> tuple[list[str], list[str], int]:
    """Returns the training documents, the held-out ones, and how many were left out as near copies.

    Every fiftieth document is held out, unless it is one of those.
    """
    train, candidates = [], []
    for number, text in enumerate(texts):
        (candidates if number % _EVERY == _EVERY - 1 else train).append(text)
    runs = [runs_of_words(text) for text in candidates]
    of_run: dict[int, list[int]] = {}
    for index, own in enumerate(runs):
        for run in own:
            of_run.setdefault(run, []).append(index)
    copies = set()
    for text in train:
        shared = Counter(index for run in runs_of_words(text) for index in of_run.get(run, ()))
        copies |= {index for index, number in shared.items() if number > _MOST_SHARED * len(runs[index])}
    return train, [text for index, text in enumerate(candidates) if index not in copies], len(copies)


def _write(path: pathlib.Path, texts: Iterable[str]) -> str:
    with path.open("w") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
    return str(path)


def make(inputs: str, megabytes: float | None, vocab_size: int, output: pathlib.Path) -> None:
    """Writes the texts, a tokenizer learnt from those of training, and the rows of each of `ROWS`."""
    with unfinished_folder(output) as folder:
        train, held_out, copies = hold_out(documents(inputs, megabytes))
        print(f"{len(train)} training documents, {len(held_out)} held out, {copies} near copies left out")
        training_file = _write(folder / "train.jsonl", train)
        held_out_file = _write(folder / "held_out.jsonl", held_out)
        train_tokenizer(train, vocab_size=vocab_size).save(folder / "tokenizer")
        for name, recipe in ROWS.items():
            prepare(
                inputs=training_file,
                tokenizer_directory=str(folder / "tokenizer"),
                output=folder / name,
                recipe=recipe,
                workers=2,
            )
        prepare(
            inputs=held_out_file,
            tokenizer_directory=str(folder / "tokenizer"),
            output=folder / HELD_OUT,
            recipe=ROWS["packed"],
            workers=2,
        )
        publish(folder, output)


def main() -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", required=True, help="as of launch.prepare")
    parser.add_argument("--megabytes", type=float, help="of text, from the beginning; all if not given")
    parser.add_argument("--vocab_size", type=int, default=8192)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    make(arguments.input, arguments.megabytes, arguments.vocab_size, arguments.output)


if __name__ == "__main__":
    main()
