"""One step: a batch in, a new state and its metrics out. Pure functions, to be jit-compiled by the caller."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from bert_jax.models.dropout import row_keys
from bert_jax.training.task import Batch, Scalars, Task
from bert_jax.training.train_state import TrainState, average_parameters

Metrics = dict[str, jax.Array]
# From a state and the gradients of a step's loss to the next state, and metrics of the update.
Update = Callable[[TrainState, Any], tuple[TrainState, Metrics]]


def _micro_batches(tree: Any, accumulation_steps: int) -> Any:
    """Cuts `[batch, ...]` into `[accumulation_steps, batch / accumulation_steps, ...]`.

    Micro-batch a takes rows a, a + accumulation_steps, ...: rows that lie together on a device stay there.
    """

    def cut(leaf: jax.Array) -> jax.Array:
        return leaf.reshape(-1, accumulation_steps, *leaf.shape[1:]).swapaxes(0, 1)

    return jax.tree.map(cut, tree)


def loss_and_gradients(
    task: Task,
    params: Any,
    batch: Batch,
    key: jax.Array | None,
    accumulation_steps: int = 1,
    axis_name: str | None = None,
    trained: Any | None = None,
) -> tuple[Scalars, Any]:
    """Returns a batch's statistics and the gradients of its loss, the same however the batch is cut.

    The loss is the sum over terms t of term_weights[t] * sum_t / W_t, where W_t totals the term's weights over the
    whole batch.

    Args:
        task: says what the loss is.
        params: the task's parameters.
        batch: arrays `[batch, ...]`.
        key: the step's dropout key, or None for no dropout.
        accumulation_steps: number of micro-batches; must divide the batch.
        axis_name: of the devices, where each runs this with rows of its own (under pmap), in order; what is returned
            is then of all their rows.
        trained: a tree of bools like the parameters; where it is False, the gradient is zero and is not computed. All
            are trained if None.
    """
    totals = task.loss_weights(batch)
    batch_size = next(iter(batch.values())).shape[0]
    rows = jnp.arange(batch_size)
    if axis_name is not None:
        totals = jax.lax.psum(totals, axis_name)
        rows += batch_size * jax.lax.axis_index(axis_name)
    # A term without weight in this batch has no loss in it, rather than a division by zero.
    scales = {
        term: weight / jnp.where(totals[term] == 0, 1.0, totals[term]) for term, weight in task.term_weights.items()
    }

    def loss(params: Any, batch: Batch, rows: jax.Array) -> tuple[jax.Array, Scalars]:
        if trained is not None:
            params = jax.tree.map(lambda leaf, is_it: leaf if is_it else jax.lax.stop_gradient(leaf), params, trained)
        sums, statistics = task.loss(params, batch, None if key is None else row_keys(key, rows))
        return sum(scales[term] * sums[term] for term in sums), statistics

    differentiate = jax.grad(loss, has_aux=True)
    if accumulation_steps == 1:
        gradients, statistics = differentiate(params, batch, rows)
    else:
        gradients, statistics = _accumulate(differentiate, params, batch, rows, accumulation_steps)
    if axis_name is not None:
        gradients, statistics = jax.lax.psum((gradients, statistics), axis_name)
    return statistics, gradients


def _accumulate(
    differentiate: Callable[[Any, Batch, jax.Array], tuple[Any, Scalars]],
    params: Any,
    batch: Batch,
    rows: jax.Array,
    accumulation_steps: int,
) -> tuple[Any, Scalars]:
    """Adds up the gradients and statistics of micro-batches."""

    def add(total: tuple[Any, Scalars], piece: tuple[Batch, jax.Array]) -> tuple[tuple[Any, Scalars], None]:
        return jax.tree.map(jnp.add, total, differentiate(params, *piece)), None

    pieces = _micro_batches((dict(batch), rows), accumulation_steps)
    shapes = jax.eval_shape(differentiate, params, *jax.tree.map(lambda leaf: leaf[0], pieces))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.lax.scan(add, zeros, pieces)[0]


def make_train_step(
    task: Task,
    optimizer: optax.GradientTransformation,
    learning_rate: Callable[[jax.Array], jax.Array],
    *,
    seed: int,
    accumulation_steps: int = 1,
    axis_name: str | None = None,
    trained: Any | None = None,
    ema_decay: float | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Returns the pure function of one training step.

    Args:
        task: says what the loss is.
        optimizer: scales by the learning rate itself.
        learning_rate: the schedule, for the report.
        seed: of dropout; row r of step s draws from fold_in(fold_in(seed, s), r).
        accumulation_steps: number of micro-batches; must divide the batch.
        axis_name: see `loss_and_gradients`.
        trained: see `loss_and_gradients`.
        ema_decay: see `average_parameters`; of a state with an average.
    """
    update = make_update(optimizer, learning_rate, ema_decay=ema_decay)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        statistics, gradients = loss_and_gradients(
            task, state.params, batch, key, accumulation_steps, axis_name, trained
        )
        state, of_update = update(state, gradients)
        return state, {**task.metrics(statistics), **of_update}

    return train_step


def make_update(
    optimizer: optax.GradientTransformation,
    learning_rate: Callable[[jax.Array], jax.Array],
    *,
    ema_decay: float | None = None,
) -> Update:
    """Returns the pure function from a state and the gradients to the next state; arguments as of `make_train_step`."""

    def update(state: TrainState, gradients: Any) -> tuple[TrainState, Metrics]:
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {"grad_norm": optax.tree.norm(gradients), "learning_rate": learning_rate(state.step)}
        step = state.step + 1
        ema = None if ema_decay is None else average_parameters(state.ema, params, ema_decay, step)
        return TrainState(params, opt_state, step, ema), metrics

    return update


def make_eval_step(task: Task) -> Callable[[Any, Batch], Scalars]:
    """Returns the pure function from parameters and a batch to the batch's statistics, without dropout."""

    def eval_step(params: Any, batch: Batch) -> Scalars:
        return task.loss(params, batch, None)[1]

    return eval_step
