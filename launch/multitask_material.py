"""What a run of several tasks is made of: the material of each, with one architecture and one tokenizer."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from bert_jax.config import BertConfig
from bert_jax.data.task_mixture import SUM, TaskMixture
from bert_jax.errors import UserError
from bert_jax.models.shared_encoder import TASKS
from bert_jax.tasks.auxiliary_losses import check_auxiliary_losses
from bert_jax.tasks.finetuning_recipe import FineTune
from bert_jax.tasks.finetuning_tasks import TASKS as FINETUNING_TASKS
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training.best import BestBy
from launch.finetuning_checks import check_before_reading
from launch.finetuning_material import (
    STEPS,
    Material,
    encode_examples,
    read_task_examples,
    starting_model,
    task_identity,
    task_record,
)
from launch.mesh_flags import PMAP
from launch.multitask_files import check_alone, read_tasks
from launch.task_evaluation import format_scores

if TYPE_CHECKING:
    from bert_jax.tasks.multitask import SharedEncoder
    from bert_jax.training.loop import CompiledPhase
    from launch.finetuning_programs import UpdateRule

# The metric that the best checkpoint is chosen by: the mean of the tasks' own, negated where smaller is better.
MEAN_SCORE = "mean_score"


@dataclasses.dataclass(frozen=True)
class MultiTaskMaterial:
    """What is trained on what; takes the place of `Material`, see there.

    Attributes:
        tasks: the material of each task, by name, in the file's order.
        weights: how much the loss of each counts, by name.
        config: the architecture.
        tokenizer: the run's, with the markers of all tasks.
        tokenizer_directory: where its files lie; None if it is in none yet.
    """

    tasks: Mapping[str, Material]
    weights: Mapping[str, float]
    config: BertConfig
    tokenizer: Tokenizer
    tokenizer_directory: pathlib.Path | None

    @property
    def best_by(self) -> BestBy:
        """The metric of the dev sets that decides."""
        return BestBy(MEAN_SCORE, larger_is_better=True)

    @property
    def losses(self) -> Sequence[str]:
        """The losses among the metrics of the dev sets."""
        return tuple(of_task(name, "loss") for name in self.tasks)

    @property
    def training_data(self) -> Sequence[str]:
        """The names in a run's identity of what it is trained on."""
        return tuple(f"tasks.{name}.train" for name in self.tasks)

    @property
    def heads(self) -> Sequence[str]:
        """What may be of another shape in the model to begin with; see `load_matching`."""
        return ("bert/pooler", *(f"{TASKS}/{name}" for name in self.tasks))

    def mixture(self, recipe: FineTune) -> TaskMixture:
        """Returns which tasks each step is made of."""
        batches = [one.steps_per_epoch(recipe) for one in self.tasks.values()]
        return TaskMixture(recipe.mixing or SUM, batches, recipe.seed)

    def total_steps(self, recipe: FineTune) -> int:
        """Returns the steps of a run; checks that the learning rate's course fits into them."""
        return recipe.total_steps(self.steps_per_epoch(recipe))

    def steps_per_epoch(self, recipe: FineTune) -> int:
        """Returns the steps that have every example of every task at least once."""
        return self.mixture(recipe).steps_per_epoch

    def batch_shapes(self, recipe: FineTune) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Returns shape and dtype of each array of the longest batches of all tasks."""
        return {
            of_task(name, array): shape
            for name, one in self.tasks.items()
            for array, shape in one.batch_shapes(recipe).items()
        }

    def identity(self, recipe: FineTune) -> dict[str, Any]:
        """Returns what must stay the same for a run to go on; see `open_folder`."""
        identity = {
            **{f"BertConfig.{name}": value for name, value in self.config.to_json().items()},
            **recipe.identity(),
            "finetune.mixing": recipe.mixing or SUM,
            "data.tokenizer": self.tokenizer.fingerprint,
            # In their order: the first draws as it would alone.
            "tasks": list(self.tasks),
            STEPS: self.total_steps(recipe),
        }
        for name, one in self.tasks.items():
            identity[f"tasks.{name}.weight"] = self.weights[name]
            identity |= {f"tasks.{name}.{key}": value for key, value in task_identity(one.task).items()}
            identity |= {f"tasks.{name}.{split}": rows.fingerprint() for split, rows in one.encoded.items()}
        return identity

    def record(self, recipe: FineTune) -> dict[str, Any]:
        """Returns what a checkpoint says of its model, as JSON values; see `interop.task_heads`."""
        records = {name: task_record(one.task, recipe) for name, one in self.tasks.items()}
        return {"model_class": "BertModel", "labels": None, TASKS: records}

    def objective(self, recipe: FineTune) -> "SharedEncoder":
        """Returns the parameters that are trained, and what is minimised on them; imports JAX."""
        from bert_jax.tasks.multitask import SharedEncoder

        return SharedEncoder({name: one.objective(recipe) for name, one in self.tasks.items()})

    def compile(
        self, recipe: FineTune, objective: "SharedEncoder", update: "UpdateRule", **place: Any
    ) -> "CompiledPhase":
        """Compiles everything that the run needs, and lays out its batches; see `compile_multitask`."""
        from launch.multitask_programs import compile_multitask

        # Refused by `prepare_tasks`.
        del place["is_pmap"]
        return compile_multitask(recipe, self, objective, update, **place)

    def scores(self, by_task: Mapping[str, Mapping[str, float]], recipe: FineTune) -> dict[str, float]:
        """Returns the metrics of an evaluation.

        Args:
            by_task: those of each task's dev set.
            recipe: the choices.

        Returns:
            loss, as the training steps have it on average; the mean score; and those of each task, as NAME/METRIC.
        """
        shares = self.mixture(recipe).shares
        total = sum(
            share * self.weights[name] * by_task[name]["loss"] for share, name in zip(shares, self.tasks, strict=True)
        )
        # From badness: the smaller, the better.
        mean = -sum(one.best_by.badness(by_task[name]) for name, one in self.tasks.items()) / len(self.tasks)
        named = {of_task(name, metric): value for name in self.tasks for metric, value in by_task[name].items()}
        return {"loss": float(total), MEAN_SCORE: mean, **named}

    def baseline(self) -> dict[str, float]:
        """Returns the metrics of answers that do not look at the text, as far as tasks have such answers."""
        baselines = {name: one.baseline() for name, one in self.tasks.items()}
        found = {of_task(name, metric): value for name in self.tasks for metric, value in baselines[name].items()}
        if all(one.best_by.metric in baselines[name] for name, one in self.tasks.items()):
            badness = [one.best_by.badness(baselines[name]) for name, one in self.tasks.items()]
            found[MEAN_SCORE] = -sum(badness) / len(badness)
        return found

    def describe(self, validation: Mapping[str, float]) -> str:
        """Returns the tables of the dev sets' metrics at the end."""
        tables = []
        for name, one in self.tasks.items():
            prefix = of_task(name, "")
            own = {key.removeprefix(prefix): value for key, value in validation.items() if key.startswith(prefix)}
            tables.append(format_scores(f"dev set of {name}", own, one.baseline(), "never looking at the text"))
        whole = {name: validation[name] for name in ("loss", MEAN_SCORE)}
        return "\n".join([*tables, format_scores("all tasks", whole, self.baseline(), "")])


def of_task(name: str, metric: str) -> str:
    """Returns what the log calls a metric of one of several tasks: in TensorBoard, they lie together."""
    return f"{name}/{metric}"


def prepare_tasks(values: flags.FlagValues, recipe: FineTune, architecture: BertConfig | None) -> MultiTaskMaterial:
    """Reads the tasks' files and the model's description, and encodes the examples; says what became of them."""
    check_alone(values)
    if values.partitioner == PMAP:
        raise UserError("--partitioner=pmap trains one task, and --tasks several: use --partitioner=jit")
    files = read_tasks(pathlib.Path(values.tasks))
    start = starting_model(values, recipe, architecture)
    model_classes = {file.name: FINETUNING_TASKS[file.values.task].model_class for file in files}
    check_before_reading(values, recipe, start.config, model_classes)
    read = {}
    for file in files:
        print(f"---- {file.name}{'' if file.weight == 1 else f', weight {file.weight:g}'}")
        with file.named():
            read[file.name] = read_task_examples(file.values, recipe)
    markers = list(dict.fromkeys(marker for task, _, _ in read.values() for marker in task.markers))
    config, tokenizer, directory = start.with_markers(markers)
    tasks = {}
    for file in files:
        print(f"---- {file.name}")
        with file.named():
            encoded, weights = encode_examples(*read[file.name], tokenizer, recipe)
            check_auxiliary_losses(recipe, config, encoded["train"])
        tasks[file.name] = Material(*read[file.name], encoded, config, tokenizer, directory, weights)
    material = MultiTaskMaterial(tasks, {file.name: file.weight for file in files}, config, tokenizer, directory)
    mixture = material.mixture(recipe)
    batches = ", ".join(f"{name} {one.steps_per_epoch(recipe):,}" for name, one in tasks.items())
    print(f"---- mixing {mixture.mixing}: {mixture.steps_per_epoch:,} steps an epoch; batches of each: {batches}")
    return material
