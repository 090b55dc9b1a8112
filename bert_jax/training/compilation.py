"""Ahead-of-time compilation: every shape that a run needs is compiled before its first step."""

import collections
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from bert_jax.training.task import Task

# Evaluation steps under way at once: enough to hide the transfers, few enough to bound their memory.
_IN_FLIGHT = 4

StepFunction = Callable[[Any, Any], tuple[Any, dict[str, jax.Array]]]


def compile_train_step(
    train_step: StepFunction, abstract_state: Any, abstract_batch: Any
) -> tuple[jax.stages.Compiled, Sequence[str]]:
    """Compiles a train step for one shape of batch.

    Args:
        train_step: (state, batch) -> (state, metrics).
        abstract_state: shapes and shardings; the state is donated, and comes back in the same layout.
        abstract_batch: shapes and shardings.

    Returns:
        The compiled step, which returns its metrics as one float32 vector (a single transfer to the host), and the
        vector's names.
    """
    names = sorted(jax.eval_shape(train_step, abstract_state, abstract_batch)[1])

    def step(state: Any, batch: Any) -> tuple[Any, jax.Array]:
        state, metrics = train_step(state, batch)
        return state, jnp.stack([jnp.asarray(metrics[name], jnp.float32) for name in names])

    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state)
    jitted = jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))
    return jitted.lower(abstract_state, abstract_batch).compile(), names


class CompiledEvaluation:
    """Sums a task's statistics over batches, with one compiled step."""

    def __init__(self, task: Task, eval_step: Callable[[Any, Any], Any], abstract_params: Any, abstract_batch: Any):
        """Compiles the step for these shapes."""
        self._task = task
        self._step = jax.jit(eval_step).lower(abstract_params, abstract_batch).compile()

    def __call__(self, params: Any, batches: Any) -> dict[str, float]:
        """Returns the task's metrics over all batches; sums are taken in float64."""
        totals: collections.defaultdict[str, float] = collections.defaultdict(float)
        pending: collections.deque[Any] = collections.deque()

        def fetch() -> None:
            for name, value in jax.device_get(pending.popleft()).items():
                totals[name] += float(value)

        for batch in batches:
            pending.append(self._step(params, batch))
            if len(pending) > _IN_FLIGHT:
                fetch()
        while pending:
            fetch()
        return {name: float(value) for name, value in self._task.metrics(totals).items()}
