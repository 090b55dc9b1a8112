"""Work spread over processes, with results in order and a bounded number of tasks under way."""

import collections
import concurrent.futures
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from bert_jax.errors import UserError

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
    very process.

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
    # Not fork: a child of a process that has threads may wait forever for a lock that one of them held.
    executor = concurrent.futures.ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initialize, arguments
    )
    under_way: collections.deque[concurrent.futures.Future[Result]] = collections.deque()
    try:
        for task in tasks:
            under_way.append(executor.submit(function, task))
            if len(under_way) > _TASKS_PER_WORKER * workers:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    except concurrent.futures.BrokenExecutor:
        raise UserError(
            f"a worker process was killed, perhaps for want of memory: try again with fewer than --workers={workers}"
        ) from None
    finally:
        executor.shutdown(cancel_futures=True)
