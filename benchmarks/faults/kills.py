"""Kills a verb at the n-th operation on its files, starts it again, and looks for what was lost.

A trial is one output: the verb is killed at one moment after the other, drawn from all operations of a run that nobody
disturbs, until it ends by itself. After each kill, what was finished must be there and whole; at the end, everything
must be as if nothing had happened: losses and arrays bit for bit, files byte for byte, and no name that is not wanted.
A kill that comes too late for what is left to do does not count.

Needs a C compiler. Example: python -m benchmarks.faults.kills --verb=pretrain --kills=100
"""

import argparse
import collections
import os
import pathlib
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.faults.verbs import ROOT, VERBS, Verb, environment, make_inputs

_SOURCE = pathlib.Path(__file__).with_name("kill_at.c")
# After so many, the verb is left alone: one that begins again each time would never end.
_MOST_KILLS_OF_A_TRIAL = 6
_TRIALS_OF_A_LINE = 5


def build(folder: pathlib.Path) -> pathlib.Path:
    """Compiles the library that kills; FileNotFoundError where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        raise FileNotFoundError("no C compiler: install gcc")
    library = folder / "kill_at.so"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, _SOURCE, "-ldl"], check=True)
    return library


class Killer:
    """Runs a verb, and kills it at an operation."""

    def __init__(self, verb: Verb, inputs: pathlib.Path, library: pathlib.Path, scratch: pathlib.Path):
        """Takes the verb, what it reads, the library of `build` and an empty folder."""
        self._verb, self._inputs, self._library, self._scratch = verb, inputs, library, scratch

    def run(self, output: pathlib.Path, kill_at: int = 0) -> tuple[int, int, str]:
        """Runs the verb to its end, or to the operation; returns exit code, operations and what was printed."""
        counter = self._scratch / "operations"
        counter.write_bytes(bytes(8))
        variables = environment(
            self._inputs,
            LD_PRELOAD=str(self._library),
            KILL_BELOW=str(output.parent),
            KILL_AT=str(kill_at),
            KILL_COUNT=str(counter),
        )
        done = subprocess.run(
            self._verb.command(self._inputs, output),
            cwd=ROOT,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        return done.returncode, struct.unpack("q", counter.read_bytes())[0], done.stdout


def trial(killer: Killer, verb: Verb, output: pathlib.Path, moments: Iterator[int], most: int) -> Iterator[int]:
    """Yields the operation of each kill that landed on one output, until the verb has come to its end."""
    held = verb.check(output) if output.exists() else 0
    for kill in range(most + 1):
        moment = next(moments) if kill < most else 0
        code, _, printed = killer.run(output, moment)
        if code == 0:
            return
        if code != -signal.SIGKILL:
            raise AssertionError(f"it ended with {code} after kills:\n{printed[-2000:]}")
        now = verb.check(output) if output.exists() else 0
        assert now >= held, f"what was finished is gone: {now} after {held}"
        held = now
        yield moment
        if held and verb.is_made_once:
            return


def campaign(verb: Verb, inputs: pathlib.Path, folder: pathlib.Path, kills: int, seed: int) -> dict[str, Any]:
    """Kills a verb so many times; returns what happened.

    Raises:
        AssertionError: something was lost, or is not as it was.
    """
    killer = Killer(verb, inputs, build(folder), folder)
    reference = folder / "reference" / "output"
    reference.parent.mkdir()
    code, operations, printed = killer.run(reference)
    assert code == 0, printed[-2000:]
    wanted, names = verb.result(reference), sorted(os.listdir(reference.parent))
    draw = random.Random(seed)
    # Every part of a run gets its share of first kills; those after them come anywhere.
    share = operations / kills
    firsts = [1 + int(share * (number + draw.random())) for number in range(kills)]
    draw.shuffle(firsts)
    landed: list[int] = []
    trials = 0
    while len(landed) < kills:
        output = folder / f"trial_{trials}" / "output"
        output.parent.mkdir()

        def moments(first: int = firsts[trials]) -> Iterator[int]:
            yield first
            left = operations - first
            while True:
                # Later ones within what a resumed run has left to do, more or less.
                moment = draw.randint(1, max(left, operations // 20, 1))
                left -= moment
                yield moment

        landed += trial(killer, verb, output, moments(), _MOST_KILLS_OF_A_TRIAL)
        found = verb.result(output)
        assert found == wanted, _difference(found, wanted)
        assert sorted(os.listdir(output.parent)) == names, sorted(os.listdir(output.parent))
        shutil.rmtree(output.parent)
        trials += 1
        if trials % _TRIALS_OF_A_LINE == 0:
            print(f"  {len(landed)} of {kills} kills in {trials} outputs so far", file=sys.stderr, flush=True)
    return {"kills": len(landed), "trials": trials, "operations": operations, "moments": len(set(landed))}


def _difference(found: Any, wanted: Any) -> str:
    if isinstance(found, dict) and isinstance(wanted, dict):
        names = [name for name in {**found, **wanted} if found.get(name) != wanted.get(name)]
        return f"{names[0]}: {_difference(found.get(names[0]), wanted.get(names[0]))}"
    return f"{str(found)[:1000]} in place of {str(wanted)[:1000]}"


def main() -> None:
    """Prints a line for each verb."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verb", action="append", choices=list(VERBS), help="may repeat; all by default")
    parser.add_argument("--kills", type=int, default=100, help="that land, for each verb")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    failures = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        inputs = pathlib.Path(folder) / "inputs"
        make_inputs(inputs)
        for name in given.verb or VERBS:
            scratch = pathlib.Path(folder) / name
            scratch.mkdir()
            began = time.monotonic()
            try:
                found = campaign(VERBS[name], inputs, scratch, given.kills, given.seed)
            except AssertionError as error:
                failures[name] += 1
                print(f"{name}: LOST: {error}", flush=True)
                continue
            print(
                f"{name}: {found['kills']} kills at {found['moments']} of {found['operations']} operations, in"
                f" {found['trials']} outputs: nothing lost, nothing changed ({time.monotonic() - began:.0f} s)",
                flush=True,
            )
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
