"""The second stage of preparation: from a token store to shards of rows, in parallel.

The documents of a split are taken in blocks of a fixed number of tokens, and each block, in each pass over the corpus,
has a random generator of its own. So no row depends on the number of workers. A group of blocks makes one shard.
"""

import dataclasses
import math
import pathlib
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bert_jax.data import rows
from bert_jax.data.held_out import HeldOut
from bert_jax.data.packing import first_fit
from bert_jax.data.pairs import Pair, document_pairs, special_tokens
from bert_jax.data.row_writer import ShardWriter
from bert_jax.data.token_store import TokenStore
from bert_jax.data.workers import ordered_map

BLOCK_TOKENS = 500_000
MOST_SHARDS = 256
# A pair's id is (number of the block << _PAIR_BITS) + its number in the block; blocks are numbered over all passes and
# splits. A block that has more pairs than this is one document of gigabytes.
_PAIR_BITS = 28
_CUTS_FILE = "cuts.npy"
# Arrays over all documents are made in parts of this many.
_DOCUMENTS_AT_ONCE = 1 << 20


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """Blocks of one split that make one shard.

    Attributes:
        split: "train" or "validation".
        first_block, end_block: the blocks, numbered over all passes over the split.
        first_pair_id: the id of the first pair of block 0 of the split.
        file: the shard's name until it is known how many there are.
    """

    split: str
    first_block: int
    end_block: int
    first_pair_id: int
    file: str


@dataclasses.dataclass
class RowStatistics:
    """What became of the documents of a split.

    Attributes:
        rows: rows written.
        pairs: pairs in them.
        tokens: tokens in them, special tokens included; the rest of rows * seq_len is padding.
        label_ones: pairs with label 1.
    """

    rows: int = 0
    pairs: int = 0
    tokens: int = 0
    label_ones: int = 0

    def __add__(self, other: "RowStatistics") -> "RowStatistics":
        return RowStatistics(
            self.rows + other.rows,
            self.pairs + other.pairs,
            self.tokens + other.tokens,
            self.label_ones + other.label_ones,
        )


@dataclasses.dataclass(frozen=True)
class BuiltRows:
    """What `build_rows` returns.

    Attributes:
        shards: for each split its shards in order.
        statistics: for each split.
        train_token_counts: how often the training rows hold each id, int64 [vocab_size].
    """

    shards: Mapping[str, Sequence[rows.Shard]]
    statistics: Mapping[str, RowStatistics]
    train_token_counts: np.ndarray


def cut_document_blocks(store: TokenStore, documents: np.ndarray, block_tokens: int = BLOCK_TOKENS) -> np.ndarray:
    """Returns where in `documents` each block of about `block_tokens` starts, and the end, int64 [blocks + 1]."""
    starts = [np.zeros(0, np.int64)]
    total = 0
    newest_block = -1
    for first in range(0, len(documents), _DOCUMENTS_AT_ONCE):
        ends = total + np.cumsum(store.document_lengths(documents[first : first + _DOCUMENTS_AT_ONCE]))
        blocks = np.concatenate([[total], ends[:-1]]) // block_tokens
        starts.append(first + np.flatnonzero(np.diff(blocks, prepend=newest_block)))
        total, newest_block = int(ends[-1]), int(blocks[-1])
    return np.concatenate([*starts, [len(documents)]])


def build_rows(
    store_directory: pathlib.Path,
    output: pathlib.Path,
    recipe: rows.Recipe,
    tokenizer: Any,
    workers: int,
    progress: Any,
    held_out: HeldOut,
) -> BuiltRows:
    """Makes the shards of all splits.

    Args:
        store_directory: the token store; the lists of documents are written into it for the workers.
        output: directory of the shards, which are not named for good yet.
        recipe: how to make them.
        tokenizer: for the ids of its special tokens and its size.
        workers: number of processes.
        progress: a tqdm bar, updated in blocks; its total is set here.
        held_out: how the corpus is split.
    """
    store = TokenStore(store_directory, tokenizer.vocab_size, held_out.cuts)
    np.save(store_directory / _CUTS_FILE, held_out.cuts)
    tasks: list[ShardTask] = []
    first_pair_id = 0
    progress.total = 0
    for split, documents in held_out.documents.items():
        block_starts = cut_document_blocks(store, documents)
        np.save(_documents_file(store_directory, split), documents)
        np.save(_blocks_file(store_directory, split), block_starts)
        num_blocks = (len(block_starts) - 1) * (recipe.dupe_factor if split == rows.TRAIN else 1)
        blocks_per_shard = max(1, math.ceil(num_blocks / MOST_SHARDS))
        for first in range(0, num_blocks, blocks_per_shard):
            end = min(first + blocks_per_shard, num_blocks)
            tasks.append(ShardTask(split, first, end, first_pair_id, f"{split}-{len(tasks):05d}.unnamed"))
        first_pair_id += num_blocks << _PAIR_BITS
        progress.total += num_blocks
    progress.refresh()

    shards: dict[str, list[rows.Shard]] = {split: [] for split in rows.SPLITS}
    statistics = {split: RowStatistics() for split in rows.SPLITS}
    token_counts = np.zeros(tokenizer.vocab_size, np.int64)
    arguments = (store_directory, output, recipe, tokenizer.vocab_size, tokenizer.cls_id, tokenizer.sep_id)
    results = ordered_map(_build_shard, tasks, workers, _start_worker, arguments)
    for task, (shard, its_statistics, its_counts) in zip(tasks, results, strict=True):
        shards[task.split].append(shard)
        statistics[task.split] += its_statistics
        if task.split == rows.TRAIN:
            token_counts += its_counts
        progress.update(task.end_block - task.first_block)
    return BuiltRows(shards, statistics, token_counts)


def _documents_file(store_directory: pathlib.Path, split: str) -> pathlib.Path:
    return store_directory / f"{split}_documents.npy"


def _blocks_file(store_directory: pathlib.Path, split: str) -> pathlib.Path:
    return store_directory / f"{split}_blocks.npy"


class ShardBuilder:
    """Builds shards; each worker process has one.

    Args:
        store_directory: the token store, with the lists that `build_rows` wrote.
        output: directory of the shards.
        recipe: how to make them.
        vocab_size, cls_id, sep_id: of the tokenizer.
    """

    def __init__(
        self,
        store_directory: pathlib.Path,
        output: pathlib.Path,
        recipe: rows.Recipe,
        vocab_size: int,
        cls_id: int,
        sep_id: int,
    ):
        cuts = np.load(store_directory / _CUTS_FILE)
        self._store = TokenStore(store_directory, vocab_size, cuts)
        self._cuts = frozenset(cuts.tolist())
        self._documents = {split: np.load(_documents_file(store_directory, split)) for split in rows.SPLITS}
        self._blocks = {split: np.load(_blocks_file(store_directory, split)) for split in rows.SPLITS}
        self._output = output
        self._recipe = recipe
        self._vocab_size = vocab_size
        self._cls = np.array([cls_id], self._store.tokens.dtype)
        self._sep = np.array([sep_id], self._store.tokens.dtype)

    def build(self, task: ShardTask) -> tuple[rows.Shard, RowStatistics, np.ndarray]:
        """Writes one shard; returns its description, statistics and token counts, int64 [vocab_size]."""
        writer = ShardWriter(self._output / task.file, self._vocab_size)
        statistics = RowStatistics()
        for block in range(task.first_block, task.end_block):
            block_id = task.first_pair_id + (block << _PAIR_BITS)
            special = special_tokens(self._recipe.pairs)
            items = (
                (pair.num_tokens + special, (block_id + number, pair))
                for number, pair in enumerate(self.block_pairs(task.split, block))
            )
            for row in first_fit(items, self._recipe.seq_len, self._recipe.max_pairs_per_row):
                statistics += self._write_row(writer, row)
        shard, counts = writer.close()
        return shard, statistics, counts

    def block_pairs(self, split: str, block: int) -> Iterator[Pair]:
        """Yields the pairs of one block; blocks are numbered over all passes over the split."""
        recipe = self._recipe
        pass_number, block_in_pass = divmod(block, len(self._blocks[split]) - 1)
        generator = random.Random(f"{recipe.seed} {split} {pass_number} {block_in_pass}")
        documents = self._documents[split]
        first, end = self._blocks[split][block_in_pass : block_in_pass + 2].tolist()
        for place in range(first, end):

            def draw_other(place: int = place) -> np.ndarray:
                its_first, its_end = self._places_of_document(documents, place)
                other = generator.randrange(len(documents) - (its_end - its_first))
                other += (its_end - its_first) * (other >= its_first)
                return self._store.document_sentences(documents[other])

            yield from document_pairs(
                recipe.pairs,
                self._store.document_sentences(documents[place]),
                recipe.seq_len,
                recipe.short_seq_probability,
                generator,
                draw_other,
            )

    def _places_of_document(self, documents: np.ndarray, place: int) -> tuple[int, int]:
        """Returns where in a split's documents the parts of one document lie that is at a place: first, and end."""
        if not self._cuts:
            return place, place + 1
        first = end = int(documents[place])
        while int(self._store.document_offsets[first]) in self._cuts:
            first -= 1
        while int(self._store.document_offsets[end + 1]) in self._cuts:
            end += 1
        return int(np.searchsorted(documents, first)), int(np.searchsorted(documents, end, side="right"))

    def _write_row(self, writer: ShardWriter, row: Sequence[tuple[int, Pair]]) -> RowStatistics:
        tokens = self._store.tokens
        parts: list[np.ndarray] = []
        first_lengths = []
        second_lengths = []
        for _, pair in row:
            parts += self._cls, tokens[pair.first_start : pair.first_end], self._sep
            first_lengths.append(pair.first_end - pair.first_start + 2)
            if self._recipe.pairs == "none":
                second_lengths.append(0)
                continue
            parts += tokens[pair.second_start : pair.second_end], self._sep
            second_lengths.append(pair.second_end - pair.second_start + 1)
        input_ids = np.concatenate(parts)
        labels = [pair.label for _, pair in row]
        writer.write(input_ids, [pair_id for pair_id, _ in row], first_lengths, second_lengths, labels)
        return RowStatistics(rows=1, pairs=len(row), tokens=len(input_ids), label_ones=sum(labels))


_builder: ShardBuilder


def _start_worker(*arguments: Any) -> None:
    global _builder
    _builder = ShardBuilder(*arguments)


def _build_shard(task: ShardTask) -> tuple[rows.Shard, RowStatistics, np.ndarray]:
    return _builder.build(task)
