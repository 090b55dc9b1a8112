"""Batches of rows of about the same length, so that short texts do not pay for long ones; NumPy alone.

The batch of step s is a function of (lengths, batch size, seed, s): any step can be reached without those before it.
"""

from collections.abc import Iterator, Sequence

import numpy as np

# Within so many batches, rows are sorted by length: enough to fill the batches well, few enough to leave them mixed.
_SORTED_TOGETHER = 50
# Lengths of batches are multiples of this: finer steps save little, and of texts of ten tokens eight would waste a lot.
_MULTIPLE = 4
# Keeps the draws of the order apart from others that begin from the same seed.
_ORDER_STREAM = 0x0D0E


class LengthBatches:
    """Which rows make up the batch of each step.

    In every epoch each row comes once; the epoch's last rows fill a batch in part.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int, padded_lengths: Sequence[int]):
        """Takes what the batches depend on.

        Args:
            lengths: of the rows in tokens, `[rows]`.
            batch_size: rows of a batch.
            seed: of the order.
            padded_lengths: the lengths that batches may have, ascending; the last holds every row.
        """
        self._lengths = np.asarray(lengths)
        self._batch_size = batch_size
        self._seed = seed
        self._padded = np.asarray(padded_lengths)
        self.steps_per_epoch = -(-len(self._lengths) // batch_size)
        self._epoch: tuple[int, np.ndarray] | None = None

    def __call__(self, step: int) -> tuple[np.ndarray, int]:
        """Returns the rows of a step, int64 `[batch]`, -1 where it is not full; and the length of the batch."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = epoch, self._order(epoch)
        rows = self._epoch[1][place]
        return rows, padded_length(self._lengths[rows[rows >= 0]], self._padded)

    def _order(self, epoch: int) -> np.ndarray:
        """Returns the rows of an epoch's batches, `[steps, batch]`."""
        draw = np.random.Generator(np.random.Philox(np.random.SeedSequence([self._seed, _ORDER_STREAM, epoch])))
        rows = draw.permutation(len(self._lengths))
        together = np.arange(len(rows)) // (_SORTED_TOGETHER * self._batch_size)
        rows = rows[np.lexsort((-self._lengths[rows], together))]
        batches = np.full(self.steps_per_epoch * self._batch_size, -1, np.int64)
        batches[: len(rows)] = rows
        batches = batches.reshape(self.steps_per_epoch, self._batch_size)
        return batches[draw.permutation(self.steps_per_epoch)]


def lengths_of_batches(lengths: np.ndarray, batch_size: int, seed: int) -> np.ndarray:
    """Returns the tokens of the longest row of each batch of `LengthBatches`' first epoch, int64 `[steps]`.

    What `choose_padded_lengths` wants to know: a batch is as long as its longest row.
    """
    order = LengthBatches(lengths, batch_size, seed, np.unique(lengths))
    return np.asarray([order(step)[1] for step in range(order.steps_per_epoch)], np.int64)


def lengths_in_order(lengths: np.ndarray, batch_size: int) -> np.ndarray:
    """Returns the same of `batches_in_order_of_length`."""
    return np.asarray([length for _, length in batches_in_order_of_length(lengths, batch_size, np.unique(lengths))])


def batches_in_order_of_length(
    lengths: np.ndarray, batch_size: int, padded_lengths: Sequence[int]
) -> Iterator[tuple[np.ndarray, int]]:
    """Yields every row once, the shortest first: rows as of `LengthBatches`, and the length of each batch."""
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        filled = np.full(batch_size, -1, np.int64)
        filled[: len(rows)] = rows
        yield filled, padded_length(np.asarray(lengths)[rows], np.asarray(padded_lengths))


def padded_length(lengths: np.ndarray, padded_lengths: np.ndarray) -> int:
    """Returns the least of the padded lengths that holds all these rows."""
    return int(padded_lengths[np.searchsorted(padded_lengths, lengths.max(initial=0))])


def choose_padded_lengths(
    lengths: np.ndarray, most: int, *, price: float = 0.0, multiple: int = _MULTIPLE
) -> tuple[int, ...]:
    """Returns the lengths that batches are best padded to: at most so many, as each is a program to compile.

    Those for which the batches, each padded to the next of them, have the fewest tokens together.

    Args:
        lengths: of the batches of an epoch in tokens, `[batches]`.
        most: how many lengths at most.
        price: how many batches' tokens a further length must save, of the mean length: of a few batches, one length is
            as good as many, and compiled at once.
        multiple: what they are multiples of.
    """
    steps = np.maximum(-(-np.asarray(lengths) // multiple), 1)
    longest = int(steps.max(initial=1))
    batches_up_to = np.cumsum(np.bincount(steps, minlength=longest + 1))
    # cost[e]: tokens of the batches no longer than e, with the lengths chosen so far, of which e is the last.
    ends = np.arange(longest + 1)
    cost = batches_up_to * ends
    chosen_before = [np.zeros(longest + 1, np.int64)]
    least_saving = price * steps.mean() if steps.size else 0.0
    for _ in range(min(most, longest) - 1):
        with_one_more = cost[:, None] + (batches_up_to[None, :] - batches_up_to[:, None]) * ends[None, :]
        with_one_more = np.where(ends[:, None] < ends[None, :], with_one_more, cost[None, :])
        if cost[longest] - with_one_more[:, longest].min() < least_saving:
            break
        chosen_before.append(np.argmin(with_one_more, axis=0))
        cost = with_one_more.min(axis=0)
    chosen = [longest]
    for before in reversed(chosen_before):
        end = int(before[chosen[-1]])
        if 0 < end < chosen[-1]:
            chosen.append(end)
    return tuple(end * multiple for end in reversed(chosen))
