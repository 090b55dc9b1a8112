"""The tokens of stored rows, as they were before anything was masked."""

import numpy as np

from bert_jax.data.rows import RowStore
from bert_jax.errors import DataError

# Rows parsed at a time.
_ROWS_AT_ONCE = 1024


def read_tokens(store: RowStore, split: str, most_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Reads the tokens of a split, or of rows spread evenly over it.

    Args:
        store: of the rows.
        split: which rows.
        most_tokens: full rows of so many tokens are read at most; of a larger split always the same ones.

    Returns:
        Ids int32 `[tokens]`, with [CLS] and [SEP], and int32 `[tokens]`, from 0, which text or pair each belongs to.

    Raises:
        DataError: rows are damaged.
    """
    import tensorflow as tf

    num_rows = store.num_rows(split)
    taken = min(num_rows, max(1, most_tokens // store.recipe.seq_len))
    rows = np.arange(taken, dtype=np.int64) * num_rows // max(taken, 1)
    names = ("input_ids", "first_lengths", "second_lengths")
    features = {name: tf.io.RaggedFeature(tf.int64, row_splits_dtype=tf.int64) for name in names}
    ids, lengths = [np.empty(0, np.int32)], [np.empty(0, np.int64)]
    for begin in range(0, taken, _ROWS_AT_ONCE):
        try:
            parsed = tf.io.parse_example(store.read(split, rows[begin : begin + _ROWS_AT_ONCE]), features)
        # The second where its message, which quotes the bytes, is not text.
        except (tf.errors.InvalidArgumentError, UnicodeDecodeError) as error:
            raise _unsound(store, split) from error
        tokens, first, second = (parsed[name].flat_values.numpy() for name in names)
        is_sound = first.shape == second.shape and min(first.min(initial=0), second.min(initial=0)) >= 0
        if not is_sound or (first + second).sum() != len(tokens) or not _lie_in(tokens, store.vocab_size):
            raise _unsound(store, split)
        ids.append(tokens.astype(np.int32))
        lengths.append(first + second)
    lengths = np.concatenate(lengths)
    return np.concatenate(ids), np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)


def _lie_in(tokens: np.ndarray, vocab_size: int) -> bool:
    return not len(tokens) or (tokens.min() >= 0 and tokens.max() < vocab_size)


def _unsound(store: RowStore, split: str) -> DataError:
    return DataError(
        f"{store.directory}: a row of the split {split} is not as launch.prepare writes rows; --verify_rows says which"
        " file; prepare or copy the rows again"
    )
