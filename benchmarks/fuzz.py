"""Reads damaged files with every reader: each case must end in a value or in one line that a user can act on.

    python -m benchmarks.fuzz --cases=200000 --failures=failures.json

A case is a name, such as "table/17", that decides all about it. Those that fail are printed, and written with their
files to --failures, from where those worth keeping go to tests/fuzz/failed.json, which the tests read first.
"""

import argparse
import base64
import collections
import dataclasses
import faulthandler
import json
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time
import zlib
from collections.abc import Mapping
from typing import Any

from benchmarks.fuzz_mutations import mutate
from benchmarks.fuzz_readers import Files, Reader, readers
from bert_jax.errors import UserError

# Seconds of the processor, and of the clock: a case that waits for something must end too.
_SECONDS, _SECONDS_OF_THE_CLOCK = 5.0, 120
_MEBIBYTES = 300
_STATUS, _CLEAR_PEAK = pathlib.Path("/proc/self/status"), pathlib.Path("/proc/self/clear_refs")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The end of a case.

    Attributes:
        problem: what is wrong; None if it passed.
        is_refused: whether the files were refused.
    """

    problem: str | None
    is_refused: bool = False


def damaged(reader: Reader, case: str) -> tuple[Files, str]:
    """Returns the files of a case, one of them damaged, and that one's name."""
    draw = random.Random(case)
    files = draw.choice(reader.seeds)
    name = draw.choice(sorted(files))
    return {**files, name: mutate(files[name], draw)}, name


def run_case(reader: Reader, case: str, files: Files, folder: pathlib.Path) -> Outcome:
    """Writes the files of a case into a folder below `folder`, and reads them."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        path = folder / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    began, before = time.process_time(), _forget_peak()
    signal.signal(signal.SIGALRM, _end)
    signal.alarm(_SECONDS_OF_THE_CLOCK)
    problem, is_refused = None, False
    try:
        reader.read(folder / "files", random.Random(f"{case} is read"))
    except UserError as error:
        is_refused = True
        if "\n" in str(error) or not str(error).strip():
            problem = f"not one line: {str(error)[:200]!r}"
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # libraries in Rust raise what is no Exception
        where = error.__traceback__
        while where.tb_next is not None:
            where = where.tb_next
        place = f"{pathlib.Path(where.tb_frame.f_code.co_filename).name}:{where.tb_lineno}"
        problem = f"{type(error).__name__} at {place}: {str(error)[:200]!r}"
    finally:
        signal.alarm(0)
    seconds = time.process_time() - began
    grown = _mebibytes("VmHWM") - before
    if problem is None and seconds > _SECONDS:
        problem = f"took {seconds:.1f} s"
    if problem is None and grown > _MEBIBYTES:
        problem = f"took {grown} MiB"
    return Outcome(problem, is_refused)


def _forget_peak() -> int:
    """Has the system count this process's peak of memory anew, and returns what it takes now, in MiB."""
    _CLEAR_PEAK.write_text("5")
    return _mebibytes("VmRSS")


def _mebibytes(name: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) >> 10


class _HangError(BaseException):
    """A case did not end."""


def _end(*_: Any) -> None:
    raise _HangError(f"did not end within {_SECONDS_OF_THE_CLOCK} s")


def pack(reader: str, case: str, files: Files, problem: str) -> dict[str, Any]:
    """Returns a failed case as JSON, with its files: what `damaged` makes of a case may change."""
    packed = {name: base64.b64encode(zlib.compress(content, 9)).decode() for name, content in files.items()}
    return {"reader": reader, "case": case, "problem": problem, "files": packed}


def unpack(kept: Mapping[str, Any]) -> Files:
    """Returns the files of a case that was packed."""
    return {name: zlib.decompress(base64.b64decode(content)) for name, content in kept["files"].items()}


def main() -> int:
    """Runs the cases; returns 1 if any failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000, help="in all, the same number for each reader")
    parser.add_argument("--first", type=int, default=0, help="number of the first case of each reader")
    parser.add_argument("--readers", default="", help="names between commas; all of them if empty")
    parser.add_argument("--failures", type=pathlib.Path, help="JSON file to write those that fail to")
    arguments = parser.parse_args()
    faulthandler.enable()
    chosen = readers()
    if arguments.readers:
        chosen = {name: chosen[name] for name in arguments.readers.split(",")}
    counts: dict[str, collections.Counter[str]] = {name: collections.Counter() for name in chosen}
    failed: list[dict[str, Any]] = []
    problems: collections.Counter[str] = collections.Counter()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.first, arguments.first + -(-arguments.cases // len(chosen))):
            for name, reader in chosen.items():
                case = f"{name}/{number}"
                files, damaged_file = damaged(reader, case)
                outcome = run_case(reader, case, files, pathlib.Path(folder) / "case")
                counts[name]["failed" if outcome.problem else "refused" if outcome.is_refused else "read"] += 1
                if outcome.problem:
                    kind = f"{name}: {outcome.problem[:60]}"
                    problems[kind] += 1
                    if problems[kind] <= 3:
                        print(f"{case} ({damaged_file}): {outcome.problem}", flush=True)
                        failed.append(pack(name, case, files, outcome.problem))
            if number % 1000 == 999:
                print(f"{number + 1} cases of each reader, {time.perf_counter() - began:.0f} s", flush=True)
                if arguments.failures:
                    arguments.failures.write_text(json.dumps(failed, indent=1) + "\n")
    if arguments.failures:
        arguments.failures.write_text(json.dumps(failed, indent=1) + "\n")
    print(f"{'reader':24}{'cases':>9}{'read':>9}{'refused':>9}{'failed':>9}")
    for name, count in (*counts.items(), ("all", sum(counts.values(), collections.Counter()))):
        numbers = "".join(f"{count[kind]:>9,}" for kind in ("read", "refused", "failed"))
        print(f"{name:24}{count.total():>9,}{numbers}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
