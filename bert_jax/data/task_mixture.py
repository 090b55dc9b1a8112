"""Which tasks a step of a run of several is made of, and which batch of each; NumPy alone.

What a step is made of is a function of (the tasks' batches an epoch, seed, step): any step can be reached without those
before it.
"""

from collections.abc import Sequence

import numpy as np

# A batch of every task at each step; or of one task, in proportion to their sizes.
SUM, PROPORTIONAL = MIXINGS = ("sum", "proportional")
# Keeps the draws of the order apart from others that begin from the same seed.
_MIXTURE_STREAM = 0x3117


class TaskMixture:
    """The tasks of each step.

    With "sum" a step has a batch of every task. An epoch is that of the task with most batches; the smaller ones come
    round again meanwhile, in a new order.

    With "proportional" a step has a batch of one task. An epoch is all batches of all tasks, each once, in an order of
    its own: the tasks are drawn in proportion to their sizes, without putting back.
    """

    def __init__(self, mixing: str, batches_per_epoch: Sequence[int], seed: int):
        """Takes what the mixture depends on.

        Args:
            mixing: one of MIXINGS.
            batches_per_epoch: of each task, `[tasks]`.
            seed: of the order.
        """
        if mixing not in MIXINGS:
            raise ValueError(f"mixing must be one of {', '.join(MIXINGS)}, not {mixing!r}")
        self.mixing = mixing
        self._batches = np.asarray(batches_per_epoch)
        self._seed = seed
        self._epoch: tuple[int, np.ndarray, np.ndarray] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every example of every task comes at least once."""
        return int(self._batches.max() if self.mixing == SUM else self._batches.sum())

    @property
    def shares(self) -> np.ndarray:
        """In how many of the steps each task is, as a share, float64 `[tasks]`."""
        return np.ones(len(self._batches)) if self.mixing == SUM else self._batches / self._batches.sum()

    def __call__(self, step: int) -> tuple[tuple[int, int], ...]:
        """Returns for each task of a step its number, and how many batches of that task came before."""
        if self.mixing == SUM:
            return tuple((task, step) for task in range(len(self._batches)))
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = (epoch, *self._order(epoch))
        _, tasks, batches = self._epoch
        return ((int(tasks[place]), epoch * int(self._batches[tasks[place]]) + int(batches[place])),)

    def _order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the task of each step of an epoch, and which of the task's batches it is, `[steps]` both."""
        draw = np.random.Generator(np.random.Philox(np.random.SeedSequence([self._seed, _MIXTURE_STREAM, epoch])))
        tasks = draw.permutation(np.repeat(np.arange(len(self._batches)), self._batches))
        batches = np.empty_like(tasks)
        for task, count in enumerate(self._batches):
            # A task's batches are in an order that is drawn already; the mixture keeps it.
            batches[tasks == task] = np.arange(count)
        return tasks, batches
