"""Fine-tunes a BERT on your own files; the same command on an existing workdir resumes.

Example: python -m launch.finetune --task=classification --train=train.csv --dev=dev.csv --init_from=MODEL --workdir=DIR
"""

import dataclasses
import pathlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from bert_jax.config import BertConfig
from bert_jax.errors import UserError
from bert_jax.interop.pretrained import open_pretrained
from bert_jax.tasks.class_weights import ClassWeigher, class_weights
from bert_jax.tasks.encoding.encoded_rows import EncodedRows
from bert_jax.tasks.examples.labels import few_shot
from bert_jax.tasks.finetuning_recipe import FineTune
from bert_jax.tasks.finetuning_task import FineTuningTask
from bert_jax.tasks.finetuning_tasks import check_recipe
from bert_jax.tasks.input_masking import InputMasking
from bert_jax.text.added_words import add_markers
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.tokenizers import load_tokenizer
from bert_jax.training.best import BestBy
from bert_jax.training.goodput import Goodput
from bert_jax.training.saved_models import open_model
from launch.command import run
from launch.configuration import load_finetune
from launch.finetuning_files import define_file_flags, read_task
from launch.finetuning_sweep import define_sweep_flags, is_sweep, sweep
from launch.mesh_flags import PMAP, make_mesh_from_flags
from launch.task_evaluation import format_scores
from launch.training_session import (
    NO_MODEL,
    Trained,
    Training,
    define_training_flags,
    joined_processes,
    open_folder,
    train_session,
    workdir_of,
)

# By the name of the task.
_RECIPES = "gin_configs/finetune/{}.gin"
# Values of the recipe that are flags too, with what they are.
_RECIPE_FLAGS = {
    "learning_rate": (float, "The peak of the learning rate."),
    "epochs": (float, "How many times each training example is seen."),
    "batch_size": (int, "Examples of a step."),
    "max_seq_len": (int, "Tokens of a row at most."),
    "seed": (int, "Of the head's initial values, of order and dropout."),
    "long_texts": (str, "What becomes of texts over the limit: head, tail, head_and_tail or windows."),
    "few_shot": (int, "Train on so many examples of each label alone."),
    "patience": (int, "Evaluations without a better metric after which the run ends."),
}
# The name in a run's identity of its length.
STEPS = "finetune.steps"


def define_flags(values: flags.FlagValues) -> None:
    """Adds the flags of this launcher."""
    here = {"flag_values": values}
    flags.DEFINE_multi_string(
        "gin_file", [], f"Recipe; may repeat, later ones win. {_RECIPES.format('TASK')} if none is given.", **here
    )
    flags.DEFINE_multi_string("gin_param", [], "A binding such as 'finetune.epochs=2'; may repeat.", **here)
    define_file_flags(values)
    flags.DEFINE_string("tokenizer", None, "Directory of the tokenizer, with --init_from=none.", **here)
    define = {float: flags.DEFINE_float, int: flags.DEFINE_integer, str: flags.DEFINE_string}
    for name, (kind, help_text) in _RECIPE_FLAGS.items():
        define[kind](name, None, help_text, **here)
    define_sweep_flags(values)
    define_training_flags(values)


def execute(values: flags.FlagValues) -> int:
    """Fine-tunes; returns the exit code."""
    goodput = Goodput()
    # ---- What is asked for: flags, recipe, files, model, tokenizer. Neither JAX nor TensorFlow is imported yet.
    workdir_of(values)
    if not values.init_from:
        raise UserError(f"--init_from is missing: the model to fine-tune, or {NO_MODEL} for a random start")
    overrides = {name: getattr(values, name) for name in _RECIPE_FLAGS}

    def load(**changed: Any) -> tuple[FineTune, BertConfig | None, str]:
        return load_finetune(
            values.gin_file or [_RECIPES.format(values.task)], values.gin_param, {**overrides, **changed}
        )

    if is_sweep(values):
        return sweep(values, load, prepare, fine_tune)
    recipe, architecture, operative_config = load()
    material = prepare(values, recipe, architecture)
    return fine_tune(values, recipe, operative_config, material, goodput).exit_code


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

    def total_steps(self, recipe: FineTune) -> int:
        """Returns the steps of a run; checks that the learning rate's course fits into them."""
        return recipe.total_steps(self.steps_per_epoch(recipe))

    def steps_per_epoch(self, recipe: FineTune) -> int:
        """Returns the batches that hold every training example once."""
        return -(-self.encoded["train"].num_units // recipe.batch_size)

    def identity(self, recipe: FineTune) -> dict[str, Any]:
        """Returns what must stay the same for a run to go on; see `open_folder`."""
        return {
            **{f"BertConfig.{name}": value for name, value in self.config.to_json().items()},
            **{f"task.{name}": value for name, value in self.task.to_json().items()},
            **recipe.identity(),
            "data.tokenizer": self.tokenizer.fingerprint,
            **{f"data.{name}": rows.fingerprint() for name, rows in self.encoded.items()},
            STEPS: self.total_steps(recipe),
        }


def prepare(values: flags.FlagValues, recipe: FineTune, architecture: BertConfig | None) -> Material:
    """Reads the files and the model's description, and encodes the examples; says aloud what became of them."""
    task, training_examples, dev_examples = read_task(values)
    check_recipe(recipe, task)
    if recipe.few_shot is not None:
        training_examples, lines = few_shot(training_examples, recipe.few_shot, recipe.seed)
        print("\n".join([f"few-shot: {len(training_examples):,} training examples, seed {recipe.seed}", *lines]))
    config, tokenizer, tokenizer_directory = _model(values, recipe, architecture)
    marked = add_markers(tokenizer, task.markers)
    if marked is not tokenizer:
        # The markers' embeddings begin with the mean of the pieces that they were cut into: `load_starting_weights`.
        tokenizer, tokenizer_directory = marked, None
        config = dataclasses.replace(config, vocab_size=max(config.vocab_size, tokenizer.vocab_size))
    encoded = {}
    for name, examples in (("train", training_examples), ("dev", dev_examples)):
        encoded[name], lines = task.encode(examples, tokenizer, recipe.max_seq_len, recipe.long_texts)
        print("\n".join(f"{name}: {line}" for line in lines))
    weights = None
    if recipe.class_weights is not None:
        weights = class_weights(recipe.class_weights, task.labels, encoded["train"].targets["labels"])
        shown = (f"{label} {weight:.4g}" for label, weight in zip(task.labels, weights, strict=True))
        print(f"class weights: {', '.join(shown)}")
    return Material(task, training_examples, dev_examples, encoded, config, tokenizer, tokenizer_directory, weights)


def fine_tune(
    values: flags.FlagValues, recipe: FineTune, operative_config: str, material: Material, goodput: Goodput
) -> Trained:
    """Trains in --workdir to the end, or until asked to stop; prints what happens."""
    task, config, tokenizer = material.task, material.config, material.tokenizer
    training_examples, dev_examples, encoded = material.training_examples, material.dev_examples, material.encoded
    steps_per_epoch, total_steps = material.steps_per_epoch(recipe), material.total_steps(recipe)
    weigh = ClassWeigher(material.class_weights) if material.class_weights is not None else None
    augment = None
    if recipe.mask_probability is not None:
        augment = InputMasking.of(recipe.mask_probability, recipe.seed, tokenizer, task.markers)

    # ---- The folder, the processes, the devices. From here on, imports are slow.
    if values.init_from == NO_MODEL:
        values.init_from = None
    folder = open_folder(
        values,
        material.identity(recipe),
        lambda source: None,
        last_steps=STEPS,
        schedule_depends_on_steps=recipe.schedule.depends_on_total_steps,
    )
    with joined_processes(values, folder, operative_config):
        from bert_jax.interop.starting_weights import HEADS, load_starting_weights
        from bert_jax.parallel.mesh import check_batch
        from bert_jax.parallel.mesh_spec import check_heads
        from bert_jax.tasks.r_drop import RDrop
        from bert_jax.training.loop import Cadence
        from bert_jax.training.recipe import PhaseRates
        from bert_jax.training.schedules import build_phased_schedule

        mesh = make_mesh_from_flags(values)
        check_heads(mesh.shape["tensor"], config.num_attention_heads)
        check_batch(mesh, recipe.batch_size, recipe.accumulation_steps, "--batch_size")
        objective = task.objective(config, dataclasses.replace(recipe.execution, frozen_layers=recipe.frozen_layers))
        if recipe.r_drop is not None:
            objective = RDrop(objective, recipe.r_drop)
        rate = build_phased_schedule(recipe.schedule, recipe.learning_rate, [PhaseRates(total_steps)])
        optimizer, trained = _optimizer(recipe, rate, objective)
        evaluation_steps = recipe.eval_every(steps_per_epoch)

        def compile_phases(abstract_state: Any):
            from launch.finetuning_programs import compile_finetuning

            return [
                compile_finetuning(
                    recipe,
                    task,
                    objective,
                    encoded["train"],
                    (dev_examples, encoded["dev"]),
                    optimizer,
                    rate,
                    trained,
                    abstract_state,
                    mesh,
                    total_steps,
                    is_pmap=values.partitioner == PMAP,
                    weigh=weigh,
                    augment=augment,
                )
            ]

        training = Training(
            task=objective,
            optimizer=optimizer,
            vocab_size=config.vocab_size,
            seed=recipe.seed,
            total_steps=total_steps,
            cadence=Cadence(recipe.log_every, evaluation_steps, evaluation_steps),
            keep_checkpoints=recipe.keep_checkpoints,
            load_weights=lambda params: load_starting_weights(folder.init_from, params, tokenizer, HEADS),
            compile_phases=compile_phases,
            record={
                "architecture": config.to_json(),
                "model_class": task.model_class,
                "labels": list(task.labels) if task.labels else None,
                "finetuning": {
                    **task.to_json(),
                    "max_seq_len": recipe.max_seq_len,
                    "long_texts": recipe.long_texts,
                },
            },
            files=_files(tokenizer, material.tokenizer_directory, operative_config),
            best_by=BestBy(task.main_metric, task.larger_is_better),
            patience=recipe.patience,
            min_delta=recipe.min_delta,
            with_ema=recipe.ema_decay is not None,
        )
        outcome = train_session(values, folder, mesh, training, goodput)
    if outcome.validation:
        baseline = task.baseline(training_examples, dev_examples)
        print(format_scores("dev set", outcome.validation, baseline, "never looking at the text"))
        best = open_model(folder.path, "best")
        score = best.run["validation"][task.main_metric]
        print(f"the best checkpoint is that of step {best.step}, with {task.main_metric} {score:.4f}")
    return outcome


def _optimizer(recipe: FineTune, rate: Any, objective: Any) -> tuple[Any, Any | None]:
    """Returns the optimizer, and which parameters are trained (None: all); says which, if not all."""
    import jax
    import optax

    from bert_jax.training.optimizers import build_optimizer
    from bert_jax.training.trainable import count_trained, is_trained, scale_updates, update_factors

    optimizer = build_optimizer(recipe.optimizer, rate)
    if not (recipe.frozen_layers or recipe.frozen or recipe.layer_decay):
        return optimizer, None
    params = jax.eval_shape(objective.init, jax.random.key(0))
    factors = update_factors(
        params, frozen_layers=recipe.frozen_layers, frozen=recipe.frozen, layer_decay=recipe.layer_decay
    )
    count, total = count_trained(params, factors)
    print(f"{count:,} of {total:,} parameters are trained ({count / total:.1%})")
    return optax.chain(optimizer, scale_updates(factors)), is_trained(factors)


def _model(
    values: flags.FlagValues, recipe: FineTune, architecture: BertConfig | None
) -> tuple[BertConfig, Tokenizer, pathlib.Path]:
    """Returns the architecture, the tokenizer and where that lies."""
    if values.init_from == NO_MODEL:
        if architecture is None or not values.tokenizer:
            raise UserError(
                f"--init_from={NO_MODEL} needs an architecture, such as --gin_file=gin_configs/models/tiny.gin beside"
                f" --gin_file={_RECIPES.format(values.task)}, and --tokenizer=DIR"
            )
        tokenizer_directory = pathlib.Path(values.tokenizer)
        tokenizer = load_tokenizer(tokenizer_directory)
        config = dataclasses.replace(architecture, vocab_size=tokenizer.vocab_size)
    else:
        if architecture is not None:
            raise UserError(
                "the architecture is that of --init_from: leave the bindings of BertConfig out (finetune has those that"
                " may change, such as finetune.hidden_dropout_prob)"
            )
        try:
            model = open_pretrained(values.init_from)
        except UserError as error:
            raise UserError(f"--init_from={values.init_from}: {error}") from error
        tokenizer, tokenizer_directory, config = model.load_tokenizer(), model.tokenizer_directory, model.config
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
    return dataclasses.replace(config, **changed), tokenizer, tokenizer_directory


def _files(tokenizer: Tokenizer, tokenizer_directory: pathlib.Path | None, operative_config: str) -> dict[str, bytes]:
    """What a checkpoint carries beside the state: the tokenizer, and the recipe as a record.

    Args:
        tokenizer: the run's.
        tokenizer_directory: where its files lie; None if it is in none yet.
        operative_config: the record.
    """
    names = ("bert_jax_tokenizer.json", "vocab.txt", "tokenizer.json", "tokenizer_config.json", "spiece.model")
    with tempfile.TemporaryDirectory() as made:
        if tokenizer_directory is None:
            tokenizer.save(made)
        directory = tokenizer_directory or pathlib.Path(made)
        files = {f"tokenizer/{name}": (directory / name).read_bytes() for name in names if (directory / name).is_file()}
    return {**files, "operative_config.gin": operative_config.encode()}


def main(argv: Sequence[str]) -> int:
    """Runs the launcher; returns the exit code."""
    return run(argv, __doc__, define_flags, execute)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
