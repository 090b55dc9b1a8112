"""Work spread over processes, with results in order and a bounded number of tasks under way.

The worker processes end with the one that started them, however it ends, and leave interruptions to it: Ctrl-C in a
terminal reaches all of them at once.
"""

import collections
import concurrent.futures
import contextlib
import multiprocessing
import multiprocessing.context
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from bert_jax.errors import UserError
from bert_jax.parent_process import end_with_parent

Task = TypeVar("Task")
Result = TypeVar("Result")

# Tasks read ahead for each worker: enough that none waits while the results before it are written.
_TASKS_PER_WORKER = 2


def available_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ordered_map(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    workers: int,
    initialize: Callable[..., None],
    arguments: tuple[Any, ...],
) -> Iterator[Result]:
    """Yields function(task) for each task, in the order of the tasks, whatever the number of workers.

    Tasks are drawn as they are needed, so that neither they nor the results pile up in memory. One worker means this
    very process. With several, all results are to be drawn by one thread, and the workers end at once when an error, or
    an interruption, ends the work.

    Args:
        function: a module-level function.
        tasks: what it is called with.
        workers: number of processes.
        initialize: called once in each worker, with `arguments`.
        arguments: must be picklable.
    """
    if workers == 1:
        initialize(*arguments)
        yield from map(function, tasks)
        return
    context = _WorkerContext()
    executor = concurrent.futures.ProcessPoolExecutor(
        workers, context, _start_worker, (os.getpid(), initialize, arguments)
    )
    under_way: collections.deque[concurrent.futures.Future[Result]] = collections.deque()
    try:
        for task in tasks:
            under_way.append(_submit(executor, function, task))
            if len(under_way) > _TASKS_PER_WORKER * workers:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
        executor.shutdown()
    except concurrent.futures.BrokenExecutor:
        raise UserError(
            f"a worker process was killed, perhaps for want of memory: try again with fewer than --workers={workers}"
        ) from None
    finally:
        # After the last result none is left. Otherwise nobody waits for what they are at; and once they are gone, the
        # executor's own end is a matter of milliseconds, and may be interrupted.
        with _ignoring_interruptions():
            context.end_workers()
        executor.shutdown(cancel_futures=True)


class _WorkerContext(multiprocessing.context.SpawnContext):
    """Starts worker processes and remembers them.

    They are spawned, not forked: a child of a process that has threads may wait forever for a lock that one of them
    held.
    """

    def __init__(self) -> None:
        super().__init__()
        self._workers: list[multiprocessing.Process] = []

    def Process(self, *args: Any, **kwargs: Any) -> multiprocessing.Process:
        worker = super().Process(*args, **kwargs)
        self._workers.append(worker)
        return worker

    def end_workers(self) -> None:
        """Kills the workers and returns once they are gone."""
        started = [worker for worker in self._workers if worker.pid is not None]
        for worker in started:
            worker.kill()
        for worker in started:
            worker.join()


def _submit(
    executor: concurrent.futures.ProcessPoolExecutor, function: Callable[[Task], Result], task: Task
) -> concurrent.futures.Future[Result]:
    # A worker that is started here inherits what is blocked: no interruption comes before it ignores them.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return executor.submit(function, task)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextlib.contextmanager
def _ignoring_interruptions() -> Iterator[None]:
    """Lets what takes milliseconds be done whole; no other thread than the main one is ever interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _start_worker(parent: int, initialize: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    end_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    initialize(*arguments)
