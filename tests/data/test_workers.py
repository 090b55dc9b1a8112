"""Work spread over processes: order, and processes that end with the one that started them, however it ends."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from bert_jax.data.workers import ordered_map

_PATIENCE = 60


def _nothing():
    """Prepares a worker for nothing."""


def _double(number):
    time.sleep(0.001 * (number % 3))
    return 2 * number


def _announce(folder):
    """Leaves the id of the worker in the folder, and does not return before it is killed."""
    (folder / str(os.getpid())).touch()
    time.sleep(600)


def _work_forever(folder):
    """Maps over two workers until something ends this process; the reason is printed."""
    # Tests may have been started in the background, where the signal is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        list(ordered_map(_announce, [folder] * 8, 2, _nothing, ()))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


@pytest.fixture
def parent(tmp_path, repository_root):
    """A process whose two workers are at work, in a process group of its own; and the ids of the workers."""
    code = f"import pathlib; from test_workers import _work_forever; _work_forever(pathlib.Path({str(tmp_path)!r}))"
    path = os.pathsep.join([str(pathlib.Path(__file__).parent), str(repository_root)])
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    _wait_until(lambda: len(list(tmp_path.iterdir())) == 2 or process.poll() is not None)
    workers = [int(entry.name) for entry in tmp_path.iterdir()]
    assert len(workers) == 2, process.communicate()[1]
    yield process, workers
    for worker in [worker for worker in workers if _is_alive(worker)]:
        os.kill(worker, signal.SIGKILL)
    process.kill()
    process.communicate()


def _wait_until(condition):
    end = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def _is_alive(process):
    """Whether a process is there, and not only its exit code, which nobody may have asked for."""
    try:
        status = pathlib.Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")


def test_results_come_in_the_order_of_the_tasks():
    assert list(ordered_map(_double, range(20), 2, _nothing, ())) == list(map(_double, range(20)))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent is gone")
def test_workers_end_with_a_parent_that_is_killed(parent, number):
    process, workers = parent
    process.send_signal(number)
    assert process.wait(_PATIENCE) == -number
    _wait_until(lambda: not any(map(_is_alive, workers)))


@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["to the parent", "to all of them"])
@pytest.mark.parametrize("pause", [None, 0.02, 0.3])
def test_an_interruption_ends_the_parent_and_its_workers_at_once(parent, send, pause):
    process, workers = parent
    send(process.pid, signal.SIGINT)
    if pause is not None:
        time.sleep(pause)
        if process.poll() is None:
            send(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=_PATIENCE)
    assert process.returncode in (130, -signal.SIGINT)
    assert not any(map(_is_alive, workers))
    if pause is None:
        assert errors == "interrupted\n"


def test_an_error_ends_the_workers(tmp_path):
    def tasks():
        yield from [tmp_path] * 2
        _wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(ordered_map(_announce, tasks(), 2, _nothing, ()))
    assert not any(_is_alive(int(entry.name)) for entry in tmp_path.iterdir())
