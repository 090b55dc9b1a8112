"""Whether a run's losses are the same on every mesh: the same launcher, flags and rows, laid out differently.

Prints, for each layout, the largest relative difference of its training losses from those of one device. The devices
are fake ones of the CPU; what is proved is the partitioning, not the speed.

Example: python -m benchmarks.mesh_equality --data_dir=rows_128 --gin_file=gin_configs/pretrain/tiny.gin \
    --gin_param=BertConfig.num_attention_heads=4 --gin_param=pretrain.steps=100
"""

import argparse
import dataclasses
import pathlib
import tempfile
import time
from collections.abc import Sequence

from benchmarks.local_processes import largest_difference, read_losses, run_to_the_end


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where a run computes: so many processes of so many devices, and the launcher's flags."""

    name: str
    flags: Sequence[str]
    devices: int = 8
    processes: int = 1


LAYOUTS = (
    Layout("1 device", (), devices=1),
    Layout("data:8", ("--mesh=data:8",)),
    Layout("fsdp:8", ("--mesh=fsdp:8",)),
    Layout("data:2,tensor:4", ("--mesh=data:2,tensor:4",)),
    Layout("data:2,fsdp:2,tensor:2", ("--mesh=data:2,fsdp:2,tensor:2",)),
    Layout("pmap over 8", ("--partitioner=pmap",)),
    Layout("2 processes of 4", ("--mesh=data:8",), devices=4, processes=2),
    Layout("2 processes of 4, fsdp:8", ("--mesh=fsdp:8",), devices=4, processes=2),
)


def main() -> None:
    """Prints one line for each layout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--gin_file", required=True)
    parser.add_argument("--gin_param", action="append", default=[])
    parser.add_argument(
        "--layout", action="append", choices=[layout.name for layout in LAYOUTS], help="may repeat; all by default"
    )
    arguments = parser.parse_args()
    wanted = arguments.layout or [layout.name for layout in LAYOUTS]
    bindings = [*arguments.gin_param, "pretrain.log_every=1", "pretrain.eval_every=0"]
    flags = [f"--data_dir={arguments.data_dir}", f"--gin_file={arguments.gin_file}"]
    flags += [f"--gin_param={binding}" for binding in bindings]

    reference: dict[int, float] = {}
    print(f"{'layout':<26}{'seconds':>8}{'first loss':>12}{'last loss':>12}{'largest difference':>20}{'at step':>9}")
    with tempfile.TemporaryDirectory() as folder:
        # The first is what the others are compared with.
        for number, layout in enumerate(layout for layout in LAYOUTS if layout is LAYOUTS[0] or layout.name in wanted):
            began = time.perf_counter()
            workdir = pathlib.Path(folder) / str(number)
            run_to_the_end([*flags, *layout.flags], workdir, devices=layout.devices, processes=layout.processes)
            seconds = time.perf_counter() - began
            losses = read_losses(workdir)
            reference = reference or losses
            difference, worst = largest_difference(losses, reference)
            first, last = losses[min(losses)], losses[max(losses)]
            print(
                f"{layout.name:<26}{seconds:>8.1f}{first:>12.6f}{last:>12.6f}{difference:>20.1e}{worst:>9}",
                flush=True,
            )
    print(f"{len(reference)} steps; differences are relative, from the losses of {LAYOUTS[0].name}")


if __name__ == "__main__":
    main()
