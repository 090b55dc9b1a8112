"""How launchers begin and end: flags, one line for a mistake, exit codes."""

import errno
import os
import signal
import subprocess
import sys

import pytest
from absl import flags

from bert_jax.errors import TrainingError, UserError
from launch.command import run

_OUT_OF_MEMORY = (
    "error: out of memory ({}): lower the batch size, or cut it into micro-batches (accumulation_steps), or shorten the"
    " rows, or use a smaller model or more devices; what was saved is kept\n"
)


def _define(values: flags.FlagValues) -> None:
    flags.DEFINE_integer("count", 1, "How many.", flag_values=values)


def _raises(error: BaseException):
    def execute(values):
        raise error

    return execute


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (143, 143)])
def test_what_is_returned_is_the_exit_code(returned, code):
    assert run(["x", "--count=3"], "A launcher.", _define, lambda values: returned) == code


def test_flags_reach_the_work():
    seen = []
    run(["x", "--count=3"], "A launcher.", _define, lambda values: seen.append(values.count))
    run(["x"], "A launcher.", _define, lambda values: seen.append(values.count))
    assert seen == [3, 1]


def test_help(capsys):
    assert run(["x", "--help"], "A launcher.", _define, _raises(AssertionError())) == 0
    output = capsys.readouterr().out
    assert output.startswith("A launcher.") and "--count" in output


@pytest.mark.parametrize("argument", ["--number=3", "--count=many", "3"])
def test_wrong_flags(capsys, argument):
    assert run(["x", argument], "A launcher.", _define, _raises(AssertionError())) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("a\n  b"), 2, "error: a b\n"),
        (TrainingError("diverged"), 1, "error: diverged\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "x.png"),
            2,
            "error: cannot write x.png: No space left on device\n",
        ),
        (PermissionError(errno.EACCES, "Permission denied"), 2, "error: cannot write a file: Permission denied\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (MemoryError("Unable to allocate 1 TiB"), 1, _OUT_OF_MEMORY.format("Unable to allocate 1 TiB")),
        (OSError(errno.ENOMEM, "Cannot allocate"), 1, _OUT_OF_MEMORY.format("[Errno 12] Cannot allocate")),
        (RuntimeError("RESOURCE_EXHAUSTED: no\nroom"), 1, _OUT_OF_MEMORY.format("no room")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_failures_are_one_line(capsys, error, code, line):
    assert run(["x"], "A launcher.", _define, _raises(error)) == code
    assert capsys.readouterr().err == line


@pytest.mark.parametrize("error", [ZeroDivisionError(), FileNotFoundError(errno.ENOENT, "No such file", "x")])
def test_mistakes_of_the_program_keep_their_traceback(error):
    with pytest.raises(type(error)):
        run(["x"], "A launcher.", _define, _raises(error))


_INTERRUPTED = """
import signal, sys, tempfile, threading, time, weakref
from launch.command import run

# The tests may have been started in the background, where the signal is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

class Holder:
    def __init__(self):
        self.itself = self
        folder = tempfile.TemporaryDirectory(dir=sys.argv[0])
        weakref.finalize(self, folder.cleanup)

def execute(values):
    holder = Holder()
    # An interpreter that ends waits for such a thread, as it tears down what XLA's threads use.
    threading.Thread(target=time.sleep, args=(600,)).start()
    print("working", end="")
    sys.stdout.flush()
    time.sleep(600)

sys.argv = sys.argv[1:]
sys.exit(run(sys.argv, "A launcher.", lambda values: None, execute))
"""


@pytest.mark.parametrize("times", [1, 3])
def test_an_interrupted_process_ends_at_once_and_leaves_nothing(tmp_path, repository_root, times):
    command = [sys.executable, "-c", _INTERRUPTED, str(tmp_path)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=repository_root, text=True, **pipes) as process:
        try:
            assert process.stdout.read(len("working")) == "working" and len(list(tmp_path.iterdir())) == 1
            for _ in range(times):
                process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130 and errors == "interrupted\n"
    assert list(tmp_path.iterdir()) == []


def _unread_stream():
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_output_that_nobody_reads_ends_a_launcher_quietly(monkeypatch, capsys, name):
    def execute(values):
        print("a line", file=getattr(sys, name), flush=True)
        raise AssertionError

    with monkeypatch.context() as patch, _unread_stream() as stream:
        patch.setattr(sys, name, stream)
        assert run(["x"], "A launcher.", _define, execute) == 141
        print("more", file=stream, flush=True)
    assert capsys.readouterr() == ("", "")


def test_help_that_nobody_reads(repository_root):
    with _unread_stream() as stream:
        command = [sys.executable, "-m", "launch.prepare", "--help"]
        done = subprocess.run(command, stdout=stream, stderr=subprocess.PIPE, text=True, cwd=repository_root)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_pipe_of_its_own_that_breaks_is_a_mistake_of_the_program():
    with pytest.raises(BrokenPipeError):
        run(["x"], "A launcher.", _define, _raises(BrokenPipeError(errno.EPIPE, "Broken pipe")))
