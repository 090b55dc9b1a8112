"""The programs of a run of several tasks: gradients of each task and length, one update, evaluations of each task."""

import functools
import time
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from bert_jax.data.task_mixture import SUM
from bert_jax.tasks.finetuning_recipe import FineTune
from bert_jax.tasks.multitask import SharedEncoder
from bert_jax.training.gradient_steps import (
    StepOfTasks,
    compile_gradient_step,
    compile_update,
    make_gradient_step,
    own_metrics,
)
from bert_jax.training.loop import CompiledPhase
from bert_jax.training.train_step import make_update
from launch.finetuning_programs import TaskPrograms, UpdateRule, compile_together
from launch.multitask_material import MultiTaskMaterial, of_task


def compile_multitask(
    recipe: FineTune,
    material: MultiTaskMaterial,
    shared: SharedEncoder,
    update: UpdateRule,
    *,
    abstract_state: Any,
    mesh: Mesh,
    total_steps: int,
) -> CompiledPhase:
    """Compiles everything that the run needs, and lays out its batches; arguments as of `compile_finetuning`."""
    began = time.perf_counter()
    names, mixture = list(material.tasks), material.mixture(recipe)
    tasks = [TaskPrograms(recipe, one, shared.tasks[name], mesh) for name, one in material.tasks.items()]
    gradient_steps = [
        make_gradient_step(
            shared.tasks[name],
            weight=material.weights[name],
            place=place,
            seed=recipe.seed,
            accumulation_steps=recipe.accumulation_steps,
            trained=update.trained,
        )
        for place, name in enumerate(names)
    ]

    def compile_gradients(place: int, length: int) -> Any:
        # In proportion, a step has one task; otherwise each adds to those before it.
        begins = mixture.mixing != SUM or place == 0
        shapes = tasks[place].abstract_batch(length)
        return compile_gradient_step(gradient_steps[place], abstract_state, shapes, begins=begins)

    jobs = {
        (place, length): functools.partial(compile_gradients, place, length)
        for place, programs in enumerate(tasks)
        for length in reversed(programs.lengths)
    }
    evaluations = [programs.evaluation_jobs(abstract_state.params) for programs in tasks]
    compiled, *evaluations = compile_together(jobs, *evaluations)
    for programs, of_lengths in zip(tasks, evaluations, strict=True):
        programs.evaluations = of_lengths

    # ---- The update, for the metrics that a step's tasks have: tasks with the same names share it.
    metrics = [compiled[place, programs.lengths[0]][1] for place, programs in enumerate(tasks)]
    of_steps = [tuple(metrics)] if mixture.mixing == SUM else list(dict.fromkeys((own,) for own in metrics))
    one_update = make_update(update.optimizer, update.rate, ema_decay=recipe.ema_decay)
    updates = {of_step: compile_update(one_update, abstract_state, of_step) for of_step in of_steps}
    first_names = next(iter(updates.values()))[1]
    print(f"compiled in {time.perf_counter() - began:.1f} s: batches of {recipe.batch_size} rows")
    for name, programs in zip(names, tasks, strict=True):
        print(f"  {name}: of {', '.join(map(str, programs.lengths))} tokens")

    def metric_names(step: int) -> list[str]:
        own = [of_task(names[place], metric) for place, _ in mixture(step) for metric in own_metrics(metrics[place])]
        return [*first_names, *own]

    def batches(first_step: int) -> Iterator[dict[int, dict[str, jax.Array]]]:
        for step in range(first_step, total_steps):
            yield {place: tasks[place].training.batch(number, step, mesh) for place, number in mixture(step)}

    def evaluate(params: Any) -> dict[str, float]:
        by_task = {name: programs.evaluate(params) for name, programs in zip(names, tasks, strict=True)}
        return material.scores(by_task, recipe)

    def describe(step: int) -> str:
        return "; ".join(f"{names[place]}: {tasks[place].training.describe(number)}" for place, number in mixture(step))

    step = StepOfTasks(compiled, updates)
    return CompiledPhase(0, total_steps, step, metric_names, batches, evaluate, describe)
