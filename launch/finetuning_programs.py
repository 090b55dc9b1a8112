"""The programs of a fine-tuning run: a train step and an evaluation for each length of batches."""

import concurrent.futures
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from bert_jax.data.length_batches import LengthBatches, choose_padded_lengths
from bert_jax.parallel import pmap
from bert_jax.parallel.mesh import abstract_batch
from bert_jax.tasks.encoding.encoded_rows import EncodedRows
from bert_jax.tasks.finetuning_batches import Augment, Weigh, outputs_of_rows, train_batches
from bert_jax.tasks.finetuning_recipe import FineTune
from bert_jax.tasks.finetuning_task import FineTuningTask
from bert_jax.tasks.objectives import Objective
from bert_jax.training.compilation import compile_outputs, compile_train_step
from bert_jax.training.loop import CompiledPhase
from bert_jax.training.train_step import make_train_step

# The compiler leaves Python to others while it works.
_COMPILERS = 2


class StepByLength:
    """One train step for each length of batches, called as one."""

    def __init__(self, steps: Mapping[int, Any]):
        """Takes the compiled steps by length."""
        self._steps = steps

    def __call__(self, state: Any, batch: Mapping[str, Any]) -> tuple[Any, Any]:
        """Runs the step of the batch's length."""
        return self._steps[batch["input_ids"].shape[-1]](state, batch)

    def memory_analysis(self) -> Any:
        """What the compiler says of the longest."""
        return self._steps[max(self._steps)].memory_analysis()


def compile_finetuning(
    recipe: FineTune,
    task: FineTuningTask,
    objective: Objective,
    rows: EncodedRows,
    dev: tuple[Sequence[Any], EncodedRows],
    optimizer: Any,
    rate: Callable[[Any], Any],
    trained: Any | None,
    abstract_state: Any,
    mesh: Mesh,
    total_steps: int,
    *,
    is_pmap: bool = False,
    weigh: Weigh | None = None,
    augment: Augment | None = None,
) -> CompiledPhase:
    """Compiles everything that the run needs, and lays out its batches.

    Args:
        recipe: the choices.
        task: scores the dev set.
        objective: what is minimised.
        rows: to train on.
        dev: examples and their rows.
        optimizer: of `build_optimizer`.
        rate: the schedule.
        trained: which parameters are; None for all.
        abstract_state: shapes and shardings.
        mesh: where it runs.
        total_steps: of the run.
        is_pmap: whether devices run the step under pmap.
        weigh: see `train_batches`.
        augment: see `train_batches`.
    """
    began = time.perf_counter()
    dev_examples, dev_rows = dev
    lengths = np.concatenate([rows.unit_lengths(), dev_rows.unit_lengths()])
    padded_lengths = choose_padded_lengths(lengths, recipe.padded_lengths)
    order = LengthBatches(rows.unit_lengths(), recipe.batch_size, recipe.seed, padded_lengths)
    axis_name = pmap.AXIS if is_pmap else None
    train_step = make_train_step(
        objective,
        optimizer,
        rate,
        seed=recipe.seed,
        accumulation_steps=recipe.accumulation_steps,
        axis_name=axis_name,
        trained=trained,
        ema_decay=recipe.ema_decay,
    )
    if axis_name:
        train_step = pmap.data_parallel(mesh, train_step)

    def compile_length(length: int):
        shapes = abstract_batch(mesh, rows.shapes(recipe.batch_size, length))
        return compile_train_step(train_step, abstract_state, shapes)

    def compile_evaluation(length: int):
        shapes = abstract_batch(mesh, dev_rows.shapes(recipe.batch_size, length))
        return compile_outputs(objective, abstract_state.params, shapes)

    train_lengths = {order.length_of(length) for length in np.unique(rows.unit_lengths())}
    dev_lengths = {order.length_of(length) for length in np.unique(dev_rows.unit_lengths())}
    with concurrent.futures.ThreadPoolExecutor(_COMPILERS) as pool:
        # The longest take longest.
        steps = {length: pool.submit(compile_length, length) for length in sorted(train_lengths, reverse=True)}
        programs = {length: pool.submit(compile_evaluation, length) for length in sorted(dev_lengths, reverse=True)}
        compiled = {length: made.result() for length, made in steps.items()}
        evaluations = {length: made.result() for length, made in programs.items()}
    metric_names = next(iter(compiled.values()))[1]
    print(
        f"compiled in {time.perf_counter() - began:.1f} s: batches of {recipe.batch_size} rows of"
        f" {', '.join(map(str, padded_lengths))} tokens"
    )

    def evaluate(params: Any) -> dict[str, float]:
        statistics, outputs = outputs_of_rows(evaluations, params, dev_rows, recipe.batch_size, mesh)
        return {"loss": float(objective.metrics(statistics)["loss"]), **task.score(dev_examples, dev_rows, outputs)}

    def batches(step: int):
        return train_batches(rows, order, mesh, step, total_steps, weigh, augment)

    def describe(step: int) -> str:
        units, _ = order(step)
        return f"the examples {', '.join(map(str, rows.examples[units[units >= 0] * rows.rows_per_unit][:8]))}, ..."

    step = StepByLength({length: program for length, (program, _) in compiled.items()})
    return CompiledPhase(0, total_steps, step, metric_names, batches, evaluate, describe)
