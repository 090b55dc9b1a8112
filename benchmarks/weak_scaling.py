"""Weak scaling on paper: what a device sends in a step, from compiled programs, while chips and rows grow together.

Example: python -m benchmarks.weak_scaling --figure=docs/weak_scaling.png --json=weak_scaling.json

Compiles the real train step for slices of 16 to 1,024 TPU v5p chips, ahead of time, with the same rows for each chip:
data parallel (the model on every chip) and FSDP (its state cut over 16 chips, copies of these 16 side by side).
Prints one table; what is in the --json file already is not compiled again.
"""

import argparse
import dataclasses
import json
import pathlib

import matplotlib

from bert_jax.parallel.hlo_collectives import summarize
from bert_jax.parallel.mesh_spec import MeshSpec, parse_mesh
from bert_jax.parallel.topology import parse_topology
from launch.configuration import load_pretrain
from launch.planned_step import Case, Compiled, compile_case

_SLICES = ("v5p:2x2x4", "v5p:4x4x4", "v5p:4x8x8", "v5p:8x8x16")
_LAYOUTS = {"data parallel": "data:-1", "FSDP over 16": "data:-1,fsdp:16"}


def measure(gin_file: str, topology_name: str, mesh_text: str, rows_per_chip: int) -> dict[str, float]:
    """Compiles one setting; returns the megabytes that a device sends in a step, by kind and axes, and in all."""
    recipe, _ = load_pretrain([gin_file], ["BertConfig.vocab_size=30522"])
    topology = parse_topology(topology_name)
    mesh: MeshSpec = parse_mesh(mesh_text).resolve(topology.num_devices)
    phase = recipe.phases[0]
    phase = dataclasses.replace(phase, batch_size=rows_per_chip * topology.num_chips, accumulation_steps=1)
    compiled = compile_case(Case(recipe, phase, topology, mesh))
    if not isinstance(compiled, Compiled):
        raise SystemExit(f"{topology}: needs {compiled.used} of {compiled.available}; give fewer --rows_per_chip")
    kinds = {
        f"{kind} over {axes}": sent / 1e6 for (kind, axes), (_, _, sent) in summarize(compiled.collectives).items()
    }
    return {**kinds, "all": sum(kinds.values())}


def draw(measured: dict[str, dict[str, dict[str, float]]], path: pathlib.Path) -> None:
    """Draws megabytes by chips, one line a layout."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    for layout, by_slice in measured.items():
        chips, sent = zip(
            *sorted((parse_topology(name).num_chips, sent["all"]) for name, sent in by_slice.items()), strict=True
        )
        axes.plot(chips, sent, marker="o", label=layout)
    axes.set_xscale("log", base=2)
    axes.set_xticks(chips, [f"{number:,}" for number in chips])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("chips (and rows, in proportion)")
    axes.set_ylabel("MB a device sends in a step")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def main() -> None:
    """Prints one line for each number of chips and layout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gin_file", default="gin_configs/pretrain/bert_base.gin", help="its first phase is compiled")
    parser.add_argument("--rows_per_chip", type=int, default=8)
    parser.add_argument("--slices", nargs="+", default=_SLICES, metavar="TOPOLOGY")
    parser.add_argument("--json", type=pathlib.Path, help="keeps what is compiled")
    parser.add_argument("--figure", type=pathlib.Path)
    arguments = parser.parse_args()

    setting = {"gin_file": arguments.gin_file, "rows_per_chip": arguments.rows_per_chip}
    measured = {layout: {} for layout in _LAYOUTS}
    if arguments.json and arguments.json.exists():
        kept = json.loads(arguments.json.read_text())
        if kept["setting"] != setting:
            parser.error(f"{arguments.json} is of {kept['setting']}: give another file")
        measured = kept["measured"]
    print(f"{'layout':<16}{'slice':<14}{'chips':>6}{'MB sent':>10}  of these")
    for name in arguments.slices:
        for layout, mesh in _LAYOUTS.items():
            if name not in measured[layout]:
                measured[layout][name] = measure(arguments.gin_file, name, mesh, arguments.rows_per_chip)
                if arguments.json:
                    arguments.json.write_text(json.dumps({"setting": setting, "measured": measured}, indent=1) + "\n")
            sent = measured[layout][name]
            parts = ", ".join(f"{kind} {size:.1f}" for kind, size in sent.items() if kind != "all" and size >= 0.05)
            print(f"{layout:<16}{name:<14}{parse_topology(name).num_chips:>6}{sent['all']:>10.1f}  {parts}", flush=True)
    if arguments.figure:
        draw(measured, arguments.figure)


if __name__ == "__main__":
    main()
