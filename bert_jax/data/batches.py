"""Rows to batches: the batch of step s is a function of (rows, seed, s) alone.

Rows are read at random by their index. The order of an epoch is a stateless permutation, so that any step can be
reached without replaying those before it, and each host can read just its own rows of every batch.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf

from bert_jax.data.masking import Vocabulary, mask_batch, pair_draws
from bert_jax.data.masking_recipe import Masking, max_predictions_per_row
from bert_jax.data.rows import FEATURES
from bert_jax.errors import DataError

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

        def rows_of(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return self._order(tf.constant(offsets, tf.int64) + step * batch_size + examples_before)

        yield from self._run("train", tf.data.Dataset.range(start_step, end_step), rows_of, len(offsets))

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

        def rows_of(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            indices = tf.constant(offsets, tf.int64) + step * batch_size
            indices = tf.where(indices < num_rows, indices, -1)
            return indices, tf.zeros_like(indices)

        yield from self._run(split, tf.data.Dataset.range(num_batches), rows_of, len(offsets))

    def _run(
        self,
        split: str,
        steps: tf.data.Dataset,
        rows_of: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
        batch_size: int,
    ) -> Iterator[NumpyBatch]:
        """Yields a batch for each of the steps.

        Args:
            split: which rows.
            steps: numbers.
            rows_of: from a step to its rows' indices, -1 for a row of padding, and their epochs, int64 `[batch_size]`.
            batch_size: number of rows.
        """
        # An exception of a Python function would come back as an error of TensorFlow's, with a traceback in its message
        # and in its log: errors travel beside the batches.
        failures: list[Exception] = []

        def read(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            records = np.full(len(indices), b"", dtype=object)
            present = indices >= 0
            try:
                records[present] = self.rows.read(split, indices[present])
            except Exception as error:
                failures.append(error)
                return records, np.array(False)
            return records, np.array(True)

        # All is ops already: a conversion would take longer than the trace, and read the source files anew.
        @tf.autograph.experimental.do_not_convert
        def load(step: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
            indices, epochs = rows_of(step)
            # One call into Python for the whole batch; all else is graph ops.
            serialized, is_read = tf.numpy_function(read, [indices], (tf.string, tf.bool), stateful=False)
            return *self._make(tf.ensure_shape(serialized, [batch_size]), epochs, batch_size), is_read

        options = tf.data.Options()
        options.deterministic = True
        options.autotune.enabled = False
        options.threading.private_threadpool_size = self.threads
        options.threading.max_intra_op_parallelism = 1
        dataset = steps.map(load, num_parallel_calls=self.threads).prefetch(2 * self.threads).with_options(options)
        try:
            for batch, is_sound, is_read in dataset.as_numpy_iterator():
                if not is_read:
                    raise failures[0]
                if not is_sound:
                    raise _unsound(split)
                yield batch
        except tf.errors.InvalidArgumentError as error:
            # Bytes that are no tf.train.Example.
            raise _unsound(split) from error

    def _are_sound(self, features: dict[str, tf.RaggedTensor]) -> tf.Tensor:
        """Whether rows are such as the preparation writes.

        Longer ones would be cut to the batch without a word, and an id outside of the vocabulary would be looked up as
        another one, or as NaN.
        """
        ids, pairs, first, second, labels = (features[name] for name in FEATURES)

        def lie_in(values: tf.Tensor, end: int) -> tf.Tensor:
            return tf.reduce_all((values >= 0) & (values < end))

        tokens = tf.reduce_sum(first, axis=1) + tf.reduce_sum(second, axis=1)
        return tf.reduce_all(
            [
                lie_in(ids.flat_values, self.vocabulary.size),
                lie_in(first.flat_values, self.seq_len + 1),
                lie_in(second.flat_values, self.seq_len + 1),
                lie_in(labels.flat_values, 2),
                lie_in(ids.row_lengths(), self.seq_len + 1),
                lie_in(pairs.row_lengths(), self.max_pairs + 1),
                tf.reduce_all(tokens == ids.row_lengths()),
                *(tf.reduce_all(others.row_splits == pairs.row_splits) for others in (first, second, labels)),
            ]
        )

    def _make(
        self, serialized: tf.Tensor, epochs: tf.Tensor, batch_size: int
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Derives a batch from its rows; returns it, and whether they are sound.

        Args:
            serialized: strings `[batch_size]`, tf.train.Example; an empty string is a row of padding.
            epochs: int64 `[batch_size]`.
            batch_size: number of rows.
        """
        features = tf.io.parse_example(
            serialized,
            {name: tf.io.RaggedFeature(tf.int64, row_splits_dtype=tf.int64) for name in FEATURES},
        )
        by_token = [batch_size, self.seq_len]
        by_pair = [batch_size, self.max_pairs]
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
        batch = {
            **masked,
            "token_type_ids": tf.cast(is_second, tf.int32),
            "position_ids": position_ids,
            "segment_ids": tf.where(used, pair_index + 1, 0),
            "cls_positions": tf.where(present, starts, 0),
            "next_sentence_labels": labels,
            "next_sentence_weights": tf.cast(labelled, tf.float32),
        }
        return batch, self._are_sound(features)


def _unsound(split: str) -> DataError:
    return DataError(
        f"a row of the split {split} is not as launch.prepare writes rows (ids outside of the vocabulary, or lengths"
        " that do not add up): the rows were changed, or mixed with others; --verify_rows says which file; prepare or"
        " copy the rows again, then the same command goes on"
    )
