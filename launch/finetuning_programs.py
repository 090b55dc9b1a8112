"""The programs of a fine-tuning run: what is minimised, a train step and an evaluation for each length of batches."""

import concurrent.futures
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from bert_jax.config import BertConfig
from bert_jax.data.length_batches import (
    LengthBatches,
    choose_padded_lengths,
    lengths_in_order,
    lengths_of_batches,
)
from bert_jax.parallel import pmap
from bert_jax.parallel.mesh import abstract_batch
from bert_jax.tasks.auxiliary_losses import pretraining_view, with_further_losses
from bert_jax.tasks.finetuning_batches import TrainingRows, outputs_of_rows
from bert_jax.tasks.finetuning_recipe import FineTune
from bert_jax.tasks.finetuning_task import FineTuningTask
from bert_jax.tasks.objectives import Objective
from bert_jax.training.compilation import compile_outputs, compile_train_step
from bert_jax.training.loop import CompiledPhase
from bert_jax.training.optimizers import build_optimizer
from bert_jax.training.recipe import PhaseRates
from bert_jax.training.schedules import build_phased_schedule
from bert_jax.training.task import Task
from bert_jax.training.train_step import make_train_step
from bert_jax.training.trainable import count_trained, is_trained, moments_of_trained, scale_updates, update_factors
from launch.finetuning_material import Material, input_masking, weigher

# The compiler leaves Python to others while it works.
_COMPILERS = 2
# A program is compiled in the time of about seven steps of training, and runs have a few epochs.
_PRICE_OF_A_LENGTH = 2.0


def build_objective(recipe: FineTune, task: FineTuningTask, config: BertConfig) -> Objective:
    """Returns what is minimised, with what the recipe adds to the task's own."""
    execution = dataclasses.replace(recipe.execution, frozen_layers=recipe.frozen_layers)
    return with_further_losses(task.objective(config, execution), recipe, config, execution)


@dataclasses.dataclass(frozen=True)
class UpdateRule:
    """How gradients change the parameters.

    Attributes:
        optimizer: scales by the learning rate itself.
        rate: the schedule, for the log.
        trained: which parameters are trained, a tree of bools; None for all.
    """

    optimizer: optax.GradientTransformation
    rate: Callable[[Any], Any]
    trained: Any | None


def build_update_rule(recipe: FineTune, total_steps: int, objective: Task) -> UpdateRule:
    """Returns optimizer and schedule; says which parameters are trained, if not all."""
    rate = build_phased_schedule(recipe.schedule, recipe.learning_rate, [PhaseRates(total_steps)])
    axes = objective.logical_axes()
    if not (recipe.frozen_layers or recipe.frozen or recipe.layer_decay):
        return UpdateRule(build_optimizer(recipe.optimizer, rate, logical_axes=axes), rate, None)
    params = jax.eval_shape(objective.init, jax.random.key(0))
    factors = update_factors(
        params, frozen_layers=recipe.frozen_layers, frozen=recipe.frozen, layer_decay=recipe.layer_decay
    )
    count, total = count_trained(params, factors)
    print(f"{count:,} of {total:,} parameters are trained ({count / total:.1%})")
    restrict = None if recipe.execution.numerics.keeps_state_of_frozen else moments_of_trained(factors)
    optimizer = build_optimizer(recipe.optimizer, rate, restrict, logical_axes=axes)
    return UpdateRule(optax.chain(optimizer, scale_updates(factors)), rate, is_trained(factors))


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


def compile_together(*jobs: Mapping[Any, Callable[[], Any]]) -> list[dict[Any, Any]]:
    """Calls everything in these dicts, some at a time, in their order; returns dicts of what came of it."""
    with concurrent.futures.ThreadPoolExecutor(_COMPILERS) as pool:
        begun = [{key: pool.submit(job) for key, job in group.items()} for group in jobs]
        return [{key: made.result() for key, made in group.items()} for group in begun]


class TaskPrograms:
    """The batches of one task, and its evaluation, a program for each length of batches."""

    def __init__(self, recipe: FineTune, material: Material, objective: Objective, mesh: Mesh):
        """Lays out the batches.

        Args:
            recipe: the choices.
            material: the task and its rows.
            objective: what is minimised.
            mesh: where it runs.
        """
        self._recipe, self._material, self._objective, self._mesh = recipe, material, objective, mesh
        rows, self._dev_rows = material.encoded["train"], material.encoded["dev"]
        longest = lengths_of_batches(rows.unit_lengths(), recipe.batch_size, recipe.seed)
        self.lengths = choose_padded_lengths(longest, recipe.padded_lengths, price=_PRICE_OF_A_LENGTH)
        # In order of length, batches hold little padding with few lengths.
        dev_longest = lengths_in_order(self._dev_rows.unit_lengths(), recipe.batch_size)
        most = -(-recipe.padded_lengths // 2)
        self._dev_lengths = choose_padded_lengths(dev_longest, most, price=_PRICE_OF_A_LENGTH)
        self.training = TrainingRows(
            rows,
            LengthBatches(rows.unit_lengths(), recipe.batch_size, recipe.seed, self.lengths),
            weigh=weigher(material.class_weights),
            augment=input_masking(recipe, material.tokenizer, material.task),
            view=pretraining_view(recipe, rows, material.tokenizer, material.task.markers),
        )
        self.evaluations: Mapping[int, Any] = {}

    def abstract_batch(self, length: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns shapes and shardings of a batch to train on."""
        return abstract_batch(self._mesh, self.training.shapes(self._recipe.batch_size, length))

    def evaluation_jobs(self, abstract_params: Any) -> dict[int, Callable[[], Any]]:
        """Returns by length what compiles an evaluation; `evaluations` wants what they return."""

        def compile_length(length: int) -> Any:
            shapes = abstract_batch(self._mesh, self._dev_rows.shapes(self._recipe.batch_size, length))
            return compile_outputs(self._objective, abstract_params, shapes)

        return {length: functools.partial(compile_length, length) for length in reversed(self._dev_lengths)}

    def evaluate(self, params: Any) -> dict[str, float]:
        """Returns the metrics of the dev set, the loss first."""
        batch_size = self._recipe.batch_size
        statistics, outputs = outputs_of_rows(self.evaluations, params, self._dev_rows, batch_size, self._mesh)
        scores = self._material.task.score(self._material.dev_examples, self._dev_rows, outputs)
        return {"loss": float(self._objective.metrics(statistics)["loss"]), **scores}


def compile_finetuning(
    recipe: FineTune,
    material: Material,
    objective: Objective,
    update: UpdateRule,
    *,
    abstract_state: Any,
    mesh: Mesh,
    total_steps: int,
    is_pmap: bool = False,
) -> CompiledPhase:
    """Compiles everything that the run needs, and lays out its batches.

    Args:
        recipe: the choices.
        material: the task and its rows.
        objective: what is minimised.
        update: of `build_update_rule`.
        abstract_state: shapes and shardings.
        mesh: where it runs.
        total_steps: of the run.
        is_pmap: whether devices run the step under pmap.
    """
    began = time.perf_counter()
    programs = TaskPrograms(recipe, material, objective, mesh)
    axis_name = pmap.AXIS if is_pmap else None
    train_step = make_train_step(
        objective,
        update.optimizer,
        update.rate,
        seed=recipe.seed,
        accumulation_steps=recipe.accumulation_steps,
        axis_name=axis_name,
        trained=update.trained,
        ema_decay=recipe.ema_decay,
    )
    if axis_name:
        train_step = pmap.data_parallel(mesh, train_step)

    def compile_length(length: int) -> Any:
        return compile_train_step(train_step, abstract_state, programs.abstract_batch(length), quickly=True)

    # The longest take longest.
    steps = {length: functools.partial(compile_length, length) for length in reversed(programs.lengths)}
    compiled, programs.evaluations = compile_together(steps, programs.evaluation_jobs(abstract_state.params))
    metric_names = next(iter(compiled.values()))[1]
    print(
        f"compiled in {time.perf_counter() - began:.1f} s: batches of {recipe.batch_size} rows of"
        f" {', '.join(map(str, programs.lengths))} tokens"
    )

    def batches(first_step: int) -> Iterator[dict[str, jax.Array]]:
        return (programs.training.batch(step, step, mesh) for step in range(first_step, total_steps))

    step = StepByLength({length: program for length, (program, _) in compiled.items()})
    return CompiledPhase(0, total_steps, step, metric_names, batches, programs.evaluate, programs.training.describe)
