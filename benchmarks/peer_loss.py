"""What becomes of a run of two processes when one of them is lost at a random moment, and whether it goes on as before.

Prints for each trial how one was lost, seconds until the other ended, its exit code and last line; then, after a new
start with two processes or one, the largest relative difference of all training losses from those of a run that was
never interrupted. SIGKILL closes the lost process's connections; SIGSTOP leaves them open, as a machine does that
hangs or is cut off, and only missing heartbeats tell.

Example: python -m benchmarks.peer_loss --data_dir=rows_128 --gin_file=gin_configs/pretrain/tiny.gin \
    --gin_param=pretrain.steps=60 --gin_param=pretrain.batch_size=8 --heartbeat_timeout=10
"""

import argparse
import contextlib
import os
import pathlib
import random
import signal
import subprocess
import tempfile
import time

from benchmarks.local_processes import largest_difference, local_run, output_file, read_losses, run_to_the_end

_DEVICES = 2
# How the one is lost, which it is, and with how many processes the run is started again.
TRIALS = (
    (signal.SIGKILL, 0, 2),
    (signal.SIGKILL, 1, 2),
    (signal.SIGKILL, 0, 1),
    (signal.SIGKILL, 1, 1),
    (signal.SIGSTOP, 0, 2),
    (signal.SIGSTOP, 1, 1),
)


def lose(process: subprocess.Popen, number: signal.Signals) -> None:
    """Sends the signal to a process, and to that which it watches over."""
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for pid in (process.pid, *map(int, children)):
        os.kill(pid, number)


def wait_for_step(workdir: pathlib.Path, step: int, processes: list[subprocess.Popen]) -> int:
    """Returns the last step in the log once it has come so far."""
    while all(process.poll() is None for process in processes):
        with contextlib.suppress(FileNotFoundError):
            if (reached := max(read_losses(workdir), default=0)) >= step:
                return reached
        time.sleep(0.05)
    raise RuntimeError(f"ended before step {step}:\n{output_file(workdir, 0).read_text()}")


def main() -> None:
    """Prints one line for each trial."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--gin_file", required=True)
    parser.add_argument("--gin_param", action="append", default=[])
    parser.add_argument("--heartbeat_timeout", type=int, default=10)
    parser.add_argument("--checkpoint_every", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--trials", type=int, default=len(TRIALS), help="of the list: the first so many")
    given = parser.parse_args()
    bindings = [*given.gin_param, "pretrain.log_every=1", "pretrain.eval_every=0"]
    bindings.append(f"pretrain.checkpoint_every={given.checkpoint_every}")
    arguments = [f"--data_dir={given.data_dir}", f"--gin_file={given.gin_file}"]
    arguments += [f"--gin_param={binding}" for binding in bindings]
    heartbeat = f"--heartbeat_timeout={given.heartbeat_timeout}"
    draw = random.Random(given.seed)

    print(
        f"{'lost':<18}{'after step':>11}{'ended after':>13}{'code':>6}{'again with':>12}{'difference':>12}  last line"
    )
    with tempfile.TemporaryDirectory() as folder:
        whole = pathlib.Path(folder) / "whole"
        run_to_the_end(arguments, whole, devices=_DEVICES, processes=2)
        reference = read_losses(whole)
        for number, (how, victim, processes) in enumerate(TRIALS[: given.trials]):
            workdir = pathlib.Path(folder) / str(number)
            with local_run([*arguments, heartbeat], workdir, devices=_DEVICES, processes=2) as started:
                # Not in the last steps: the run could end before it is interrupted.
                wait_for_step(workdir, draw.randrange(1, len(reference) * 3 // 4), started)
                time.sleep(draw.random())
                lose(started[victim], how)
                began = time.monotonic()
                reached = max(read_losses(workdir))
                code = started[1 - victim].wait()
                seconds = time.monotonic() - began
            last_line = output_file(workdir, 1 - victim).read_text().rstrip().rpartition("\n")[2]
            run_to_the_end(arguments, workdir, devices=_DEVICES, processes=processes)
            difference, _ = largest_difference(read_losses(workdir), reference)
            print(
                f"{victim} by {how.name:<13}{reached:>11}{seconds:>11.1f} s{code:>6}{processes:>12}{difference:>12.1e}"
                f"  {last_line}",
                flush=True,
            )
    print(
        f"{len(reference)} steps; heartbeat timeout {given.heartbeat_timeout} s; a checkpoint every"
        f" {given.checkpoint_every} steps; differences are relative, from two processes that were never interrupted"
    )


if __name__ == "__main__":
    main()
