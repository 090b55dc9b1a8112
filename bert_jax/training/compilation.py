"""Ahead-of-time compilation: every shape that a run needs is compiled before its first step."""

import collections
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from bert_jax.parallel.memory import check_step
from bert_jax.parallel.sharding import activations_like
from bert_jax.training.late_results import fetch_late
from bert_jax.training.task import Task

# What LLVM makes of a program on CPUs when it does not optimize to the last. As matrix products come from a library, a
# step of fine-tuning ran as fast, and was compiled in three quarters of the time; without any optimization it took
# twice as long. A step of pre-training ran a few percent slower, and is compiled once.
_QUICK_ON_CPUS = {"xla_backend_optimization_level": 1}

# The remedy if an evaluation does not fit into memory.
_SMALLER = "lower the batch size"

StepFunction = Callable[[Any, Any], tuple[Any, dict[str, jax.Array]]]


def compile_quickly(lowered: jax.stages.Lowered, abstract: Any) -> jax.stages.Compiled:
    """Compiles one of many programs, for the devices that `abstract`, shapes and shardings or arrays, lies on."""
    shardings = [leaf.sharding for leaf in jax.tree.leaves(abstract) if getattr(leaf, "sharding", None)]
    platform = next(iter(shardings[0].device_set)).platform if shardings else jax.default_backend()
    return lowered.compile(compiler_options=_QUICK_ON_CPUS if platform == "cpu" else None)


def compile_train_step(
    train_step: StepFunction, abstract_state: Any, abstract_batch: Any, *, quickly: bool = False
) -> tuple[jax.stages.Compiled, Sequence[str]]:
    """Compiles a train step for one shape of batch.

    Args:
        train_step: (state, batch) -> (state, metrics).
        abstract_state: shapes and shardings; the state is donated, and comes back in the same layout.
        abstract_batch: shapes and shardings.
        quickly: whether it is one of many programs; see `compile_quickly`.

    Returns:
        The compiled step, which returns its metrics as one float32 vector (a single transfer to the host), and the
        vector's names.
    """
    with activations_like(abstract_batch):
        names = sorted(jax.eval_shape(train_step, abstract_state, abstract_batch)[1])

    def step(state: Any, batch: Any) -> tuple[Any, jax.Array]:
        state, metrics = train_step(state, batch)
        return state, jnp.stack([jnp.asarray(metrics[name], jnp.float32) for name in names])

    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state)
    jitted = jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))
    with activations_like(abstract_batch):
        lowered = jitted.lower(abstract_state, abstract_batch)
    return (compile_quickly(lowered, abstract_state) if quickly else lowered.compile()), names


class CompiledEvaluation:
    """Sums a task's statistics over batches, with one compiled step."""

    def __init__(self, task: Task, eval_step: Callable[[Any, Any], Any], abstract_params: Any, abstract_batch: Any):
        """Compiles the step for these shapes; a UserError if there is no memory for it."""
        self._task = task
        with activations_like(abstract_batch):
            self._step = jax.jit(eval_step).lower(abstract_params, abstract_batch).compile()
        check_step(self._step, abstract_params, _SMALLER)

    def __call__(self, params: Any, batches: Any) -> dict[str, float]:
        """Returns the task's metrics over all batches; sums are taken in float64."""
        totals: collections.defaultdict[str, float] = collections.defaultdict(float)
        for statistics in fetch_late(self._step(params, batch) for batch in batches):
            for name, value in statistics.items():
                totals[name] += float(value)
        return {name: float(value) for name, value in self._task.metrics(totals).items()}


def compile_outputs(
    objective: Any, abstract_params: Any, abstract_batch: Any, *, with_statistics: bool = True
) -> jax.stages.Compiled:
    """Compiles (parameters, batch) -> (statistics, outputs) of an objective that has both, without dropout.

    Args:
        objective: the task.
        abstract_params: shapes and shardings.
        abstract_batch: shapes and shardings.
        with_statistics: whether the batch has targets; otherwise there are no statistics.

    Raises:
        UserError: there is no memory for it.
    """

    def evaluate(params: Any, batch: Any) -> tuple[Any, Any]:
        # The compiler merges what both compute.
        statistics = objective.loss(params, batch, None)[1] if with_statistics else {}
        return statistics, objective.outputs(params, batch)

    with activations_like(abstract_batch):
        compiled = compile_quickly(jax.jit(evaluate).lower(abstract_params, abstract_batch), abstract_params)
    check_step(compiled, abstract_params, _SMALLER)
    return compiled
