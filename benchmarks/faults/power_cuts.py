"""Cuts the power of a disk while a run saves, and looks for checkpoints that were there and are not any more.

The run writes into an ext4 file system of its own, in a file. At a random moment the run is halted, and the file is
copied: the copy holds what had reached the disk, and nothing of what the system still held in memory, as after a power
cut. The copy is mounted, its journal replayed, and everything that had its name by then must be there and whole: every
checkpoint with the checksums of its arrays, and the run must go on from the newest to the very losses of a run that was
never interrupted. Outputs that a verb has announced by ending are cut right after its end.

Needs root, loop devices and mkfs.ext4. Example: python -m benchmarks.faults.power_cuts --cuts=40
"""

import argparse
import contextlib
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from absl import logging

from benchmarks.faults.verbs import ROOT, VERBS, environment, make_inputs
from bert_jax.training.saved_models import finished_steps, open_model

_MEGABYTES = 64
_RUNS = ("pretrain", "finetune")
_OUTPUTS = ("train_tokenizer", "prepare", "convert")


class Disk:
    """An ext4 file system in a file."""

    def __init__(self, folder: pathlib.Path, image: pathlib.Path | None = None):
        """Makes one, or takes a copy of another's file."""
        folder.mkdir()
        self.image, self.path = folder / "image", folder / "disk"
        self.path.mkdir()
        if image is None:
            with open(self.image, "wb") as file:
                file.truncate(_MEGABYTES << 20)
            subprocess.run(["mkfs.ext4", "-q", "-F", self.image], check=True, capture_output=True)
        else:
            shutil.copyfile(image, self.image)

    @contextlib.contextmanager
    def mounted(self) -> Iterator[pathlib.Path]:
        """Yields where its files are; PermissionError or FileNotFoundError where mounting is not possible."""
        done = subprocess.run(["mount", "-o", "loop", self.image, self.path], capture_output=True, text=True)
        if done.returncode:
            raise PermissionError(f"cannot mount a file system in a file: {done.stderr.strip()}")
        try:
            yield self.path
        finally:
            subprocess.run(["umount", "-l", self.path], check=True)


def check_possible(folder: pathlib.Path) -> None:
    """Raises an OSError where such disks cannot be made here."""
    if not shutil.which("mkfs.ext4") or not shutil.which("mount"):
        raise FileNotFoundError("mkfs.ext4 and mount are needed")
    with Disk(folder).mounted():
        pass


class Cutter:
    """Runs verbs on disks of their own, and cuts their power."""

    def __init__(self, inputs: pathlib.Path, folder: pathlib.Path, seed: int = 0):
        """Takes the folder of `make_inputs` and one for the disks, which exists."""
        self._inputs, self._folder, self._draw = inputs, folder, random.Random(seed)
        self._references: dict[str, Any] = {}
        self._cuts = 0

    def _start(self, verb: str, output: pathlib.Path) -> subprocess.Popen:
        return subprocess.Popen(
            VERBS[verb].command(self._inputs, output),
            cwd=ROOT,
            env=environment(self._inputs),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _reference(self, verb: str) -> Any:
        if verb not in self._references:
            output = self._folder / f"reference_{verb}" / "output"
            output.parent.mkdir()
            assert self._start(verb, output).wait() == 0
            self._references[verb] = VERBS[verb].result(output)
        return self._references[verb]

    @contextlib.contextmanager
    def _after_a_cut(self, disk: Disk) -> Iterator[pathlib.Path]:
        """Yields the files of a disk as they are after a power cut at this moment."""
        folder = self._folder / f"cut_{self._cuts}"
        self._cuts += 1
        after = Disk(folder, disk.image)
        try:
            with after.mounted() as path:
                yield path
        finally:
            shutil.rmtree(folder)

    def cut_run(self, verb: str, cuts: int) -> list[int]:
        """Cuts the power of a run that is training, at moments spread over it; returns the newest step of each cut.

        Raises:
            AssertionError: a checkpoint is gone or torn, or the run cannot go on as before.
        """
        wanted = self._reference(verb)
        newest = []
        disk = Disk(self._folder / f"disk_{verb}_{self._cuts}")
        with disk.mounted() as path:
            output = path / "output"
            process = self._start(verb, output)
            try:
                for _ in range(cuts):
                    if not self._wait(process, output, newest[-1] if newest else 0):
                        break
                    os.killpg(process.pid, signal.SIGSTOP)
                    there = finished_steps(output)
                    with self._after_a_cut(disk) as after:
                        newest.append(self._check(verb, after / "output", there, wanted))
                    os.killpg(process.pid, signal.SIGCONT)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        shutil.rmtree(disk.path.parent)
        return newest

    def _wait(self, process: subprocess.Popen, output: pathlib.Path, last: int) -> bool:
        """Waits until a checkpoint has come that was not there at the last cut, and a random moment more."""
        while process.poll() is None:
            if max(finished_steps(output), default=0) > last:
                time.sleep(self._draw.choice([0.0, 0.002, 0.02, 0.1, 0.4]) * self._draw.random())
                return process.poll() is None
            time.sleep(0.0005)
        return False

    def _check(self, verb: str, output: pathlib.Path, there: list[int], wanted: Any) -> int:
        found = finished_steps(output)
        # The moment between a name and its being on disk is the only one in which the newest may be missing, and then
        # all that were there before it are there.
        lost = set(there) - set(found)
        assert lost <= {max(there)} and found, f"{verb}: of checkpoints {there} there are {found} after the cut"
        for step in found:
            open_model(output, str(step)).load_parameters()
        code = self._start(verb, output).wait()
        assert code == 0, f"{verb}: after a cut at checkpoint {max(there)} it ended with {code}"
        assert not (output / "damaged_checkpoints").exists(), f"{verb}: checkpoint {max(there)} was torn"
        assert VERBS[verb].result(output) == wanted, f"{verb}: another result after a cut at checkpoint {max(there)}"
        print(
            f"  {verb}: cut at checkpoints {there}, of which {found} were on disk: went on", file=sys.stderr, flush=True
        )
        return max(there)

    def cut_output(self, verb: str) -> None:
        """Cuts the power once a verb has ended; raises an AssertionError if its output is not all there."""
        wanted = self._reference(verb)
        disk = Disk(self._folder / f"disk_{verb}_{self._cuts}")
        with disk.mounted() as path:
            assert self._start(verb, path / "output").wait() == 0
            with self._after_a_cut(disk) as after:
                output = after / "output"
                assert output.is_dir() and VERBS[verb].result(output) == wanted, f"{verb}: its output was torn"
        shutil.rmtree(disk.path.parent)


def main() -> None:
    """Prints a line for each verb."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=int, default=40, help="of runs")
    parser.add_argument("--outputs", type=int, default=3, help="cuts of each verb that writes an output")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    # Orbax remarks on what it does not need.
    logging.set_verbosity(logging.FATAL)
    lost = 0
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        check_possible(folder / "try")
        make_inputs(folder / "inputs")
        cutter = Cutter(folder / "inputs", folder, given.seed)
        for number, verb in enumerate(_RUNS):
            cuts = given.cuts // len(_RUNS) + (number < given.cuts % len(_RUNS))
            newest: list[int] = []
            try:
                while len(newest) < cuts:
                    newest += cutter.cut_run(verb, cuts - len(newest))
                print(f"{verb}: {cuts} power cuts, after checkpoints {newest}: nothing lost", flush=True)
            except AssertionError as error:
                lost += 1
                print(f"LOST: {error}", flush=True)
        for verb in _OUTPUTS:
            try:
                for _ in range(given.outputs):
                    cutter.cut_output(verb)
                print(f"{verb}: {given.outputs} power cuts after it had ended: nothing lost", flush=True)
            except AssertionError as error:
                lost += 1
                print(f"LOST: {error}", flush=True)
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main()
