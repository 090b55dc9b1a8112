"""Rows to batches: the batch of step s is a function of (rows, seed, s) alone.

Rows are read at random by their index. The order of an epoch is a stateless permutation, so that any step can be
reached without replaying those before it, and each host can read just its own rows of every batch.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf

from bert_jax.data.masking import Vocabulary, mask_batch, pair_draws
from bert_jax.data.masking_recipe import Masking, max_predictions_per_row

NumpyBatch = dict[str, np.ndarray]

# The pipeline computes on the host: TensorFlow would otherwise take the accelerators' memory away from JAX.
for _kind in ("GPU", "TPU"):
    tf.config.set_visible_devices([], _kind)

# Keeps the draws of the order apart from those of the masks, which begin from the same seed.
_ORDER_STREAM = np.int64(1)


class RowReader(Protocol):
    """The part of a row store that batches need."""

    def num_rows(self, split: str) -> int:
        """The number of rows in a split."""

    def read(self, split: str, indices: np.ndarray) -> list[bytes]:
        """Returns the rows at `indices`, each a serialized tf.train.Example."""


@dataclasses.dataclass(frozen=True)
class BatchMaker:
    """Turns row indices into masked batches.

    A batch is a dict of arrays: input_ids, token_type_ids, position_ids, segment_ids (0 is padding, k the k-th packed
    pair) int32 `[batch, length]`; masked_positions, masked_ids int32 and masked_weights float32 `[batch, predictions]`;
    cls_positions, next_sentence_labels int32 and next_sentence_weights float32 `[batch, pairs]`.

    Attributes:
        rows: the row store.
        seq_len: length of a batch, at least that of the rows.
        max_pairs: pairs per row at most.
        has_pairs: whether rows are sentence pairs with a label, rather than single texts.
        vocabulary: of the rows' tokenizer.
        masking: the recipe.
        seed: of order and masks.
        threads: of the pipeline.
    """

    rows: RowReader
    seq_len: int
    max_pairs: int
    has_pairs: bool
    vocabulary: Vocabulary
    masking: Masking
    seed: int
    threads: int = 2

    def shapes(self, batch_size: int) -> dict[str, tuple[tuple[int, ...], type]]:
        """Returns the shape and dtype of each array of a batch."""
        by_token = (batch_size, self.seq_len)
        by_pair = (batch_size, self.max_pairs)
        by_prediction = (batch_size, max_predictions_per_row(self.masking, self.seq_len, self.max_pairs))
        shapes = dict.fromkeys(("input_ids", "token_type_ids", "position_ids", "segment_ids"), (by_token, np.int32))
        shapes |= dict.fromkeys(("masked_positions", "masked_ids"), (by_prediction, np.int32))
        shapes |= dict.fromkeys(("cls_positions", "next_sentence_labels"), (by_pair, np.int32))
        return shapes | {"masked_weights": (by_prediction, np.float32), "next_sentence_weights": (by_pair, np.float32)}

    def train_rows(self, examples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the row indices, and epochs, int64 `[n]`, of examples numbered from the start of training."""
        indices, epochs = self._order(tf.constant(examples, tf.int64))
        return indices.numpy(), epochs.numpy()

    def _order(self, examples: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        num_rows = self.rows.num_rows("train")
        epochs = examples // num_rows
        # One row of seeds an example: a batch may reach over the end of an epoch.
        seed = tf.fill(epochs.shape, tf.constant(self.seed, tf.int64))
        seeds = tf.stack([seed, tf.fill(epochs.shape, _ORDER_STREAM), epochs], axis=1)
        # The op itself: its wrapper in tf.random.experimental takes a single seed a call.
        indices = tf.raw_ops.RandomIndexShuffle(
            index=examples % num_rows, seed=seeds, max_index=tf.constant(num_rows - 1, tf.int64), rounds=4
        )
        return indices, epochs

    def train(
        self,
        batch_size: int,
        start_step: int,
        end_step: int,
        *,
        examples_before: int = 0,
        batch_rows: Sequence[int] | None = None,
    ) -> Iterator[NumpyBatch]:
        """Yields the batches of steps start_step, ..., end_step - 1.

        Args:
            batch_size: rows in the global batch.
            start_step: counted from where these rows and this batch size began to be used.
            end_step: the step after the last.
            examples_before: rows drawn from this store before step 0, by an earlier phase of the run.
            batch_rows: which rows of the global batch to read, on this host; all by default.
        """
        offsets = np.arange(batch_size) if batch_rows is None else np.asarray(batch_rows)

        def load(step: tf.Tensor) -> dict[str, tf.Tensor]:
            examples = tf.constant(offsets, tf.int64) + step * batch_size + examples_before
            indices, epochs = self._order(examples)
            return self._load("train", indices, epochs, len(offsets))

        yield from self._run(tf.data.Dataset.range(start_step, end_step), load)

    def evaluation(
        self,
        split: str,
        batch_size: int,
        max_batches: int | None = None,
        *,
        batch_rows: Sequence[int] | None = None,
    ) -> Iterator[NumpyBatch]:
        """Yields a split once, in order and with the masks of epoch 0; the last batch is filled up with empty rows.

        Args:
            split: which rows.
            batch_size: rows in the global batch.
            max_batches: at most so many.
            batch_rows: which rows of each global batch to read, on this host; all by default.
        """
        offsets = np.arange(batch_size) if batch_rows is None else np.asarray(batch_rows)
        num_rows = self.rows.num_rows(split)
        num_batches = -(-num_rows // batch_size)
        if max_batches is not None:
            num_batches = min(num_batches, max_batches)

        def load(step: tf.Tensor) -> dict[str, tf.Tensor]:
            indices = tf.constant(offsets, tf.int64) + step * batch_size
            indices = tf.where(indices < num_rows, indices, -1)
            return self._load(split, indices, tf.zeros_like(indices), len(offsets))

        yield from self._run(tf.data.Dataset.range(num_batches), load)

    def _run(self, steps: tf.data.Dataset, load) -> Iterator[NumpyBatch]:
        options = tf.data.Options()
        options.deterministic = True
        options.autotune.enabled = False
        options.threading.private_threadpool_size = self.threads
        options.threading.max_intra_op_parallelism = 1
        dataset = steps.map(load, num_parallel_calls=self.threads).prefetch(2 * self.threads).with_options(options)
        yield from dataset.as_numpy_iterator()

    def _load(self, split: str, indices: tf.Tensor, epochs: tf.Tensor, batch_size: int) -> dict[str, tf.Tensor]:
        def read(indices: np.ndarray) -> np.ndarray:
            records = np.full(len(indices), b"", dtype=object)
            present = indices >= 0
            records[present] = self.rows.read(split, indices[present])
            return records

        # One call into Python for the whole batch; all else is graph ops.
        serialized = tf.ensure_shape(tf.numpy_function(read, [indices], tf.string, stateful=False), [batch_size])
        return self.make(serialized, epochs, batch_size)

    def make(self, serialized: tf.Tensor, epochs: tf.Tensor, batch_size: int) -> dict[str, tf.Tensor]:
        """Derives a batch from its rows.

        Args:
            serialized: strings `[batch_size]`, tf.train.Example; an empty string is a row of padding.
            epochs: int64 `[batch_size]`.
            batch_size: number of rows.
        """
        features = tf.io.parse_example(
            serialized,
            {
                name: tf.io.RaggedFeature(tf.int64, row_splits_dtype=tf.int64)
                for name in ("input_ids", "pair_ids", "first_lengths", "second_lengths", "next_sentence_labels")
            },
        )
        by_token = [batch_size, self.seq_len]
        by_pair = [batch_size, self.max_pairs]
        longest = tf.reduce_max(features["input_ids"].row_lengths())
        # Only rows that the preparation did not write; to_tensor would cut them without a word.
        with tf.control_dependencies([tf.debugging.assert_less_equal(longest, tf.cast(self.seq_len, tf.int64))]):
            input_ids = tf.cast(features["input_ids"].to_tensor(shape=by_token), tf.int32)
        first = tf.cast(features["first_lengths"].to_tensor(shape=by_pair), tf.int32)
        second = tf.cast(features["second_lengths"].to_tensor(shape=by_pair), tf.int32)
        labels = tf.cast(features["next_sentence_labels"].to_tensor(shape=by_pair), tf.int32)
        lengths = first + second
        starts = tf.cumsum(lengths, axis=1, exclusive=True)
        present = lengths > 0

        positions = tf.range(self.seq_len)[None, :]
        begun = (positions[:, :, None] >= starts[:, None, :]) & present[:, None, :]
        pair_index = tf.maximum(tf.reduce_sum(tf.cast(begun, tf.int32), axis=2) - 1, 0)
        used = positions < tf.reduce_sum(lengths, axis=1, keepdims=True)

        def of_token(by_pair: tf.Tensor) -> tf.Tensor:
            return tf.gather(by_pair, pair_index, batch_dims=1)

        position_ids = tf.where(used, positions - of_token(starts), 0)
        is_second = used & (position_ids >= of_token(first))
        is_special = (
            (position_ids == 0) | (position_ids == of_token(first) - 1) | (position_ids == of_token(lengths) - 1)
        )

        pair_ids = features["pair_ids"]
        draws = pair_draws(
            self.masking, self.seed, tf.gather(epochs, pair_ids.value_rowids()), pair_ids.flat_values, self.seq_len
        )
        # One more pair of zeros for tokens of rows without any, which no draw belongs to.
        draws = tf.concat([draws, tf.zeros([1, self.seq_len, 3])], axis=0)
        flat_index = tf.cast(pair_ids.row_starts(), tf.int32)[:, None] + pair_index
        flat_index = tf.minimum(flat_index, tf.shape(draws)[0] - 1)
        token_draws = tf.gather_nd(draws, tf.stack([flat_index, position_ids], axis=2))

        masked = mask_batch(
            self.masking,
            self.vocabulary,
            input_ids,
            pair_index,
            token_draws,
            lengths,
            used & ~is_special,
            max_predictions_per_row(self.masking, self.seq_len, self.max_pairs),
        )
        labelled = present if self.has_pairs else tf.zeros_like(present)
        return {
            **masked,
            "token_type_ids": tf.cast(is_second, tf.int32),
            "position_ids": position_ids,
            "segment_ids": tf.where(used, pair_index + 1, 0),
            "cls_positions": tf.where(present, starts, 0),
            "next_sentence_labels": labels,
            "next_sentence_weights": tf.cast(labelled, tf.float32),
        }
