"""Pre-trains a BERT on prepared rows; the same command on an existing workdir resumes.

Example: python -m launch.pretrain --gin_file=gin_configs/pretrain/tiny.gin --data_dir=rows_128 --workdir=runs/tiny
"""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags

from bert_jax.data.row_checksums import verify_shards
from bert_jax.data.rows import RowStore, open_rows
from bert_jax.errors import UserError
from bert_jax.interop.pretrained import open_pretrained
from bert_jax.parallel.processes import process_group
from bert_jax.tasks.pretraining_recipe import Phase, Pretrain
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.tokenizers import load_tokenizer, tokenizer_files
from bert_jax.training.goodput import Goodput
from bert_jax.training.vocabulary_growth import words_added_since
from launch.command import run
from launch.configuration import load_pretrain
from launch.mesh_flags import PMAP, check_layout, make_checked_mesh
from launch.plugins import define_plugin_flag, load_plugins, plugin_identity
from launch.run_folder import open_folder, workdir_of
from launch.training_session import Training, define_training_flags, joined_processes, train_session


def define_flags(values: flags.FlagValues) -> None:
    """Adds the flags of this launcher."""
    here = {"flag_values": values}
    flags.DEFINE_multi_string("gin_file", [], "Configuration file; may repeat, later ones win.", **here)
    flags.DEFINE_multi_string("gin_param", [], "A binding such as 'pretrain.steps=200'; may repeat.", **here)
    define_plugin_flag(values)
    flags.DEFINE_multi_string("data_dir", [], "Directory of rows; may repeat, one for each length.", **here)
    flags.DEFINE_bool("verify_rows", False, "Before anything else, compare all rows with their checksums.", **here)
    flags.DEFINE_string("profile", None, "START:STEPS, the steps to write a profiler trace of.", **here)
    define_training_flags(values)


def execute(values: flags.FlagValues) -> int:
    """Trains; returns the exit code."""
    goodput = Goodput()
    # ---- What is asked for: flags, configuration, rows, tokenizer. Neither JAX nor TensorFlow is imported yet.
    workdir = workdir_of(values)
    if not values.data_dir:
        raise UserError("--data_dir is missing: make rows with python -m launch.prepare")
    load_plugins(values.plugin)
    recipe, operative_config = load_pretrain(values.gin_file, values.gin_param)
    opened = list(_open_stores(values.data_dir))
    if values.verify_rows:
        for store in opened:
            verify_shards(store, show_progress=True)
    stores = {store.recipe.seq_len: store for store in opened}
    tokenizer = load_tokenizer(opened[0].tokenizer_directory)
    recipe = _with_vocabulary(recipe, stores, tokenizer)
    phases = recipe.plan([store.recipe.seq_len for store in opened])
    total_steps = sum(phase.steps for phase in phases)
    profile_steps = _parse_profile(values.profile, total_steps)

    # ---- The folder: new, or of this very run.
    data = {f"rows_{length}": store.fingerprint for length, store in sorted(stores.items())}
    folder = open_folder(
        values,
        {**recipe.identity(phases, {"tokenizer": tokenizer.fingerprint, **data}), **plugin_identity(values)},
        lambda source: _check_weights(source, tokenizer),
        last_steps="pretrain.steps" if recipe.phases is None else f"phase {len(phases)}.steps",
        schedule_depends_on_steps=recipe.schedule.depends_on_total_steps,
    )

    # ---- The processes, and their devices. From here on, imports are slow.
    batches = {
        "pretrain.batch_size" if recipe.phases is None else f"batch_size of phase {number}": (
            phase.batch_size,
            phase.accumulation_steps,
        )
        for number, phase in enumerate(phases, start=1)
    }
    check_layout(values, recipe.model.num_attention_heads, batches)
    with joined_processes(values, folder, operative_config):
        for store in stores.values():
            check_enough_rows(store)
        from bert_jax.interop.starting_weights import load_starting_weights
        from bert_jax.tasks.pretraining import PreTraining
        from bert_jax.training.loop import Cadence, Profile
        from bert_jax.training.optimizers import build_optimizer
        from bert_jax.training.schedules import build_phased_schedule

        mesh = make_checked_mesh(values, recipe.model.num_attention_heads, batches)
        execution = dataclasses.replace(recipe.execution, numerics=folder.numerics)
        task = PreTraining(recipe.model, next_sentence=recipe.next_sentence, execution=execution)
        learning_rate = build_phased_schedule(recipe.schedule, recipe.learning_rate, phases)
        optimizer = build_optimizer(recipe.optimizer, learning_rate, logical_axes=task.logical_axes())

        def compile_phases(abstract_state: Any):
            return _compile_phases(
                recipe,
                phases,
                stores,
                tokenizer,
                task,
                optimizer,
                learning_rate,
                abstract_state,
                mesh,
                values.peak_tflops,
                values.partitioner,
            )

        training = Training(
            task=task,
            optimizer=optimizer,
            vocab_size=recipe.model.vocab_size,
            seed=recipe.seed,
            total_steps=total_steps,
            cadence=Cadence(recipe.log_every, recipe.eval_every, recipe.checkpoint_every),
            keep_checkpoints=recipe.keep_checkpoints,
            load_weights=lambda params: load_starting_weights(folder.init_from, params, tokenizer),
            compile_phases=compile_phases,
            record=_record(recipe),
            files={
                **tokenizer_files(tokenizer, opened[0].tokenizer_directory),
                "operative_config.gin": operative_config.encode(),
            },
            batch=_largest_batch(recipe, phases, stores, tokenizer, mesh),
            profile=Profile(*profile_steps, str(workdir / "profile")) if profile_steps else None,
        )
        trained = train_session(values, folder, mesh, training, goodput)
    if trained.validation:
        from bert_jax.tasks.pretraining_report import format_evaluation

        print(format_evaluation(trained.validation))
    return trained.exit_code


def check_enough_rows(store: RowStore) -> None:
    """Raises a UserError if there are more processes than rows."""
    group = process_group()
    if group and store.num_rows("train") < group.count:
        raise UserError(
            f"the rows in {store.directory} are {store.num_rows('train')}, fewer than the {group.count} processes:"
            " prepare more text"
        )


def _record(recipe: Pretrain) -> dict[str, Any]:
    """Returns what a checkpoint says of its model; one that says no class is a BertForPreTraining."""
    record = {"architecture": recipe.model.to_json()}
    return record if recipe.next_sentence else {**record, "model_class": "BertForMaskedLM"}


def _check_weights(source: str, tokenizer: Tokenizer) -> None:
    """Raises a UserError if a new run cannot begin with the weights of this model."""
    model = open_pretrained(source)
    if model.tokenizer_directory:
        words_added_since(model.load_tokenizer(), tokenizer, source)


def _parse_profile(text: str | None, total_steps: int) -> tuple[int, int] | None:
    if text is None:
        return None
    start, _, steps = text.partition(":")
    if not (start.isdecimal() and steps.isdecimal() and len(text) < 20 and int(steps) > 0):
        raise UserError(f"--profile={text}: must be START:STEPS, such as 100:10")
    if int(start) + int(steps) > total_steps:
        raise UserError(f"--profile={text}: reaches over the end of the run, which has {total_steps} steps")
    return int(start), int(steps)


def _open_stores(directories: Sequence[str]) -> Iterator[RowStore]:
    tokenizer = None
    for directory in directories:
        store = open_rows(directory)
        if store.num_rows("train") == 0:
            raise UserError(f"--data_dir={directory} has no training rows: prepare more text")
        tokenizer = tokenizer or (store.tokenizer_fingerprint, directory)
        if store.tokenizer_fingerprint != tokenizer[0]:
            raise UserError(f"the rows in {directory} were made with another tokenizer than those in {tokenizer[1]}")
        yield store


def _with_vocabulary(recipe: Pretrain, stores: dict[int, RowStore], tokenizer: Tokenizer) -> Pretrain:
    """Fills in the vocabulary's size; one that is given must be the tokenizer's."""
    store = next(iter(stores.values()))
    if tokenizer.fingerprint != store.tokenizer_fingerprint:
        raise UserError(
            f"the tokenizer in {store.tokenizer_directory} is not the one that these rows were made with: prepare again"
        )
    wanted = recipe.model.vocab_size
    if wanted is None:
        return dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, vocab_size=tokenizer.vocab_size))
    if wanted != tokenizer.vocab_size:
        raise UserError(
            f"BertConfig.vocab_size is {wanted}, but the tokenizer of {store.directory} has {tokenizer.vocab_size}"
            " pieces: set BertConfig.vocab_size=None to take its size, or prepare with the other tokenizer"
        )
    return recipe


def _largest_batch(recipe: Pretrain, phases: Sequence[Phase], stores, tokenizer: Tokenizer, mesh: Any) -> Any:
    """Returns the shapes of the largest of the phases' batches, and how they lie on the devices."""
    from bert_jax.parallel.mesh import abstract_batch
    from bert_jax.parallel.sharding import bytes_per_device
    from bert_jax.tasks.pretraining_batches import make_batch_maker

    def batch(phase: Phase) -> Any:
        maker = make_batch_maker(stores[phase.seq_len], tokenizer, recipe.masking, recipe.seed)
        return abstract_batch(mesh, maker.shapes(phase.batch_size))

    return max(map(batch, phases), key=bytes_per_device)


def _compile_phases(
    recipe, phases: Sequence[Phase], stores, tokenizer, task, optimizer, rate, abstract_state, mesh, tflops, partitioner
):
    """Compiles the train and evaluation steps of each phase, and lays out its batches."""
    import time

    from bert_jax.parallel import pmap
    from bert_jax.parallel.batch_rows import BatchRows
    from bert_jax.parallel.mesh import abstract_batch, batch_sharding
    from bert_jax.tasks.pretraining_batches import describe_step, evaluation_batches, make_batch_maker
    from bert_jax.training.compilation import CompiledEvaluation, compile_train_step
    from bert_jax.training.flops import arithmetic_seconds
    from bert_jax.training.loop import CompiledPhase
    from bert_jax.training.train_step import make_eval_step, make_train_step

    def compile_phase(phase: Phase, first_step: int, examples_before: int) -> CompiledPhase:
        store = stores[phase.seq_len]
        maker = make_batch_maker(store, tokenizer, recipe.masking, recipe.seed)
        shapes = abstract_batch(mesh, maker.shapes(phase.batch_size))
        axis_name = pmap.AXIS if partitioner == PMAP else None
        train_step = make_train_step(
            task,
            optimizer,
            rate,
            seed=recipe.seed,
            accumulation_steps=phase.accumulation_steps,
            axis_name=axis_name,
        )
        if axis_name:
            train_step = pmap.data_parallel(mesh, train_step)
        step, metric_names = compile_train_step(train_step, abstract_state, shapes)
        evaluate = None
        if store.num_rows("validation"):
            micro_batch = phase.batch_size // phase.accumulation_steps
            shapes = abstract_batch(mesh, maker.shapes(micro_batch))
            compiled = CompiledEvaluation(task, make_eval_step(task), abstract_state.params, shapes)
            evaluate = evaluation_batches(maker, store, tokenizer, micro_batch, recipe.eval_rows, compiled, mesh)

        def batches(step: int):
            last = first_step + phase.steps
            ours = BatchRows.of(batch_sharding(mesh), phase.batch_size)
            for batch in maker.train(
                phase.batch_size,
                step - first_step,
                last - first_step,
                examples_before=examples_before,
                batch_rows=ours.rows,
            ):
                yield ours.put(batch)

        def describe(step: int) -> str:
            return describe_step(maker, phase.batch_size, step - first_step, examples_before)

        arithmetic = arithmetic_seconds(recipe.model, maker.shapes(phase.batch_size), mesh.devices.ravel(), tflops)
        return CompiledPhase(first_step, phase.steps, step, metric_names, batches, evaluate, describe, arithmetic)

    began = time.perf_counter()
    compiled, first_step, examples = [], 0, dict.fromkeys(stores, 0)
    for phase in phases:
        compiled.append(compile_phase(phase, first_step, examples[phase.seq_len]))
        first_step += phase.steps
        examples[phase.seq_len] += phase.steps * phase.batch_size
    print(f"compiled in {time.perf_counter() - began:.1f} s")
    return compiled


def main(argv: Sequence[str]) -> int:
    """Runs the launcher; returns the exit code."""
    return run(argv, __doc__, define_flags, execute)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
