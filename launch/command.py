"""How every launcher starts and ends: flags come in, an exit code goes out.

A launcher defines its flags on a FlagValues of its own, so that several can be called from one process (the tests do),
and a user's mistake becomes one line on standard error and exit code 2.
"""

import contextlib
import errno
import gc
import math
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Sequence

from absl import flags, logging

from bert_jax.errors import TrainingError, UserError
from bert_jax.parallel.memory import describe_shortage
from bert_jax.parallel.processes import end_process, leave_now, process_group

FAILED = 1
USER_ERROR = 2
INTERRUPTED = 130
# Nobody reads the output any more: the code of a process that SIGPIPE ends.
UNREAD = 141
# A line that quotes a longer value is cut in the middle.
_LONGEST_LINE = 1200
# Errors of the machine rather than of the program: no room, or no permission to write; or a path that cannot be,
# wherever it is first looked at.
_REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
_NO_PATH = (errno.ENAMETOOLONG, errno.ELOOP)


def run(
    argv: Sequence[str],
    describe: str,
    define_flags: Callable[[flags.FlagValues], None],
    execute: Callable[[flags.FlagValues], int | None],
) -> int:
    """Parses `argv`, runs `execute` on the flags and returns the process's exit code.

    An interrupted launcher whose `argv` is `sys.argv` itself, the launcher of this process, ends the process here.

    Args:
        argv: program name and arguments, as in `sys.argv`.
        describe: what `--help` prints above the flags.
        define_flags: adds the launcher's flags to the given FlagValues.
        execute: the work; returns an exit code, or None for success.
    """
    # Orbax logs every exception with its traceback, from threads too, before it raises it; here it becomes one line.
    logging.set_verbosity(logging.FATAL)
    # TensorFlow greets with what its build can do, and has kernels that are of no use here; errors still get through.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    _size_terminal()
    # Progress is seen at once, in a pipe too, and not lost with a killed process.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)
    values = flags.FlagValues()
    flags.DEFINE_bool("help", False, "Print this help and exit.", short_name="h", flag_values=values)
    define_flags(values)
    try:
        if any(argument in ("--help", "-h", "-help") for argument in argv[1:]):
            print(f"{describe.strip()}\n\nFlags:\n{values.get_help()}")
            return 0
        _parse(argv, values)
        return execute(values) or 0
    except (flags.Error, UserError) as error:
        return _fail(error, USER_ERROR)
    except TrainingError as error:
        return _fail(error, FAILED)
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _silence_unread_output():
            end_process(UNREAD, "nobody reads its output any more")
            return UNREAD
        if line := describe_shortage(error):
            return _fail(TrainingError(line), FAILED)
        if error.errno in _NO_PATH:
            return _fail(UserError(f"cannot use {error.filename}: {error.strerror}"), USER_ERROR)
        if error.errno not in _REFUSED:
            _end_with_traceback(error)
            raise
        return _fail(UserError(f"cannot write {error.filename or 'a file'}: {error.strerror}"), USER_ERROR)
    except KeyboardInterrupt:
        if argv is sys.argv:
            # It is ending: another one would only break off what the next lines do.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        print("interrupted", file=sys.stderr)
        end_process(INTERRUPTED, "interrupted")
    except Exception as error:
        if line := describe_shortage(error):
            return _fail(TrainingError(line), FAILED)
        _end_with_traceback(error)
        raise
    if argv is sys.argv:
        # XLA's threads may be at work, and crash when the interpreter is torn down under them. What was interrupted is
        # collected first: temporary folders go with the objects that hold them.
        gc.collect()
        leave_now(INTERRUPTED)
    return INTERRUPTED


def _parse(argv: Sequence[str], values: flags.FlagValues) -> None:
    """Reads the flags; raises a UserError, or absl's, for what no launcher can use."""
    for argument in argv[1:]:
        readable = argument.encode("utf-8", "backslashreplace").decode()
        if readable != argument:
            raise UserError(f"{readable} is not UTF-8: write it so, or rename the file")
    extra = values(list(argv))[1:]
    if extra:
        raise UserError(f"unexpected argument {extra[0]!r}: every argument is a flag, such as --name=value")
    for name in values:
        # Not a number lies between any two limits.
        if isinstance(values[name].value, float) and not math.isfinite(values[name].value):
            raise UserError(f"--{name}={values[name].value}: must be a finite number")


def _size_terminal() -> None:
    """Gives a terminal that does not know its size, as a notebook's, a common one: tqdm would draw nothing there."""
    if not sys.stderr.isatty():
        return
    import termios

    with contextlib.suppress(OSError, termios.error):
        if os.get_terminal_size(sys.stderr.fileno()) == (0, 0):
            termios.tcsetwinsize(sys.stderr.fileno(), (24, 100))


def _silence_unread_output() -> bool:
    """Has standard output and error lead nowhere where nobody reads them any more; returns whether that is so."""
    found = False
    for stream in (sys.stdout, sys.stderr):
        # A notebook's stream has no descriptor.
        with contextlib.suppress(OSError):
            descriptor = stream.fileno()
            poll = select.poll()
            poll.register(descriptor, 0)
            if any(state & (select.POLLERR | select.POLLHUP) for _, state in poll.poll(0)):
                found = True
                # The rest may still be in the buffers, and would be written again at the end.
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
    return found


def _fail(error: Exception, code: int) -> int:
    # Absl begins with the word "flag", which the dashes say.
    line = " ".join(str(error).split()).removeprefix("flag ")
    if len(line) > _LONGEST_LINE:
        line = f"{line[: _LONGEST_LINE // 2]} ... {line[-_LONGEST_LINE // 2 :]}"
    print(f"error: {line}", file=sys.stderr)
    end_process(code, line)
    return code


def _end_with_traceback(error: Exception) -> None:
    """Does not return in a run of several processes, which would wait for this one."""
    if process_group():
        traceback.print_exc()
        end_process(FAILED, f"{type(error).__name__}: {error}".splitlines()[0])
