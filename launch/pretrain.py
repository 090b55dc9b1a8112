"""Pre-trains a BERT on prepared rows; the same command on an existing workdir resumes.

Example: python -m launch.pretrain --gin_file=gin_configs/pretrain/tiny.gin --data_dir=rows_128 --workdir=runs/tiny
"""

import contextlib
import dataclasses
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence

from absl import flags

from bert_jax.data.rows import RowStore, open_rows
from bert_jax.errors import UserError
from bert_jax.interop.pretrained import open_pretrained
from bert_jax.tasks.pretraining_recipe import Phase, Pretrain
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.tokenizers import load_tokenizer
from bert_jax.training.run_identity import check_identity, read_identity, write_identity
from bert_jax.training.run_lock import lock_run
from bert_jax.training.vocabulary_growth import words_added_since
from launch.command import run
from launch.configuration import load_pretrain

CURVES_FILE = "curves.png"


def define_flags(values: flags.FlagValues) -> None:
    """Adds the flags of this launcher."""
    here = {"flag_values": values}
    flags.DEFINE_multi_string("gin_file", [], "Configuration file; may repeat, later ones win.", **here)
    flags.DEFINE_multi_string("gin_param", [], "A binding such as 'pretrain.steps=200'; may repeat.", **here)
    flags.DEFINE_multi_string("data_dir", [], "Directory of rows; may repeat, one for each length.", **here)
    flags.DEFINE_string("workdir", None, "Folder of the run: log, curves, checkpoints.", **here)
    flags.DEFINE_string("init_from", None, "Begin a new run from the weights of this model, of any kind.", **here)
    flags.DEFINE_bool(
        "allow_schedule_change", False, "Resume although the learning rate's course is not the same.", **here
    )
    flags.DEFINE_string("profile", None, "START:STEPS, the steps to write a profiler trace of.", **here)
    flags.DEFINE_string("compilation_cache_dir", None, "Folder that shortens the next start.", **here)


def execute(values: flags.FlagValues) -> int:
    """Trains; returns the exit code."""
    with contextlib.ExitStack() as held:
        return _execute(values, held)


def _execute(values: flags.FlagValues, held: contextlib.ExitStack) -> int:
    # ---- What is asked for: flags, configuration, rows, tokenizer. Neither JAX nor TensorFlow is imported yet.
    if not values.workdir:
        raise UserError("--workdir is missing: the folder of the run")
    if not values.data_dir:
        raise UserError("--data_dir is missing: make rows with python -m launch.prepare")
    recipe, operative_config = load_pretrain(values.gin_file, values.gin_param)
    opened = list(_open_stores(values.data_dir))
    stores = {store.recipe.seq_len: store for store in opened}
    tokenizer = load_tokenizer(opened[0].tokenizer_directory)
    recipe = _with_vocabulary(recipe, stores, tokenizer)
    phases = recipe.plan([store.recipe.seq_len for store in opened])
    total_steps = sum(phase.steps for phase in phases)
    profile_steps = _parse_profile(values.profile, total_steps)

    # ---- The folder: new, or of this very run.
    data = {f"rows_{length}": store.fingerprint for length, store in sorted(stores.items())}
    identity = recipe.identity(phases, {"tokenizer": tokenizer.fingerprint, **data})
    workdir = pathlib.Path(values.workdir)
    saved_identity = read_identity(workdir)
    identity["init_from"] = init_from = _source_of_weights(values.init_from, workdir, saved_identity, tokenizer)
    _check_workdir(workdir, saved_identity, identity, recipe, len(phases), values.allow_schedule_change)
    _make_directory("workdir", workdir)
    held.enter_context(lock_run(workdir))
    if values.compilation_cache_dir:
        _make_directory("compilation_cache_dir", pathlib.Path(values.compilation_cache_dir))

    # ---- The devices. From here on, imports are slow.
    import jax

    if values.compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", values.compilation_cache_dir)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    from bert_jax.interop.starting_weights import load_starting_weights
    from bert_jax.models.parameters import count_parameters
    from bert_jax.parallel.mesh import check_batch, make_mesh, replicated
    from bert_jax.tasks.pretraining import PreTraining
    from bert_jax.training.checkpoints import CheckpointStore
    from bert_jax.training.curves import draw_curves
    from bert_jax.training.interruption import listen_for_stop
    from bert_jax.training.loop import Cadence, Profile, train
    from bert_jax.training.metric_writers import METRICS_FILE, MetricWriter
    from bert_jax.training.optimizers import build_optimizer
    from bert_jax.training.schedules import build_phased_schedule
    from bert_jax.training.train_state import create_train_state

    mesh = make_mesh()
    for number, phase in enumerate(phases, start=1):
        name = "pretrain.batch_size" if recipe.phases is None else f"batch_size of phase {number}"
        check_batch(mesh, phase.batch_size, phase.accumulation_steps, name)

    # ---- The state: restored, or new, or new from another run's weights.
    task = PreTraining(recipe.model, execution=recipe.execution)
    learning_rate = build_phased_schedule(recipe.schedule, recipe.learning_rate, phases)
    optimizer = build_optimizer(recipe.optimizer, learning_rate)

    def create(key: jax.Array):
        return create_train_state(task.init(key), optimizer)

    def lay_out(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated(mesh))

    abstract_state = jax.tree.map(lay_out, jax.eval_shape(create, jax.random.key(recipe.seed)))
    parameters = count_parameters(abstract_state.params, recipe.model.vocab_size)
    print(f"{parameters:,} parameters on {jax.device_count()} {jax.devices()[0].platform} device(s)")

    def begin():
        state = jax.jit(create, out_shardings=replicated(mesh))(jax.random.key(recipe.seed))
        if not init_from:
            return state
        params, report = load_starting_weights(init_from, state.params, tokenizer)
        print("\n".join(report))
        return state._replace(params=jax.device_put(params, jax.tree.map(lambda leaf: leaf.sharding, state.params)))

    # A new run takes its folder only when nothing more can be wrong with what was asked for.
    state = None if saved_identity else begin()
    if saved_identity != identity:
        write_identity(workdir, identity)
    checkpoints = CheckpointStore(workdir, recipe.keep_checkpoints)
    restored = checkpoints.restore_latest(abstract_state)
    if restored:
        start_step, state = restored
        if start_step >= total_steps:
            checkpoints.close()
            if not (workdir / CURVES_FILE).exists():
                draw_curves(workdir / METRICS_FILE, workdir / CURVES_FILE)
            print(f"the run in {workdir} is complete: {start_step} of {total_steps} steps")
            return 0
        print(f"resuming from step {start_step}")
    else:
        # Stopped before its first checkpoint, a run begins again.
        start_step, state = 0, state or begin()
    writer = MetricWriter(workdir)
    writer.cut(start_step)

    # ---- The programs: every shape is compiled before the first step.
    compiled = _compile_phases(recipe, phases, stores, tokenizer, task, optimizer, learning_rate, abstract_state, mesh)

    # ---- The loop.
    with contextlib.closing(checkpoints), contextlib.closing(writer), listen_for_stop() as stop:
        state, validation = train(
            state=state,
            phases=compiled,
            cadence=Cadence(recipe.log_every, recipe.eval_every, recipe.checkpoint_every),
            checkpoints=checkpoints,
            checkpoint_run={"architecture": recipe.model.to_json(), "identity": identity, "total_steps": total_steps},
            checkpoint_files=_files(stores, operative_config),
            writer=writer,
            stop=stop,
            train_seconds=checkpoints.train_seconds(start_step),
            profile=Profile(*profile_steps, str(workdir / "profile")) if profile_steps else None,
        )
    draw_curves(workdir / METRICS_FILE, workdir / CURVES_FILE)
    step = int(state.step)
    if step < total_steps:
        print(f"stopped by {stop.signal.name} after step {step}: saved; the same command resumes")
        return stop.exit_code
    print(f"done: {step} steps; log, curves and checkpoints are in {workdir}")
    if validation:
        from bert_jax.tasks.pretraining_report import format_evaluation

        print(format_evaluation(validation))
    return 0


def _parse_profile(text: str | None, total_steps: int) -> tuple[int, int] | None:
    if text is None:
        return None
    start, _, steps = text.partition(":")
    if not (start.isdigit() and steps.isdigit() and int(steps) > 0):
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


def _source_of_weights(
    given: str | None, workdir: pathlib.Path, saved: dict | None, tokenizer: Tokenizer
) -> str | None:
    """Returns whose weights the run begins with; a run that was stopped is resumed with the flag or without it."""
    source = str(pathlib.Path(given).absolute()) if given else None
    if not saved:
        if source:
            try:
                model = open_pretrained(source)
                if model.tokenizer_directory:
                    words_added_since(model.load_tokenizer(), tokenizer, source)
            except UserError as error:
                raise UserError(f"--init_from={given}: {error}") from error
        return source
    if source not in (None, saved.get("init_from")):
        raise UserError(f"--init_from is for new runs, and {workdir} holds one: leave it out, or use another --workdir")
    return saved.get("init_from")


def _check_workdir(
    workdir: pathlib.Path,
    saved: dict | None,
    identity: dict,
    recipe: Pretrain,
    num_phases: int,
    allow_schedule_change: bool,
) -> None:
    """Raises a UserError unless the folder is new, or holds this very run."""
    if saved:
        check_identity(
            workdir,
            saved,
            identity,
            last_steps="pretrain.steps" if recipe.phases is None else f"phase {num_phases}.steps",
            schedule_depends_on_steps=recipe.schedule.depends_on_total_steps,
            allow_schedule_change=allow_schedule_change,
        )
    elif workdir.is_dir() and any(workdir.iterdir()):
        raise UserError(f"--workdir={workdir} holds files, but no run: give an empty or a new folder")


def _make_directory(flag: str, path: pathlib.Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make --{flag}={path}: {error.strerror or error}; give another") from error
    if not os.access(path, os.W_OK):
        raise UserError(f"cannot write to --{flag}={path}: no permission; give another")


def _compile_phases(recipe, phases: Sequence[Phase], stores, tokenizer, task, optimizer, rate, abstract_state, mesh):
    """Compiles the train and evaluation steps of each phase, and lays out its batches."""
    import time

    from bert_jax.parallel.mesh import abstract_batch, put_batch
    from bert_jax.tasks.pretraining_batches import describe_step, evaluation_batches, make_batch_maker
    from bert_jax.training.compilation import CompiledEvaluation, compile_train_step
    from bert_jax.training.loop import CompiledPhase
    from bert_jax.training.train_step import make_eval_step, make_train_step

    def compile_phase(phase: Phase, first_step: int, examples_before: int) -> CompiledPhase:
        store = stores[phase.seq_len]
        maker = make_batch_maker(store, tokenizer, recipe.masking, recipe.seed)
        shapes = abstract_batch(mesh, maker.shapes(phase.batch_size))
        train_step = make_train_step(
            task, optimizer, rate, seed=recipe.seed, accumulation_steps=phase.accumulation_steps
        )
        step, metric_names = compile_train_step(train_step, abstract_state, shapes)
        evaluate = None
        if store.num_rows("validation"):
            micro_batch = phase.batch_size // phase.accumulation_steps
            shapes = abstract_batch(mesh, maker.shapes(micro_batch))
            compiled = CompiledEvaluation(task, make_eval_step(task), abstract_state.params, shapes)
            evaluate = evaluation_batches(maker, store, micro_batch, recipe.eval_rows, compiled, mesh)

        def batches(step: int):
            last = first_step + phase.steps
            for batch in maker.train(
                phase.batch_size, step - first_step, last - first_step, examples_before=examples_before
            ):
                yield put_batch(mesh, batch)

        def describe(step: int) -> str:
            return describe_step(maker, phase.batch_size, step - first_step, examples_before)

        return CompiledPhase(first_step, phase.steps, step, metric_names, batches, evaluate, describe)

    began = time.perf_counter()
    compiled, first_step, examples = [], 0, dict.fromkeys(stores, 0)
    for phase in phases:
        compiled.append(compile_phase(phase, first_step, examples[phase.seq_len]))
        first_step += phase.steps
        examples[phase.seq_len] += phase.steps * phase.batch_size
    print(f"compiled in {time.perf_counter() - began:.1f} s")
    return compiled


def _files(stores: dict[int, RowStore], operative_config: str) -> dict[str, bytes]:
    """What a checkpoint carries beside the state: the tokenizer, and the configuration as a record."""
    directory = next(iter(stores.values())).tokenizer_directory
    files = {
        f"tokenizer/{path.relative_to(directory)}": path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }
    return {**files, "operative_config.gin": operative_config.encode()}


def main(argv: Sequence[str]) -> int:
    """Runs the launcher; returns the exit code."""
    return run(argv, __doc__, define_flags, execute)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
