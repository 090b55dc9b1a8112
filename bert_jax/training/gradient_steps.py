"""One step on batches of several tasks, in pieces: a program for each task's gradients, and one for the update.

As one program, every combination of the lengths that the tasks' batches may have would have to be compiled; in pieces,
each task's lengths are compiled for it alone. Gradients are added up from program to program in the same memory.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from bert_jax.parallel.sharding import activations_like
from bert_jax.training.compilation import compile_quickly
from bert_jax.training.task import Batch, Task
from bert_jax.training.train_state import TrainState
from bert_jax.training.train_step import Metrics, Update, loss_and_gradients

# What a task's key is folded with, beyond any number of a row, which the same key is folded with.
_TASKS = 1 << 30
# The loss times the task's weight, and what else every task's metrics have.
_WEIGHTED_LOSS, LOSS, TOKENS = "weighted_loss", "loss", "tokens"

GradientStep = Callable[..., tuple[Any, Metrics]]
Names = tuple[str, ...]


def key_of_task(key: jax.Array, place: int) -> jax.Array:
    """Returns the key that a task draws from; the first draws as it would alone."""
    return jax.random.fold_in(key, _TASKS + place) if place else key


def make_gradient_step(
    task: Task, *, weight: float, place: int, seed: int, accumulation_steps: int = 1, trained: Any | None = None
) -> GradientStep:
    """Returns the pure function (params, step, batch, gradients so far) -> (gradients, the task's metrics).

    Without gradients so far it returns the task's own.

    Args:
        task: one of several, on the parameters of all.
        weight: how much its loss counts in that of the step.
        place: of the task among them.
        seed: of dropout.
        accumulation_steps: see `make_train_step`.
        trained: see `loss_and_gradients`.
    """

    def gradient_step(params: Any, step: jax.Array, batch: Batch, gradients: Any = None) -> tuple[Any, Metrics]:
        key = key_of_task(jax.random.fold_in(jax.random.key(seed), step), place)
        statistics, own = loss_and_gradients(task, params, batch, key, accumulation_steps, trained=trained)
        own = jax.tree.map(lambda leaf: weight * leaf, own)
        if gradients is not None:
            own = jax.tree.map(jnp.add, gradients, own)
        metrics = task.metrics(statistics)
        return own, {**metrics, _WEIGHTED_LOSS: weight * metrics[LOSS]}

    return gradient_step


def compile_gradient_step(
    gradient_step: GradientStep, abstract_state: TrainState, abstract_batch: Any, *, begins: bool
) -> tuple[jax.stages.Compiled, Names]:
    """Compiles a task's gradients for one shape of batch.

    Args:
        gradient_step: of `make_gradient_step`.
        abstract_state: shapes and shardings.
        abstract_batch: shapes and shardings.
        begins: whether the task is the first of its steps, and there are no gradients so far; they are donated if not.

    Returns:
        The compiled function, which returns the metrics as one float32 vector, and the vector's names.
    """
    gradients = () if begins else (abstract_state.params,)
    arguments = (abstract_state.params, abstract_state.step, abstract_batch, *gradients)
    with activations_like(abstract_batch):
        names = tuple(sorted(jax.eval_shape(gradient_step, *arguments)[1]))

    def compute(*arguments: Any) -> tuple[Any, jax.Array]:
        gradients, metrics = gradient_step(*arguments)
        return gradients, _vector(metrics, names)

    shardings = jax.tree.map(lambda leaf: leaf.sharding, (abstract_state.params, abstract_state.step))
    jitted = jax.jit(compute, donate_argnums=() if begins else 3, out_shardings=shardings)
    with activations_like(abstract_batch):
        return compile_quickly(jitted.lower(*arguments), abstract_state), names


def compile_update(
    update: Update, abstract_state: TrainState, names: Sequence[Names]
) -> tuple[jax.stages.Compiled, Names]:
    """Compiles (state, gradients, metrics of each task of the step) -> (state, metrics as one vector).

    Args:
        update: of `make_update`; the state is donated.
        abstract_state: shapes and shardings.
        names: of the metrics of each task.

    Returns:
        The compiled function, and the names of the first of the metrics: the loss, that is the sum of those of the
        tasks times their weights; the tokens of all; and what the update says. Those of the tasks follow in their
        order, without what is summed up here: see `own_metrics`.
    """
    scalar = abstract_state.step
    vectors = tuple(jax.ShapeDtypeStruct((len(own),), jnp.float32, sharding=scalar.sharding) for own in names)
    of_update = tuple(sorted(jax.eval_shape(update, abstract_state, abstract_state.params)[1]))

    def compute(state: TrainState, gradients: Any, vectors: Sequence[jax.Array]) -> tuple[TrainState, jax.Array]:
        state, metrics = update(state, gradients)
        by_task = [dict(zip(own, vector, strict=True)) for own, vector in zip(names, vectors, strict=True)]
        summed = [sum(of_task[name] for of_task in by_task) for name in (_WEIGHTED_LOSS, TOKENS)]
        kept = [of_task[name] for of_task, own in zip(by_task, names, strict=True) for name in own_metrics(own)]
        return state, jnp.stack([*summed, *_vector(metrics, of_update), *kept])

    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state)
    jitted = jax.jit(compute, donate_argnums=0, out_shardings=(shardings, scalar.sharding))
    lowered = jitted.lower(abstract_state, abstract_state.params, vectors)
    return compile_quickly(lowered, abstract_state), (LOSS, TOKENS, *of_update)


def own_metrics(names: Names) -> Names:
    """Returns the metrics of a task that a step reports of it alone."""
    return tuple(name for name in names if name not in (_WEIGHTED_LOSS, TOKENS))


class StepOfTasks:
    """The programs of several tasks, called as one step; its batches are those of its tasks, by their places."""

    def __init__(
        self,
        gradient_steps: Mapping[tuple[int, int], tuple[jax.stages.Compiled, Names]],
        updates: Mapping[tuple[Names, ...], tuple[jax.stages.Compiled, Names]],
    ):
        """Takes the compiled programs.

        Args:
            gradient_steps: of `compile_gradient_step`, by the task's place and the length of its batch.
            updates: of `compile_update`, by the names that it was compiled for.
        """
        self._gradient_steps = gradient_steps
        self._updates = updates

    def __call__(self, state: TrainState, batch: Mapping[int, Batch]) -> tuple[TrainState, jax.Array]:
        """Adds up the gradients of the batch's tasks, and updates the state, which is donated."""
        so_far, vectors, names = (), [], []
        for place, own in batch.items():
            program, own_names = self._gradient_steps[place, own["input_ids"].shape[-1]]
            gradients, vector = program(state.params, state.step, own, *so_far)
            so_far = (gradients,)
            vectors.append(vector)
            names.append(own_names)
        update, _ = self._updates[tuple(names)]
        return update(state, *so_far, tuple(vectors))

    def memory_analysis(self) -> "StepMemory":
        """What the compiler says of the programs together."""
        programs = [program for program, _ in self._gradient_steps.values()]
        analyses = [program.memory_analysis() for program in programs]
        updates = [update.memory_analysis() for update, _ in self._updates.values()]
        held = max(updates, key=lambda one: one.argument_size_in_bytes)
        # A task's program has its batch beside what the update has too, and the optimizer's state lies there meanwhile.
        return StepMemory(
            held.argument_size_in_bytes,
            held.output_size_in_bytes,
            held.alias_size_in_bytes,
            max(one.temp_size_in_bytes for one in (*analyses, *updates)),
        )


@dataclasses.dataclass(frozen=True)
class StepMemory:
    """Bytes on each device, under the compiler's names; without the batches, which are small beside the rest."""

    argument_size_in_bytes: int
    output_size_in_bytes: int
    alias_size_in_bytes: int
    temp_size_in_bytes: int


def _vector(metrics: Metrics, names: Sequence[str]) -> jax.Array:
    return jnp.stack([jnp.asarray(metrics[name], jnp.float32) for name in names])
