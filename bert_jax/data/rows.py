"""The row store: training rows on disk, any of which can be read by its index.

A directory of rows holds ArrayRecord shards of serialized `tf.train.Example` (which TensorFlow Datasets opens too,
through `tfds.builder_from_directory(directory).as_data_source()`), the tokenizer that made them, the counts of the
tokens, and `rows.json`, which is written last: where it is missing, the rows are unfinished.
"""

import bisect
import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bert_jax.data.row_checksums import read_token_counts
from bert_jax.errors import DataError, UserError
from bert_jax.text.files import is_file_name
from bert_jax.text.json_files import JsonError, expect_type, from_fields, parse_json, show_json

# The features of a row, all of them int64 lists:
#   input_ids [tokens]              the pairs of the row one after the other, each `[CLS] A [SEP] B [SEP]`, or `[CLS] A
#                                   [SEP]` where there is no second task
#   pair_ids [pairs]                one id for each pair, unique over the corpus and the same with and without packing
#   first_lengths [pairs]           tokens of `[CLS] A [SEP]` (token type 0)
#   second_lengths [pairs]          tokens of `B [SEP]` (token type 1); 0 where there is no second task
#   next_sentence_labels [pairs]    0: B follows A; 1: B is random (pairs="nsp") or the two are swapped (pairs="sop")
FEATURES = ("input_ids", "pair_ids", "first_lengths", "second_lengths", "next_sentence_labels")

FORMAT_VERSION = 1
DATASET_NAME = "bert_rows"
TRAIN = "train"
VALIDATION = "validation"
SPLITS = (TRAIN, VALIDATION)
PAIRS = ("nsp", "sop", "none")
MINIMUM_SEQ_LEN = 8
# Far beyond what models read: a longer one is a slip of the hand, which would fill memory.
MAXIMUM_SEQ_LEN = 1 << 20

MANIFEST_FILE = "rows.json"
TOKEN_COUNTS_FILE = "token_counts.npy"
TOKENIZER_DIRECTORY = "tokenizer"
# What `ArrayRecordReader` takes for reads in random order: no read-ahead, and a buffer of the size of a few rows.
_READER_OPTIONS = "readahead_buffer_size:0"
_READER_BUFFER_BYTES = 32768
_LONGEST_REASON = 160


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How rows are made from the tokens of a corpus.

    Attributes:
        seq_len: most tokens in a row, special tokens included.
        pairs: the second task: "nsp" (next-sentence prediction), "sop" (sentence-order prediction) or "none".
        packing: whether a row may hold several pairs.
        max_pairs_per_row: most pairs in a row; 1 without packing.
        dupe_factor: passes over the training documents, each with other pairs.
        seed: of all that is drawn at random.
        short_seq_probability: share of the documents (in each pass) whose pairs are made shorter than the row.
        validation_fraction: share of the documents held out; of a few long ones a part each, see `held_out`.
    """

    seq_len: int
    pairs: str = "nsp"
    packing: bool = False
    max_pairs_per_row: int = 1
    dupe_factor: int = 1
    seed: int = 0
    short_seq_probability: float = 0.1
    validation_fraction: float = 0.01

    def __post_init__(self):
        if self.seq_len < MINIMUM_SEQ_LEN:
            raise UserError(f"--seq_len={self.seq_len} is too short for a pair of sentences: {MINIMUM_SEQ_LEN} or more")
        if self.seq_len > MAXIMUM_SEQ_LEN:
            raise UserError(f"--seq_len={self.seq_len} is longer than any model reads: at most {MAXIMUM_SEQ_LEN}")
        if self.pairs not in PAIRS:
            raise UserError(f"--pairs={self.pairs}: unknown second task, choose one of {', '.join(PAIRS)}")
        if self.max_pairs_per_row < 1:
            raise UserError(f"--max_pairs_per_row={self.max_pairs_per_row}: must be at least 1")
        if self.max_pairs_per_row > 1 and not self.packing:
            raise UserError(f"--max_pairs_per_row={self.max_pairs_per_row}: several pairs in a row need --packing")
        if self.dupe_factor < 1:
            raise UserError(f"--dupe_factor={self.dupe_factor}: must be at least 1")
        if not 0 <= self.short_seq_probability <= 1:
            raise UserError(f"--short_seq_probability={self.short_seq_probability}: must be from 0 to 1")
        if not 0 <= self.validation_fraction < 1:
            raise UserError(f"--validation_fraction={self.validation_fraction}: must be at least 0 and below 1")


@dataclasses.dataclass(frozen=True)
class Shard:
    """One ArrayRecord file of a split: its name, its number of rows, its size in bytes and its sha256 in hex."""

    file: str
    rows: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The contents of rows.json: all about the rows but the rows themselves.

    Attributes:
        recipe: how the rows were made.
        source: the text that they were made from: the flags --input, --format and --language.
        tokenizer_fingerprint: of the tokenizer that made the ids.
        vocab_size: number of token ids.
        shards: for each split its shards, in the order of their rows.
        token_counts_sha256: sha256 in hex of the file of token counts; None in rows that were made before it was kept.
    """

    recipe: Recipe
    source: Mapping[str, str]
    tokenizer_fingerprint: str
    vocab_size: int
    shards: Mapping[str, Sequence[Shard]]
    token_counts_sha256: str | None = None

    @property
    def fingerprint(self) -> str:
        """Sha256 in hex of all that decides the rows' contents: the recipe, the tokenizer and every shard."""
        shards = {split: [shard.sha256 for shard in self.shards[split]] for split in sorted(self.shards)}
        parts = [FORMAT_VERSION, dataclasses.asdict(self.recipe), self.tokenizer_fingerprint, self.vocab_size, shards]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Returns the manifest as JSON values, with its fingerprint."""
        return {"version": FORMAT_VERSION, "fingerprint": self.fingerprint, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Manifest":
        """Inverse of `to_json`; a UserError names what is of another type."""
        for name, kind in _MANIFEST_TYPES.items():
            expect_type(values.get(name), kind, name, "")
        manifest = cls(
            recipe=from_fields(Recipe, values["recipe"], "recipe", ""),
            source=values["source"],
            tokenizer_fingerprint=values["tokenizer_fingerprint"],
            vocab_size=values["vocab_size"],
            shards={
                split: [from_fields(Shard, shard, f"shards[{show_json(split)}]", "") for shard in shards]
                for split, shards in values["shards"].items()
            },
            token_counts_sha256=values.get("token_counts_sha256"),
        )
        for shard in itertools.chain(*manifest.shards.values()):
            if not is_file_name(shard.file):
                raise UserError(f"{show_json(shard.file)} is not the name of a file beside it")
            if min(shard.rows, shard.bytes) < 0:
                raise UserError(f"{show_json(shard.file)} has a negative size")
        if manifest.vocab_size < 1:
            raise UserError(f"vocab_size is {manifest.vocab_size}")
        return manifest


_MANIFEST_TYPES = {
    "recipe": dict,
    "source": dict[str, str],
    "tokenizer_fingerprint": str,
    "vocab_size": int,
    "shards": dict[str, list[dict]],
    "token_counts_sha256": str | None,
}


def read_manifest(path: os.PathLike[str]) -> Manifest:
    """Reads rows.json; a file that is damaged or of another version is a UserError.

    Args:
        path: the file; any path object with `read_bytes`, remote ones too.
    """
    try:
        values = expect_type(parse_json(path.read_bytes()), dict, "it", "")
        version = expect_type(values.get("version"), int, "version", "")
        manifest = Manifest.from_json(values) if version == FORMAT_VERSION else None
    except (JsonError, UserError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path} is damaged ({reason:.300}): prepare the rows again (python -m launch.prepare)"
        ) from error
    if manifest is None:
        raise UserError(f"{path} has version {version}, not {FORMAT_VERSION}: prepare the rows again")
    if manifest.fingerprint != values.get("fingerprint"):
        raise UserError(f"{path} was changed after it was written: prepare the rows again")
    return manifest


class RowStore:
    """A finished directory of rows. Opened by `open_rows`; reads are thread-safe.

    Attributes:
        directory: the local directory.
        manifest: the contents of rows.json.
        token_counts: how often the training rows hold each token id, int64 [vocab_size]; the special tokens that frame
            the pairs, [CLS] and [SEP], are not counted, for they are never predicted.
    """

    def __init__(self, directory: pathlib.Path, manifest: Manifest, token_counts: np.ndarray):
        self.directory = directory
        self.manifest = manifest
        self.token_counts = token_counts
        self._files = {split: [directory / shard.file for shard in shards] for split, shards in manifest.shards.items()}
        self._ends = {
            split: list(itertools.accumulate(shard.rows for shard in shards))
            for split, shards in manifest.shards.items()
        }
        self._readers: dict[tuple[str, int], Any] = {}
        self._lock = threading.Lock()

    @property
    def recipe(self) -> Recipe:
        """How the rows were made."""
        return self.manifest.recipe

    @property
    def fingerprint(self) -> str:
        """Sha256 in hex of the recipe, the tokenizer's fingerprint and the contents of the shards."""
        return self.manifest.fingerprint

    @property
    def tokenizer_fingerprint(self) -> str:
        """Fingerprint of the tokenizer that made the ids."""
        return self.manifest.tokenizer_fingerprint

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return self.manifest.vocab_size

    @property
    def tokenizer_directory(self) -> pathlib.Path:
        """The copy of the tokenizer that the rows carry with them."""
        return self.directory / TOKENIZER_DIRECTORY

    def num_rows(self, split: str) -> int:
        """Number of rows of the split "train" or "validation"; 0 for a split that was not made."""
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}")
        ends = self._ends.get(split)
        return ends[-1] if ends else 0

    def read(self, split: str, indices: Sequence[int] | np.ndarray) -> list[bytes]:
        """Reads rows by their index within the split.

        Args:
            split: "train" or "validation".
            indices: integers from 0 to num_rows(split) - 1, [batch]; in any order, repetitions allowed.

        Returns:
            Serialized `tf.train.Example` with the lists of `FEATURES`, in the order of `indices`, [batch].

        Raises:
            DataError: a shard cannot be read, or what is read does not fit its checksum.
        """
        num_rows = self.num_rows(split)
        places: dict[int, list[int]] = {}
        positions: dict[int, list[int]] = {}
        ends = self._ends.get(split, [])
        for place, index in enumerate(np.asarray(indices).tolist()):
            if not 0 <= index < num_rows:
                raise IndexError(f"row {index} of {num_rows} of split {split!r}")
            shard = bisect.bisect_right(ends, index)
            places.setdefault(shard, []).append(place)
            positions.setdefault(shard, []).append(index - (ends[shard - 1] if shard else 0))
        rows: list[bytes] = [b""] * len(indices)
        for shard, its_positions in positions.items():
            try:
                records = self._reader(split, shard).read(its_positions)
            except (RuntimeError, IndexError) as error:  # ArrayRecord's, for damage and for failing disks alike
                reason = str(error).splitlines()[0].partition(";")[0][:_LONGEST_REASON]
                raise DataError(
                    f"{self._files[split][shard]} is damaged or cannot be read ({reason}): prepare or copy the rows"
                    " again, then the same command goes on"
                ) from error
            for place, record in zip(places[shard], records, strict=True):
                rows[place] = record
        return rows

    def _reader(self, split: str, shard: int) -> Any:
        """Returns the reader of one shard, opened when it is first needed; the readers themselves are thread-safe."""
        with self._lock:
            reader = self._readers.get((split, shard))
            if reader is None:
                from array_record.python import array_record_module

                reader = array_record_module.ArrayRecordReader(
                    str(self._files[split][shard]),
                    options=_READER_OPTIONS,
                    file_reader_buffer_size=_READER_BUFFER_BYTES,
                )
                self._readers[split, shard] = reader
            return reader

    def close(self) -> None:
        """Closes the files; the next read opens them again."""
        with self._lock:
            for reader in self._readers.values():
                reader.close()
            self._readers.clear()


def open_rows(directory: str | os.PathLike[str]) -> RowStore:
    """Opens a finished directory of rows; a remote one (gs://...) is first copied to this host's cache, once.

    A directory that is missing, is unfinished, holds something else or has lost a file is a UserError.
    """
    if "://" in os.fspath(directory):
        from bert_jax.data.remote_rows import fetch_rows

        directory = fetch_rows(os.fspath(directory))
    directory = pathlib.Path(directory)
    if not directory.is_dir():
        raise UserError(f"no rows at {directory}: no such directory; make them with python -m launch.prepare")
    path = directory / MANIFEST_FILE
    if not path.is_file():
        raise UserError(
            f"no rows at {directory}: it holds no {MANIFEST_FILE}; give the --output of a finished launch.prepare"
        )
    manifest = read_manifest(path)
    for shard in itertools.chain(*manifest.shards.values()):
        file = directory / shard.file
        if not file.is_file() or file.stat().st_size != shard.bytes:
            raise UserError(f"{file} is missing or cut short: prepare or copy the rows again")
    token_counts = read_token_counts(directory / TOKEN_COUNTS_FILE, manifest.vocab_size, manifest.token_counts_sha256)
    if not (directory / TOKENIZER_DIRECTORY).is_dir():
        raise UserError(f"{directory / TOKENIZER_DIRECTORY} is missing: prepare or copy the rows again")
    return RowStore(directory, manifest, token_counts)
