"""Plans a pre-training run on accelerators that are not there: compiles its train step for them, ahead of time.

Example: python -m launch.plan --gin_file=gin_configs/pretrain/bert_large.gin --topology=v5e:16x16 --mesh=fsdp:-1
"""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Iterator, Sequence

from absl import flags

from bert_jax.durable_files import check_can_write, write_file
from bert_jax.errors import UserError
from bert_jax.parallel.mesh_spec import MeshSpec, check_heads, parse_mesh
from bert_jax.parallel.topology import parse_topology
from bert_jax.tasks.pretraining_recipe import Phase, Pretrain
from launch.command import run
from launch.configuration import load_pretrain
from launch.mesh_flags import define_mesh_flags
from launch.plan_table import format_plan, plan_values
from launch.planned_step import Case, Compiled, OutOfMemory, compile_case
from launch.plugins import define_plugin_flag, load_plugins

# That of the published English models without capitals.
_PUBLISHED_VOCABULARY = 30522
_DOES_NOT_FIT = 1
_REMAT = "full"
_MOST_SLICES = 4096


def define_flags(values: flags.FlagValues) -> None:
    """Adds the flags of this launcher."""
    here = {"flag_values": values}
    flags.DEFINE_multi_string("gin_file", [], "Configuration file; may repeat, later ones win.", **here)
    flags.DEFINE_multi_string("gin_param", [], "A binding such as 'pretrain.steps=200'; may repeat.", **here)
    define_plugin_flag(values)
    flags.DEFINE_string("topology", None, "The chips, such as v5e:16x16, v5p:4x4x8 or h100:4x8 (nodes, GPUs).", **here)
    many = {"lower_bound": 1, "upper_bound": 2**31 - 1}
    flags.DEFINE_integer(
        "num_slices",
        1,
        "So many slices of --topology, connected by the network.",
        **{**many, "upper_bound": _MOST_SLICES},
        **here,
    )
    flags.DEFINE_integer("rows_per_step", None, "Rows of a step, instead of the configured ones.", **many, **here)
    flags.DEFINE_integer("seq_len", 128, "Tokens of a row, for a configuration without phases.", **many, **here)
    flags.DEFINE_integer("phase", None, "Plan this phase only; counted from 1.", **many, **here)
    flags.DEFINE_string("json", None, "File to write the plan to, for programs.", **here)
    define_mesh_flags(values)


def execute(values: flags.FlagValues) -> int:
    """Plans; returns the exit code."""
    # ---- What is asked for. The compiler and JAX are left to other processes.
    if not values.topology:
        raise UserError("--topology is missing: the chips to plan for, such as v5e:16x16")
    if not values.gin_file:
        raise UserError("--gin_file is missing: the run to plan, such as gin_configs/pretrain/bert_large.gin")
    topology = parse_topology(values.topology, values.num_slices)
    mesh = parse_mesh(values.mesh).resolve(topology.num_devices)
    dcn = parse_mesh(values.dcn_mesh, "dcn_mesh") if values.dcn_mesh else None
    output = pathlib.Path(values.json) if values.json else None
    if output and not output.absolute().parent.is_dir():
        raise UserError(f"--json={output}: there is no folder {output.absolute().parent}")
    if output and output.is_dir():
        raise UserError(f"--json={output} is a folder: give a file")
    if output:
        check_can_write(output)
    load_plugins(values.plugin)
    recipe, _ = load_pretrain(values.gin_file, values.gin_param)
    if values["seq_len"].present and recipe.phases is not None:
        raise UserError(
            f"--seq_len={values.seq_len}: every phase of the run has its own (pretrain.phases); leave it out"
        )
    if recipe.model.vocab_size is None:
        print(f"the vocabulary's size is the tokenizer's; planned with the published {_PUBLISHED_VOCABULARY}")
        recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, vocab_size=_PUBLISHED_VOCABULARY))
    check_heads(mesh.tensor, recipe.model.num_attention_heads)
    cases = [
        Case(recipe, phase, topology, mesh, dcn, number)
        for number, phase in _phases(recipe, values.seq_len, values.rows_per_step, values.phase)
    ]
    for case in cases:
        check_rows(case.phase, mesh)
    topology.check_installed()

    # ---- The compiler.
    planned = []
    for case in cases:
        outcome = compile_case(case)
        if isinstance(outcome, OutOfMemory):
            print(
                f"does not fit: {case.phase.batch_size:,} rows of {case.phase.seq_len} tokens on {topology} with"
                f" --mesh={mesh} need {outcome.used} of the {outcome.available} of a device"
            )
            advise(case, outcome)
            return _DOES_NOT_FIT
        planned.append((case, outcome))
    print("\n".join(format_plan(planned)))
    if output:
        write_file(output, (json.dumps(plan_values(planned), indent=1) + "\n").encode())
    return 0


def advise(case: Case, outcome: OutOfMemory) -> Case | None:
    """Compiles one change after another, the nearest first, and prints and returns the first that fits."""
    print("trying, from the nearest change on:")
    for change, changed in nearby(case, outcome.excess):
        outcome = compile_case(changed)
        if isinstance(outcome, Compiled):
            gibibytes = outcome.bytes / 2**30
            print(f"  {change}: fits, with {gibibytes:.2f} GiB at the peak; give {as_flags(case, changed)}")
            return changed
        print(f"  {change}: needs {outcome.used}")
    print("nothing of this fits: plan for more chips, or a smaller model")
    return None


def nearby(case: Case, excess: float = 1.0) -> Iterator[tuple[str, Case]]:
    """Yields changes that make a step smaller, the cheapest first, with what they are.

    Micro-batches leave the result as it is, and cost nothing while they fill the chips; rematerialisation costs up to
    a third more arithmetic; fsdp cuts the state, for more communication.

    Args:
        case: what does not fit.
        excess: how many times the memory there is it needs. So many micro-batches more at least are needed: to cut the
            rows by a factor cuts the memory by no more than that.
    """
    at_most = case.phase.batch_size // (case.mesh.data * case.mesh.fsdp)
    now = smallest_steps = case.phase.accumulation_steps
    doublings = []
    while at_most % (smallest_steps * 2) == 0:
        smallest_steps *= 2
        if smallest_steps / now >= excess:
            doublings.append(smallest_steps)
    for number in doublings:
        yield f"accumulation_steps={number}", _with_accumulation(case, number)
    rematerialized = dataclasses.replace(
        case,
        recipe=dataclasses.replace(case.recipe, execution=dataclasses.replace(case.recipe.execution, remat=_REMAT)),
    )
    if case.recipe.execution.remat != _REMAT:
        yield f"Execution.remat='{_REMAT}'", rematerialized
        for number in doublings:
            yield (
                f"Execution.remat='{_REMAT}', accumulation_steps={number}",
                _with_accumulation(rematerialized, number),
            )
    smallest = _with_accumulation(rematerialized, smallest_steps)
    mesh = smallest.mesh
    while mesh.data % 2 == 0:
        mesh = dataclasses.replace(mesh, data=mesh.data // 2, fsdp=mesh.fsdp * 2)
        if case.recipe.model.hidden_size % mesh.fsdp:
            return
        yield f"all of it, and --mesh={mesh}", dataclasses.replace(smallest, mesh=mesh)


def as_flags(case: Case, changed: Case) -> str:
    """Returns the flags that make of a plan another one."""
    given = []
    if changed.mesh != case.mesh:
        given.append(f"--mesh={changed.mesh}")
    if changed.recipe.execution.remat != case.recipe.execution.remat:
        given.append(f"--gin_param=\"Execution.remat='{changed.recipe.execution.remat}'\"")
    if changed.phase.accumulation_steps != case.phase.accumulation_steps:
        number = changed.phase.accumulation_steps
        given.append(
            f"--gin_param=pretrain.accumulation_steps={number}"
            if case.recipe.phases is None
            else f"accumulation_steps={number} for the phase of {case.phase.seq_len} tokens"
        )
    return " ".join(given)


def check_rows(phase: Phase, mesh: MeshSpec) -> None:
    """Raises a UserError unless every micro-batch divides over the devices that hold different rows."""
    devices = mesh.data * mesh.fsdp
    pieces = devices * phase.accumulation_steps
    if phase.batch_size % pieces == 0:
        return
    micro_batches = f" times {phase.accumulation_steps} micro-batches" if phase.accumulation_steps > 1 else ""
    near = max(1, round(phase.batch_size / pieces)) * pieces
    raise UserError(
        f"{phase.batch_size} rows of {phase.seq_len} tokens do not divide over data:{mesh.data} times"
        f" fsdp:{mesh.fsdp}{micro_batches}: give --rows_per_step={near}, fewer accumulation_steps, or more"
        " tensor in --mesh"
    )


def _phases(recipe: Pretrain, seq_len: int, rows: int | None, number: int | None) -> Sequence[tuple[int, Phase]]:
    """Returns the wanted phases with their numbers."""
    lengths = [seq_len] if recipe.phases is None else list(dict.fromkeys(phase.seq_len for phase in recipe.phases))
    phases = list(enumerate(recipe.plan(lengths), start=1))
    if number is not None:
        if not 1 <= number <= len(phases):
            raise UserError(f"--phase={number}: the run has {len(phases)}")
        phases = phases[number - 1 : number]
    if rows is None:
        return phases
    return [(place, dataclasses.replace(phase, batch_size=rows)) for place, phase in phases]


def _with_accumulation(case: Case, steps: int) -> Case:
    return dataclasses.replace(case, phase=dataclasses.replace(case.phase, accumulation_steps=steps))


def main(argv: Sequence[str]) -> int:
    """Runs the launcher; returns the exit code."""
    return run(argv, __doc__, define_flags, execute)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
