"""Where pre-training's batches come from: a row store, a tokenizer and a masking recipe put together."""

from collections.abc import Callable
from typing import Any

import numpy as np

from bert_jax.data.batches import BatchMaker
from bert_jax.data.masking import Vocabulary
from bert_jax.data.masking_recipe import Masking
from bert_jax.data.row_tokens import read_tokens
from bert_jax.data.rows import TRAIN, VALIDATION, RowStore
from bert_jax.parallel.batch_rows import BatchRows
from bert_jax.parallel.mesh import batch_sharding
from bert_jax.tasks.baselines import PreTrainingBaselines
from bert_jax.tasks.neighbour_baseline import NeighbourBaseline
from bert_jax.text.sentencepiece import WORD_START
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.wordpiece import CONTINUATION, WordPieceTokenizer

# Row indices named in a message about a batch.
_ROWS_SHOWN = 8
# Tokens of the training rows in which pairs are counted.
_COUNTED_TOKENS = 1 << 23


def make_batch_maker(store: RowStore, tokenizer: Tokenizer, masking: Masking, seed: int) -> BatchMaker:
    """Returns the maker of this store's batches."""
    framing = (tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id)
    return BatchMaker(
        rows=store,
        seq_len=store.recipe.seq_len,
        max_pairs=store.recipe.max_pairs_per_row,
        has_pairs=store.recipe.pairs != "none",
        vocabulary=Vocabulary(tokenizer.vocab_size, tokenizer.mask_id, framing, tokenizer.starts_word),
        masking=masking,
        seed=seed,
    )


def make_baselines(store: RowStore, tokenizer: Tokenizer, masking: Masking) -> PreTrainingBaselines:
    """Counts the training rows, for baselines on batches with this masking."""
    neighbours = NeighbourBaseline(*read_tokens(store, TRAIN, _COUNTED_TOKENS), store.token_counts)
    return PreTrainingBaselines(store.token_counts, masking, tokenizer.mask_id, neighbours, piece_characters(tokenizer))


def piece_characters(tokenizer: Tokenizer) -> np.ndarray:
    """Returns the characters of each piece, int64 `[vocab_size]`, without the mark that it continues or begins a word.

    An unknown word counts as one character.
    """
    mark = CONTINUATION if tokenizer.kind == WordPieceTokenizer.kind else WORD_START
    pieces = map(tokenizer.id_to_token, range(tokenizer.vocab_size))
    characters = np.array([len(piece.removeprefix(mark)) for piece in pieces], np.int64)
    characters[tokenizer.unk_id] = 1
    return characters


def evaluation_batches(
    maker: BatchMaker,
    store: RowStore,
    tokenizer: Tokenizer,
    batch_size: int,
    max_rows: int | None,
    evaluate: Callable[[Any, Any], dict[str, float]],
    mesh: Any,
    split: str = VALIDATION,
) -> Callable[[Any], dict[str, float]]:
    """Returns a function from parameters to the metrics of a split's rows, beside the baselines' on the same rows.

    Args:
        maker: of the batches.
        store: of the rows, in which the baselines count.
        tokenizer: that made them.
        batch_size: of an evaluation batch.
        max_rows: at most so many rows, rounded up to whole batches; None for all.
        evaluate: parameters and device batches to metrics.
        mesh: the batches' devices.
        split: which rows.
    """
    max_batches = None if max_rows is None else -(-max_rows // batch_size)
    # The rows and their masks are the same each time, and so are the baselines.
    scored: PreTrainingBaselines | None = None
    ours = BatchRows.of(batch_sharding(mesh), batch_size)

    def run(params: Any) -> dict[str, float]:
        nonlocal scored
        baselines = None if scored else make_baselines(store, tokenizer, maker.masking)

        def batches():
            # The baselines are of all rows, and every process reads them, this once.
            rows = None if baselines else ours.rows
            for batch in maker.evaluation(split, batch_size, max_batches, batch_rows=rows):
                if baselines:
                    baselines.add(batch)
                    batch = ours.take(batch)
                yield ours.put(batch)

        metrics = evaluate(params, batches())
        scored = scored or baselines
        del metrics["tokens"]
        beside = scored.metrics(metrics["mlm_hidden_loss"])
        if "nsp_accuracy" not in metrics:
            beside.pop("nsp_accuracy_baseline", None)
        return {**metrics, **beside}

    return run


def describe_step(maker: BatchMaker, batch_size: int, step: int, examples_before: int) -> str:
    """Says which training rows a step's batch holds."""
    first = examples_before + step * batch_size
    rows, epochs = maker.train_rows(np.arange(first, first + batch_size))
    shown = ", ".join(map(str, rows[:_ROWS_SHOWN].tolist())) + (", ..." if batch_size > _ROWS_SHOWN else "")
    return f"batch of training rows {shown} in epoch {epochs[0]}"
