"""Fine-tunes a BERT on your own files; the same command on an existing workdir resumes.

Example: python -m launch.finetune --task=classification --train=train.csv --dev=dev.csv --init_from=MODEL --workdir=DIR
         python -m launch.finetune --tasks=tasks.json --init_from=MODEL --workdir=DIR
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from bert_jax.config import BertConfig
from bert_jax.errors import UserError
from bert_jax.tasks.finetuning_defaults import settle
from bert_jax.tasks.finetuning_recipe import FineTune
from bert_jax.training.best import LossGoal
from bert_jax.training.goodput import Goodput
from bert_jax.training.saved_models import holds_checkpoint, open_model
from launch.command import run
from launch.configuration import load_finetune
from launch.finetuning_checks import rows_of_steps
from launch.finetuning_files import define_file_flags
from launch.finetuning_material import RECIPES, STEPS, Material, checkpoint_files, prepare, starting_width
from launch.finetuning_sweep import settings_of_sweep, sweep
from launch.flag_conditions import only_where
from launch.mesh_flags import PMAP, make_checked_mesh
from launch.multitask_material import MultiTaskMaterial, prepare_tasks
from launch.plugins import define_plugin_flag, load_plugins, plugin_identity
from launch.run_folder import NO_MODEL, open_folder, run_in, workdir_of
from launch.sweep_grid import define_sweep_flags, is_sweep
from launch.training_session import Trained, Training, define_training_flags, joined_processes, train_session

# Values of the recipe that are flags too, with what they are.
_RECIPE_FLAGS = {
    "learning_rate": (float, "The peak of the learning rate; by default one that suits the model's width."),
    "epochs": (float, "How many times each training example is seen."),
    "batch_size": (int, "Examples of a step."),
    "max_seq_len": (int, "Tokens of a row at most."),
    "seed": (int, "Of the head's initial values, of order and dropout."),
    "long_texts": (str, "What becomes of texts over the limit: head, tail, head_and_tail or windows."),
    "few_shot": (int, "Train on so many examples of each label alone."),
    "patience": (int, "Evaluations without a better metric after which the run ends."),
    "mixing": (str, "With --tasks: sum, a batch of every task at each step; or proportional, of one."),
}


def define_flags(values: flags.FlagValues) -> None:
    """Adds the flags of this launcher."""
    here = {"flag_values": values}
    flags.DEFINE_multi_string(
        "gin_file", [], f"Recipe; may repeat, later ones win. {RECIPES.format('TASK')} if none is given.", **here
    )
    flags.DEFINE_multi_string("gin_param", [], "A binding such as 'finetune.epochs=2'; may repeat.", **here)
    define_plugin_flag(values)
    define_file_flags(values)
    flags.DEFINE_string("tasks", None, "Learn several tasks: a JSON file of what they are, instead of --task.", **here)
    flags.DEFINE_string("tokenizer", None, "Directory of the tokenizer, with --init_from=none.", **here)
    define = {float: flags.DEFINE_float, int: flags.DEFINE_integer, str: flags.DEFINE_string}
    for name, (kind, help_text) in _RECIPE_FLAGS.items():
        define[kind](name, None, help_text, **here)
    define_sweep_flags(values)
    define_training_flags(values)
    only_where(
        values,
        ["tokenizer"],
        lambda given: given.init_from in (None, NO_MODEL),
        f"is for --init_from={NO_MODEL}: a model is tuned with its own tokenizer; leave it out",
    )
    only_where(values, ["mixing"], lambda given: given.tasks, "is for several tasks, --tasks=tasks.json: leave it out")


def execute(values: flags.FlagValues) -> int:
    """Fine-tunes; returns the exit code."""
    goodput = Goodput()
    # ---- What is asked for: flags, recipe, files, model, tokenizer. Neither JAX nor TensorFlow is imported yet.
    workdir = workdir_of(values)
    if not values.init_from and (is_sweep(values) or not holds_checkpoint(workdir)):
        raise UserError(f"--init_from is missing: the model to fine-tune, or {NO_MODEL} for a random start")
    load_plugins(values.plugin)
    overrides = {name: getattr(values, name) for name in _RECIPE_FLAGS}
    prepare_material, kind = (prepare_tasks, "multitask") if values.tasks else (prepare, values.task)

    begun, said = _begun(values), []

    def load(**changed: Any) -> tuple[FineTune, BertConfig | None, str]:
        gin_files = values.gin_file or [RECIPES.format(kind)]
        recipe, architecture, text = load_finetune(gin_files, values.gin_param, {**overrides, **changed})
        has_model = values.init_from != NO_MODEL
        recipe, said[:] = settle(recipe, lambda: starting_width(values, architecture), begun, has_model=has_model)
        return recipe, architecture, text

    if is_sweep(values):
        return sweep(values, load, prepare_material, fine_tune)
    recipe, architecture, operative_config = load()
    print("\n".join(said), end="\n" if said else "")
    material = prepare_material(values, recipe, architecture)
    return fine_tune(values, recipe, operative_config, material, goodput).exit_code


def _begun(values: flags.FlagValues) -> Mapping[str, Any] | None:
    """Returns what the run or the sweep in --workdir is, if one goes on there."""
    workdir = workdir_of(values)
    if is_sweep(values):
        return settings_of_sweep(workdir)
    return run_in(workdir) if holds_checkpoint(workdir) else None


def fine_tune(
    values: flags.FlagValues,
    recipe: FineTune,
    operative_config: str,
    material: Material | MultiTaskMaterial,
    goodput: Goodput,
) -> Trained:
    """Trains in --workdir to the end, or until asked to stop; prints what happens."""
    config, total_steps = material.config, material.total_steps(recipe)

    # ---- The folder, the processes, the devices. From here on, imports are slow.
    if values.init_from == NO_MODEL:
        values.init_from = None
    folder = open_folder(
        values,
        {**material.identity(recipe), **plugin_identity(values)},
        lambda source: None,
        last_steps=STEPS,
        schedule_depends_on_steps=recipe.schedule.depends_on_total_steps,
    )
    recipe = dataclasses.replace(recipe, execution=dataclasses.replace(recipe.execution, numerics=folder.numerics))
    with joined_processes(values, folder, operative_config):
        from bert_jax.interop.starting_weights import load_starting_weights
        from bert_jax.parallel.mesh import abstract_batch
        from bert_jax.training.loop import Cadence
        from launch.finetuning_programs import build_update_rule

        mesh = make_checked_mesh(values, config.num_attention_heads, rows_of_steps(recipe))
        objective = material.objective(recipe)
        update = build_update_rule(recipe, total_steps, objective)
        evaluation_steps = recipe.eval_every(material.steps_per_epoch(recipe))

        def compile_phases(abstract_state: Any):
            place = {"abstract_state": abstract_state, "mesh": mesh, "is_pmap": values.partitioner == PMAP}
            return [material.compile(recipe, objective, update, total_steps=total_steps, **place)]

        training = Training(
            task=objective,
            optimizer=update.optimizer,
            vocab_size=config.vocab_size,
            seed=recipe.seed,
            total_steps=total_steps,
            cadence=Cadence(recipe.log_every, evaluation_steps, evaluation_steps),
            keep_checkpoints=recipe.keep_checkpoints,
            load_weights=lambda params: load_starting_weights(
                folder.init_from, params, material.tokenizer, material.heads
            ),
            compile_phases=compile_phases,
            record={"architecture": config.to_json(), **material.record(recipe)},
            files=checkpoint_files(material.tokenizer, material.tokenizer_directory, operative_config),
            best_by=material.best_by,
            patience=recipe.patience,
            min_delta=recipe.min_delta,
            with_ema=recipe.ema_decay is not None,
            batch=abstract_batch(mesh, material.batch_shapes(recipe)),
            goal=None if recipe.stop_below_loss is None else LossGoal(recipe.stop_below_loss, material.losses),
        )
        outcome = train_session(values, folder, mesh, training, goodput)
    if outcome.validation:
        print(material.describe(outcome.validation))
        best, metric = open_model(folder.path, "best"), material.best_by.metric
        print(f"the best checkpoint is that of step {best.step}, with {metric} {best.run['validation'][metric]:.4f}")
    return outcome


def main(argv: Sequence[str]) -> int:
    """Runs the launcher; returns the exit code."""
    return run(argv, __doc__, define_flags, execute)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
