"""What a fine-tuning run is made of before JAX is imported: examples, tokenizer, architecture, rows."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from absl import flags

from bert_jax.config import BertConfig
from bert_jax.errors import UserError
from bert_jax.interop.pretrained import Pretrained, open_pretrained
from bert_jax.tasks.auxiliary_losses import check_auxiliary_losses
from bert_jax.tasks.class_weights import ClassWeigher, class_weights
from bert_jax.tasks.encoding.encoded_rows import EncodedRows
from bert_jax.tasks.encoding.example_encoder import encode_all
from bert_jax.tasks.examples.labels import few_shot
from bert_jax.tasks.finetuning_recipe import FineTune
from bert_jax.tasks.finetuning_task import FineTuningTask
from bert_jax.tasks.finetuning_tasks import TASKS, check_recipe
from bert_jax.tasks.input_masking import InputMasking
from bert_jax.text.added_words import add_markers
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.tokenizers import load_tokenizer, tokenizer_files
from bert_jax.training.best import BestBy
from launch.finetuning_checks import check_before_reading
from launch.finetuning_files import check_file_flags, read_task
from launch.run_folder import NO_MODEL, model_to_describe, workdir_of
from launch.task_evaluation import format_scores

if TYPE_CHECKING:
    from bert_jax.tasks.objectives import Objective
    from bert_jax.training.loop import CompiledPhase
    from launch.finetuning_programs import UpdateRule

# By the name of the task.
RECIPES = "gin_configs/finetune/{}.gin"
# The name in a run's identity of its length.
STEPS = "finetune.steps"


@dataclasses.dataclass(frozen=True)
class Material:
    """What is trained on what: all of a run that learning rate, batch size and epochs do not change.

    Attributes:
        task: the task.
        training_examples: as read from --train.
        dev_examples: as read from --dev.
        encoded: the rows of both, by "train" and "dev".
        config: the architecture.
        tokenizer: the run's.
        tokenizer_directory: where its files lie; None if it is in none yet.
        class_weights: how much each class counts, float32 `[labels]`; None for 1.
    """

    task: FineTuningTask
    training_examples: Sequence[Any]
    dev_examples: Sequence[Any]
    encoded: Mapping[str, EncodedRows]
    config: BertConfig
    tokenizer: Tokenizer
    tokenizer_directory: pathlib.Path | None
    class_weights: np.ndarray | None

    @property
    def best_by(self) -> BestBy:
        """The metric of the dev set that decides."""
        return BestBy(self.task.main_metric, self.task.larger_is_better)

    @property
    def losses(self) -> Sequence[str]:
        """The losses among the metrics of the dev set."""
        return ("loss",)

    @property
    def training_data(self) -> Sequence[str]:
        """The names in a run's identity of what it is trained on."""
        return ("data.train",)

    @property
    def heads(self) -> Sequence[str]:
        """What may be of another shape in the model to begin with; see `load_matching`."""
        from bert_jax.interop.starting_weights import HEADS

        return HEADS

    def total_steps(self, recipe: FineTune) -> int:
        """Returns the steps of a run; checks that the learning rate's course fits into them."""
        return recipe.total_steps(self.steps_per_epoch(recipe))

    def steps_per_epoch(self, recipe: FineTune) -> int:
        """Returns the batches that hold every training example once."""
        return -(-self.encoded["train"].num_units // recipe.batch_size)

    def batch_shapes(self, recipe: FineTune) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Returns shape and dtype of each array of the longest batch, without what further losses add to it."""
        rows = self.encoded["train"]
        return rows.shapes(recipe.batch_size, int(rows.unit_lengths().max()))

    def identity(self, recipe: FineTune) -> dict[str, Any]:
        """Returns what must stay the same for a run to go on; see `open_folder`."""
        return {
            **{f"BertConfig.{name}": value for name, value in self.config.to_json().items()},
            **{f"task.{name}": value for name, value in task_identity(self.task).items()},
            **recipe.identity(),
            "data.tokenizer": self.tokenizer.fingerprint,
            **{f"data.{name}": rows.fingerprint() for name, rows in self.encoded.items()},
            STEPS: self.total_steps(recipe),
        }

    def record(self, recipe: FineTune) -> dict[str, Any]:
        """Returns what a checkpoint says of its model, as JSON values."""
        return task_record(self.task, recipe)

    def objective(self, recipe: FineTune) -> "Objective":
        """Returns what is minimised; imports JAX."""
        from launch.finetuning_programs import build_objective

        return build_objective(recipe, self.task, self.config)

    def compile(self, recipe: FineTune, objective: "Objective", update: "UpdateRule", **place: Any) -> "CompiledPhase":
        """Compiles everything that the run needs, and lays out its batches; see `compile_finetuning`."""
        from launch.finetuning_programs import compile_finetuning

        return compile_finetuning(recipe, self, objective, update, **place)

    def baseline(self) -> dict[str, float]:
        """Returns the metrics of answers to the dev set that do not look at the text; may be empty."""
        return self.task.baseline(self.training_examples, self.dev_examples)

    def describe(self, validation: Mapping[str, float]) -> str:
        """Returns the table of the dev set's metrics at the end."""
        return format_scores("dev set", validation, self.baseline(), "never looking at the text")


def task_identity(task: FineTuningTask) -> dict[str, Any]:
    """Returns what must stay the same of a task for a run to go on.

    Whether its texts are pairs follows from the rows, which must too; and runs of before do not say it.
    """
    return {name: value for name, value in task.to_json().items() if name != "is_pair"}


def task_record(task: FineTuningTask, recipe: FineTune) -> dict[str, Any]:
    """Returns what a checkpoint says of a model that is tuned for a task, as JSON values."""
    return {
        "model_class": task.model_class,
        "labels": list(task.labels) if task.labels else None,
        "finetuning": {**task.to_json(), "max_seq_len": recipe.max_seq_len, "long_texts": recipe.long_texts},
    }


def weigher(weights: np.ndarray | None) -> ClassWeigher | None:
    """Returns what gives the rows of a batch their classes' weights; None if all count the same."""
    return None if weights is None else ClassWeigher(weights)


def input_masking(recipe: FineTune, tokenizer: Tokenizer, task: FineTuningTask) -> InputMasking | None:
    """Returns what hides tokens of the training batches; None if the recipe does not want any hidden."""
    if recipe.mask_probability is None:
        return None
    return InputMasking.of(recipe.mask_probability, recipe.seed, tokenizer, task.markers)


def prepare(values: flags.FlagValues, recipe: FineTune, architecture: BertConfig | None) -> Material:
    """Reads the files and the model's description, and encodes the examples; says aloud what became of them."""
    if recipe.mixing is not None:
        raise UserError(f"finetune.mixing={recipe.mixing} is for several tasks: give them by --tasks, or leave it out")
    check_file_flags(values)
    start = starting_model(values, recipe, architecture)
    check_before_reading(values, recipe, start.config, {"": TASKS[values.task].model_class})
    task, training_examples, dev_examples = read_task_examples(values, recipe)
    config, tokenizer, tokenizer_directory = start.with_markers(task.markers)
    encoded, weights = encode_examples(task, training_examples, dev_examples, tokenizer, recipe)
    check_auxiliary_losses(recipe, config, encoded["train"])
    return Material(task, training_examples, dev_examples, encoded, config, tokenizer, tokenizer_directory, weights)


def read_task_examples(
    values: flags.FlagValues, recipe: FineTune
) -> tuple[FineTuningTask, Sequence[Any], Sequence[Any]]:
    """Returns the task, the examples to train on, and those to evaluate on."""
    task, training_examples, dev_examples = read_task(values)
    check_recipe(recipe, task)
    if recipe.few_shot is not None:
        training_examples, lines = few_shot(training_examples, recipe.few_shot, recipe.seed)
        print("\n".join([f"few-shot: {len(training_examples):,} training examples, seed {recipe.seed}", *lines]))
    return task, training_examples, dev_examples


def encode_examples(
    task: FineTuningTask,
    training_examples: Sequence[Any],
    dev_examples: Sequence[Any],
    tokenizer: Tokenizer,
    recipe: FineTune,
) -> tuple[dict[str, EncodedRows], np.ndarray | None]:
    """Returns the rows of "train" and "dev", and how much each class counts."""
    encoded = {}
    for name, examples in (("train", training_examples), ("dev", dev_examples)):
        encoder = task.encoder(tokenizer, recipe.max_seq_len, recipe.long_texts)
        encoded[name] = encode_all(encoder, examples)
        print("\n".join(f"{name}: {line}" for line in encoder.report()))
    weights = None
    if recipe.class_weights is not None:
        weights = class_weights(recipe.class_weights, task.labels, encoded["train"].targets["labels"])
        shown = (f"{label} {weight:.4g}" for label, weight in zip(task.labels, weights, strict=True))
        print(f"class weights: {', '.join(shown)}")
    return encoded, weights


class StartingModel(NamedTuple):
    """Everything that a run begins with, but for the weights.

    Attributes:
        config: the architecture.
        tokenizer: the tokenizer.
        tokenizer_directory: where its files lie; None if it is in none yet.
    """

    config: BertConfig
    tokenizer: Tokenizer
    tokenizer_directory: pathlib.Path | None

    def with_markers(self, markers: Sequence[str]) -> "StartingModel":
        """Returns the same with markers in the tokenizer."""
        marked = add_markers(self.tokenizer, markers)
        if marked is self.tokenizer:
            return self
        # The markers' embeddings begin with the mean of the pieces that they were cut into: `load_starting_weights`.
        size = max(self.config.vocab_size, marked.vocab_size)
        return StartingModel(dataclasses.replace(self.config, vocab_size=size), marked, None)


def starting_width(values: flags.FlagValues, architecture: BertConfig | None) -> int:
    """Returns the hidden size of the model of --init_from, or of a new one; reads no weights.

    Args:
        values: the flags.
        architecture: of a model with random weights.
    """
    source = model_to_describe(values.init_from, workdir_of(values))
    if source != NO_MODEL:
        return _open_source(source).config.hidden_size
    # Without an architecture there is nothing to train, which `starting_model` says.
    return (architecture or BertConfig()).hidden_size


def _open_source(source: str) -> Pretrained:
    try:
        return open_pretrained(source)
    except UserError as error:
        raise UserError(f"--init_from={source}: {error}") from error


def starting_model(values: flags.FlagValues, recipe: FineTune, architecture: BertConfig | None) -> StartingModel:
    """Returns the model of --init_from, or a new one, with what the recipe changes of it; reads no weights."""
    source = model_to_describe(values.init_from, workdir_of(values))
    if source == NO_MODEL:
        if architecture is None or not values.tokenizer:
            raise UserError(
                f"--init_from={NO_MODEL} needs an architecture, such as --gin_file=gin_configs/models/tiny.gin beside"
                f" --gin_file={RECIPES.format(values.task)}, and --tokenizer=DIR"
            )
        tokenizer_directory = pathlib.Path(values.tokenizer)
        tokenizer = load_tokenizer(tokenizer_directory)
        config = dataclasses.replace(architecture, vocab_size=tokenizer.vocab_size)
    else:
        if architecture is not None and values.init_from:
            raise UserError(
                "the architecture is that of --init_from: leave the bindings of BertConfig out (finetune has those that"
                " may change, such as finetune.hidden_dropout_prob)"
            )
        model = _open_source(source)
        tokenizer, tokenizer_directory, config = model.load_tokenizer(), model.tokenizer_directory, model.config
        if config.pooling == "entities":
            # That was for the relations it was tuned for; the recipe says if there are entities here.
            config = dataclasses.replace(config, pooling="cls")
        if values.tokenizer and load_tokenizer(pathlib.Path(values.tokenizer)).fingerprint != tokenizer.fingerprint:
            raise UserError(f"--tokenizer={values.tokenizer} is not the tokenizer of the run in {source}: leave it out")
        if architecture is not None:
            # A run that began with random weights; `open_folder` finds out whether they are those of this one.
            config = dataclasses.replace(architecture, vocab_size=config.vocab_size)
    if recipe.max_seq_len > config.max_position_embeddings:
        raise UserError(
            f"max_seq_len is {recipe.max_seq_len}, and the model has {config.max_position_embeddings} positions: give a"
            " smaller --max_seq_len"
        )
    changed = {
        name: getattr(recipe, name)
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "pooling", "encoder_output")
        if getattr(recipe, name) is not None
    }
    return StartingModel(dataclasses.replace(config, **changed), tokenizer, tokenizer_directory)


def checkpoint_files(
    tokenizer: Tokenizer, tokenizer_directory: pathlib.Path | None, operative_config: str
) -> dict[str, bytes]:
    """What a checkpoint carries beside the state: the tokenizer, and the recipe as a record.

    Args:
        tokenizer: the run's.
        tokenizer_directory: where its files lie; None if it is in none yet.
        operative_config: the record.
    """
    files = tokenizer_files(tokenizer, tokenizer_directory)
    return {**files, "operative_config.gin": operative_config.encode()}
