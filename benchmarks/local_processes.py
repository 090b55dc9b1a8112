"""Runs of the pre-training launcher in processes of this machine, each with fake devices of its own."""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence


@contextlib.contextmanager
def local_run(
    arguments: Sequence[str], workdir: pathlib.Path, *, devices: int, processes: int = 1
) -> Iterator[Sequence[subprocess.Popen]]:
    """Starts the processes of a run, and kills at the end those that are left.

    Args:
        arguments: of the launcher.
        workdir: of the run; what each process prints goes to `output_file`.
        devices: of each process.
        processes: of the run.
    """
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "XLA_FLAGS": flags.strip(), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "launch.pretrain", *arguments, f"--workdir={workdir}"]
    meeting = [f"--coordinator=localhost:{_free_port()}", f"--num_processes={processes}"]
    started: list[subprocess.Popen] = []
    try:
        for index in range(processes):
            own = [*meeting, f"--process_id={index}"] if processes > 1 else []
            with output_file(workdir, index).open("wb") as output:
                started.append(subprocess.Popen(command + own, env=environment, stdout=output, stderr=output))
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


def output_file(workdir: pathlib.Path, index: int) -> pathlib.Path:
    """Where the output of a process goes, beside the run's folder."""
    return workdir.with_suffix(f".{index}.txt")


def run_to_the_end(arguments: Sequence[str], workdir: pathlib.Path, *, devices: int, processes: int = 1) -> None:
    """Runs the launcher; exits with its output if it fails."""
    with local_run(arguments, workdir, devices=devices, processes=processes) as started:
        for index, process in enumerate(started):
            if process.wait():
                sys.exit(f"process {index} of {processes} failed:\n{output_file(workdir, index).read_text()}")


def read_losses(workdir: pathlib.Path) -> dict[int, float]:
    """Returns the training loss by step; a line that is still being written is left out."""
    whole_lines = (workdir / "metrics.jsonl").read_text().rpartition("\n")[0]
    lines = [json.loads(line) for line in whole_lines.splitlines()]
    return {line["step"]: line["loss"] for line in lines if line["split"] == "train"}


def largest_difference(losses: dict[int, float], reference: dict[int, float]) -> tuple[float, int]:
    """Returns the largest relative difference from the reference, and its step; all steps must be there."""
    differences = {step: abs(losses[step] / loss - 1) for step, loss in reference.items()}
    worst = max(differences, key=differences.__getitem__)
    return differences[worst], worst


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]
