"""Several fine-tuning runs in one command: several seeds, the grid of the paper, or both; and what they came to.

Each run is an ordinary one in WORKDIR/NAME, one after the other in this process: `launch.finetune` with the same flags
would resume it, and `launch.predict` takes it as a model. Started again, the sweep skips what is finished, resumes what
is not, and tries again what failed.
"""

import copy
import gc
import json
import math
import os
import pathlib
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from bert_jax.config import BertConfig
from bert_jax.durable_files import write_file
from bert_jax.errors import TrainingError, UserError
from bert_jax.numerics import Numerics
from bert_jax.parallel.cluster import find_cluster
from bert_jax.parallel.memory import MemoryShortage, describe_shortage
from bert_jax.tasks.finetuning_recipe import FineTune
from bert_jax.tasks.sweep_figure import draw_sweep
from bert_jax.tasks.sweep_results import RunResult, SweepResults
from bert_jax.text.json_files import expect_type
from bert_jax.training.goodput import KINDS, SPLIT, Goodput
from bert_jax.training.run_identity import IDENTITY_FILE, check_identity, read_identity, write_identity
from bert_jax.training.run_lock import lock_run
from bert_jax.training.saved_models import holds_checkpoint, open_model
from launch.mesh_flags import make_mesh_from_flags
from launch.plugins import plugin_identity
from launch.run_folder import (
    NO_MODEL,
    holds_anything,
    make_directory,
    noted_source,
    run_in,
    source_in,
    workdir_of,
)
from launch.sweep_grid import GRID, Load, SweepRun, read_grid, read_seeds, runs_of
from launch.training_session import CURVES_FILE, Trained

if TYPE_CHECKING:
    from launch.finetuning_material import Material
    from launch.multitask_material import MultiTaskMaterial

SWEEP_FILE = "sweep.json"
RESULTS, PAGE, FIGURE = "results.json", "results.md", "results.png"
# What of a run's identity differs between the runs of a sweep.
_VARIED = frozenset({*(f"finetune.{name}" for name in GRID), "finetune.seed", "finetune.steps"})

Prepare = Callable[[flags.FlagValues, FineTune, BertConfig | None], "Material | MultiTaskMaterial"]
FineTuneOnce = Callable[[flags.FlagValues, FineTune, str, "Material | MultiTaskMaterial", Goodput], Trained]


def sweep(values: flags.FlagValues, load: Load, prepare: Prepare, fine_tune: FineTuneOnce) -> int:
    """Trains every run that is not finished; prints and writes what all of them came to.

    Args:
        values: the flags.
        load: makes the recipe, the architecture and gin's record, given values of the recipe to change.
        prepare: reads and encodes the examples.
        fine_tune: trains one run.

    Returns:
        The exit code: 0; 1 if a run failed; that of the signal if one stopped the sweep.
    """
    # ---- What is asked for. Every recipe is made, and checked, before anything is read or written.
    workdir = workdir_of(values)
    _check_alone(values)
    recipe, architecture, _ = load()
    grid, seeds = read_grid(values, recipe), read_seeds(values, recipe)
    runs = runs_of(grid, seeds, load)
    settings = len(runs) // len(seeds)
    print(f"{len(runs)} runs in {workdir}: settings: {settings}, seeds of each: {', '.join(map(str, seeds))}")
    _check_batches(values, runs)
    materials = _Materials(values, prepare, architecture)
    material = materials.of(runs[0].recipe)
    for run in runs:
        material.total_steps(run.recipe)

    # ---- The folder.
    saved = read_identity(workdir, SWEEP_FILE)
    identity = _identity(values, material, runs[0], saved, {**grid, "seeds": seeds})
    if saved and identity["init_from"] and not os.path.exists(identity["init_from"]):
        print(f"{identity['init_from']} is not there any more: runs that begin now begin with {values.init_from}")
    _check_folder(values, workdir, saved, identity)
    if values.dry_run:
        largest = max(runs, key=lambda run: run.setting.batch_size)
        print("\n".join(["it would train", *(f"  {run.name}" for run in runs), f"a dry run of {largest.name}:"]))
        return _train(values, workdir, largest, materials, fine_tune).exit_code
    finished = {run.name: result for run in runs if (result := _finished(values, workdir, run, materials))}
    if finished:
        print(f"{len(finished)} of {len(runs)} runs are finished already")
    make_directory("workdir", workdir)
    with lock_run(workdir):
        if saved != identity:
            write_identity(workdir, identity, SWEEP_FILE)

        # ---- The runs, and what they came to.
        results, stop_signal = _train_all(values, workdir, runs, finished, materials, fine_tune)
    if stop_signal:
        print(f"stopped by {stop_signal.name}: runs left: {len(runs) - len(results.runs)}; the same command goes on")
        return 128 + stop_signal
    print("\n".join(["", *results.table(), "", *results.notes()]))
    if best := results.best:
        model = shlex.quote(str(workdir / best.best.name))
        print(
            f"best: {best.setting}, {results.metric} {best.mean:.4f} on average; to predict with its best run:\n"
            f"  python -m launch.predict --model={model} --input=FILE --output=predictions.jsonl"
        )
    print(f"table: {workdir / PAGE}, {workdir / RESULTS}" + (f"; plot: {workdir / FIGURE}" if results.best else ""))
    return 1 if results.failures() else 0


def settings_of_sweep(workdir: pathlib.Path) -> Mapping[str, Any] | None:
    """Returns what the runs of the sweep in a folder have in common, by name; None if there is none."""
    saved = read_identity(workdir, SWEEP_FILE)
    if saved is None:
        return None
    # What a sweep may vary is noted as a list.
    single = {
        name.replace("sweep.", "finetune.", 1): values[0]
        for name, values in saved.items()
        if name.startswith("sweep.") and isinstance(values, list) and len(values) == 1
    }
    return {**saved, **single}


class _Materials:
    """What the runs are trained on, read and encoded once, or once a seed where examples are drawn by it."""

    def __init__(self, values: flags.FlagValues, prepare: Prepare, architecture: BertConfig | None):
        self._values, self._prepare, self._architecture = values, prepare, architecture
        self._by_seed: dict[int | None, Material] = {}

    def of(self, recipe: FineTune) -> "Material":
        """Returns what a run with this recipe is trained on."""
        seed = recipe.seed if _draws_examples(recipe) else None
        if seed not in self._by_seed:
            self._by_seed[seed] = self._prepare(self._values, recipe, self._architecture)
        return self._by_seed[seed]


def _draws_examples(recipe: FineTune) -> bool:
    """Whether the training examples depend on the seed."""
    return recipe.few_shot is not None


def _check_alone(values: flags.FlagValues) -> None:
    """Raises a UserError if this is one of several processes."""
    if values.num_processes == 1:
        return
    cluster = "--coordinator" if values.coordinator else find_cluster(os.environ)
    if cluster:
        raise UserError(
            f"--sweep and --seeds train in one process, and {cluster} says that there are more: start each run by"
            " itself (--seed=1 --learning_rate=3e-5 and so on), or the sweep with --num_processes=1"
        )


def _identity(
    values: flags.FlagValues,
    material: "Material",
    run: SweepRun,
    saved: Mapping[str, Any] | None,
    asked_for: Mapping[str, Sequence[Any]],
) -> dict[str, Any]:
    """Returns what a sweep is: what its runs have in common, and what they were asked for."""
    varied = _VARIED | (set(material.training_data) if _draws_examples(run.recipe) else set())
    place = workdir_of(values) / SWEEP_FILE
    common = {
        name: value for name, value in _run_identity(values, material, run, saved, place).items() if name not in varied
    }
    # As it comes back from the folder: tuples have become lists.
    return json.loads(json.dumps({**common, **{f"sweep.{name}": given for name, given in asked_for.items()}}))


def _run_identity(
    values: flags.FlagValues, material: "Material", run: SweepRun, saved: Mapping[str, Any] | None, place: pathlib.Path
) -> dict[str, Any]:
    """Returns what a run is; where one is noted already, in the file `place`, with the model that it notes."""
    init_from = str(pathlib.Path(values.init_from).absolute()) if values.init_from != NO_MODEL else None
    if saved is not None:
        init_from = noted_source(source_in(saved, place), init_from)
    return {**material.identity(run.recipe), **plugin_identity(values), "init_from": init_from}


def _check_folder(
    values: flags.FlagValues, workdir: pathlib.Path, saved: Mapping[str, Any] | None, identity: Mapping[str, Any]
) -> None:
    """Raises a UserError unless the folder is new or holds this very sweep; the grid and the seeds may have grown."""
    if saved is None:
        if read_identity(workdir):
            raise UserError(f"--workdir={workdir} holds a single run: give --sweep and --seeds another folder")
        if holds_anything(workdir):
            raise UserError(f"--workdir={workdir} holds files, but no sweep: give an empty or a new folder")
        return
    asked_for = [name for name in identity if name.startswith("sweep.")]
    check_identity(
        workdir,
        {name: value for name, value in saved.items() if name not in asked_for},
        {name: value for name, value in identity.items() if name not in asked_for},
        last_steps="finetune.steps",
        schedule_depends_on_steps=True,
        allow_schedule_change=values.allow_schedule_change,
    )
    for name in asked_for:
        place = f"{workdir / SWEEP_FILE}: {name}"
        noted = expect_type(saved.get(name), list | None, place, "restore it, or use another --workdir") or []
        missing = [value for value in noted if value not in identity[name]]
        if missing:
            what = name.removeprefix("sweep.").replace("_", " ")
            raise UserError(
                f"the sweep in {workdir} has the {what} {', '.join(map(str, missing))}, which this one has not: add"
                " them (a sweep may grow), or use another --workdir"
            )


def _check_batches(values: flags.FlagValues, runs: Sequence[SweepRun]) -> None:
    """Raises a UserError if the batches of any run do not divide over the devices: not only once its turn comes."""
    from bert_jax.parallel.mesh import check_batch

    mesh = make_mesh_from_flags(values)
    for run in runs:
        check_batch(mesh, run.recipe.batch_size, run.recipe.accumulation_steps, "the batch size")


def _finished(
    values: flags.FlagValues, workdir: pathlib.Path, run: SweepRun, materials: _Materials
) -> RunResult | None:
    """Returns what a run came to that is finished, without restoring it; None if there is anything left to do."""
    path = workdir / run.name
    # The curves are drawn last: a run that was killed before them still has to remove what its last save superseded.
    if not holds_checkpoint(path) or not (path / CURVES_FILE).is_file():
        return None
    saved = run_in(path)
    try:
        last = open_model(path)
    except UserError:
        # Damaged: the run itself moves the checkpoint aside, and goes on from the one before.
        return None
    material = materials.of(run.recipe)
    if last.step < material.total_steps(run.recipe):
        from bert_jax.training.loop import STOPPED_EARLY

        if not last.run.get(STOPPED_EARLY):
            return None
    check_identity(
        path,
        saved,
        {
            **_run_identity(values, material, run, saved, path / IDENTITY_FILE),
            **Numerics.of_run(saved, path).identity(),
        },
        last_steps="finetune.steps",
        schedule_depends_on_steps=run.recipe.schedule.depends_on_total_steps,
        allow_schedule_change=values.allow_schedule_change,
    )
    return _result(workdir, run, material.best_by.metric)


def _train_all(
    values: flags.FlagValues,
    workdir: pathlib.Path,
    runs: Sequence[SweepRun],
    finished: Mapping[str, RunResult],
    materials: _Materials,
    fine_tune: FineTuneOnce,
) -> tuple[SweepResults, signal.Signals | None]:
    """Trains the runs that are not finished, one after the other, and writes the results after each.

    Returns:
        The results, and the signal that stopped the sweep before the last run was over, if one did.
    """
    material = materials.of(runs[0].recipe)
    best_by = material.best_by
    baseline = material.baseline().get(best_by.metric)
    results = dict(finished)

    def write() -> SweepResults:
        over = [results[run.name] for run in runs if run.name in results]
        found = SweepResults(best_by.metric, best_by.larger_is_better, over, len(runs), baseline)
        _write(workdir, found)
        return found

    pending = [run for run in runs if run.name not in finished]
    for number, run in enumerate(pending, start=1):
        print(f"\n---- {run.name}: {number} of {len(pending)} runs to train ----")
        try:
            outcome = _train(values, workdir, run, materials, fine_tune)
        except Exception as error:
            # A setting that diverges, or whose batches need too much memory, says nothing against the others.
            if not (isinstance(error, TrainingError | MemoryShortage) or describe_shortage(error)):
                raise
            results[run.name] = _failed(run, error)
        else:
            if not outcome.exit_code:
                results[run.name] = _result(workdir, run, best_by.metric)
            if outcome.stop_signal and len(results) < len(runs):
                return write(), outcome.stop_signal
            if number == 1:
                _say_room(workdir, run, len(pending) - 1)
        # What the run held in cycles would lie beside the next one's state in the devices' memory.
        gc.collect()
        write()
    return write(), None


def _result(workdir: pathlib.Path, run: SweepRun, metric: str) -> RunResult:
    """Reads what a finished run came to from its checkpoints."""
    best, last = (open_model(workdir / run.name, which) for which in ("best", "latest"))
    metrics = best.run["validation"]
    if not math.isfinite(metrics[metric]):
        return RunResult(run.setting, run.seed, failure=f"{metric} is {metrics[metric]} at its best checkpoint")
    seconds = sum(last.run[SPLIT].get(kind, 0.0) for kind in KINDS)
    return RunResult(run.setting, run.seed, metrics, best.step, seconds)


def _train(
    values: flags.FlagValues, workdir: pathlib.Path, run: SweepRun, materials: _Materials, fine_tune: FineTuneOnce
) -> Trained:
    """Trains a run, or resumes it, as if it had been asked for by itself."""
    goodput = Goodput()
    own = copy.deepcopy(values)
    own.workdir = str(workdir / run.name)
    return fine_tune(own, run.recipe, run.operative_config, materials.of(run.recipe), goodput)


def _failed(run: SweepRun, error: Exception) -> RunResult:
    """Notes why a run cannot go on; the others do."""
    line = " ".join(str(error).split())
    print(f"error: {run.name}: {line}", file=sys.stderr)
    return RunResult(run.setting, run.seed, failure=line[:300])


def _say_room(workdir: pathlib.Path, run: SweepRun, left: int) -> None:
    """Says what the checkpoints of the runs to come will take, which is much for a large grid."""
    size = sum(path.stat().st_size for path in (workdir / run.name).rglob("*") if path.is_file())
    free = shutil.disk_usage(workdir).free
    print(
        f"the run takes {size / 1e9:.2f} GB of disk; those left will take about {left * size / 1e9:.1f} GB, and"
        f" {free / 1e9:.1f} GB are free"
    )
    if left * size > free:
        print(f"warning: {workdir} will be full before the last run: make room there", file=sys.stderr)


def _write(workdir: pathlib.Path, results: SweepResults) -> None:
    """Writes the results so far, each file in one piece or not at all; they are on disk when this returns."""
    for name, text in (
        (RESULTS, json.dumps(results.to_json(), indent=1) + "\n"),
        (PAGE, results.to_markdown()),
    ):
        try:
            write_file(workdir / name, text.encode())
        except OSError as error:
            raise UserError(f"cannot write {workdir / name}: {error.strerror or error}") from error
    if results.best:
        draw_sweep(results, workdir / FIGURE)
