"""The processes of a run: how they meet, agree and end together. Imports JAX only where there are several.

They talk by JAX's coordination service, a key-value store that process 0 serves: it needs no devices, works before the
first program is compiled, and costs no step anything. What stands in it lies under `bert_jax/`.
"""

import atexit
import contextlib
import dataclasses
import hashlib
import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bert_jax.errors import TrainingError, UserError
from bert_jax.parallel.cluster import find_cluster
from bert_jax.parallel.supervisor import supervise

COORDINATOR_TIMEOUT = 300
HEARTBEAT_TIMEOUT = 100
_FAILED = 1
_USER_ERROR = 2
_POLL_SECONDS = 1.0
# How long process 0 goes on serving the store for the others to read why it ends.
_FAREWELL_SECONDS = 5.0
_ENDED = "bert_jax/ended"
_LONGEST_VALUE_SHOWN = 60
_GLOO = re.compile(r"\bgloo\b", re.IGNORECASE)
# Errors of JAX's that say something of this process: no memory, or a program that cannot be.
_OUR_OWN = ("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "UNIMPLEMENTED")


@dataclasses.dataclass(frozen=True)
class ProcessGroup:
    """The processes of a run, seen from one of them.

    Attributes:
        client: of the coordination service.
        index: of this process.
        count: of all.
        timeout: for answers of the others, in seconds.
        leaving: set once this process has begun to end.
    """

    client: Any
    index: int
    count: int
    timeout: float
    leaving: threading.Event = dataclasses.field(default_factory=threading.Event)


_group: ProcessGroup | None = None


def process_group() -> ProcessGroup | None:
    """The processes that `start_processes` has brought together; None where this one is alone."""
    return _group


def is_main() -> bool:
    """Whether this process writes the logs: process 0, or the only one."""
    return _group is None or _group.index == 0


def start_processes(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    local_device_ids: Sequence[int] | None = None,
    coordinator_timeout: int = COORDINATOR_TIMEOUT,
    heartbeat_timeout: int = HEARTBEAT_TIMEOUT,
) -> None:
    """Meets the other processes of the run; returns at once where there are none.

    From here on, the processes other than 0 print nothing but errors, and one that fails ends all. To be called before
    JAX is imported: this process then becomes the parent of the one that computes (see `supervise`).

    Args:
        coordinator: HOST:PORT of process 0. Without it, the environment says who takes part (see `find_cluster`).
        num_processes: of the run.
        process_id: of this one, from 0.
        local_device_ids: which of the machine's GPUs this process uses; all of them if None, or, under SLURM and
            Open MPI, the one of its rank.
        coordinator_timeout: seconds to wait until all are there.
        heartbeat_timeout: seconds after which a process that is not heard of is lost, and the others end.

    Raises:
        UserError: the arguments make no sense, or the coordinator does not answer.
    """
    global _group
    check_arguments(coordinator, num_processes, process_id, coordinator_timeout, heartbeat_timeout)
    cluster = None if coordinator else find_cluster(os.environ)
    if not (coordinator or cluster) or num_processes == 1:
        return
    if "jax" not in sys.modules:
        supervise()
    where = f"--coordinator={coordinator}" if coordinator else f"the coordinator that {cluster} names"
    began = time.monotonic()
    if coordinator:
        _reach(coordinator, process_id == 0, coordinator_timeout)

    import jax

    # It would take SIGTERM for itself, and forget one that comes before the first step; see stop_agreement.py.
    jax.config.update("jax_enable_preemption_service", False)
    # Connecting has a time limit of its own, but runs into it with an abort from C++.
    limit = threading.Timer(coordinator_timeout - (time.monotonic() - began), _give_up, (where, coordinator_timeout))
    limit.daemon = True
    limit.start()
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            local_device_ids,
            initialization_timeout=2 * coordinator_timeout + 60,
            heartbeat_timeout_seconds=heartbeat_timeout,
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(f"{where}: the processes cannot meet: {_first_line(error)}") from error
    finally:
        limit.cancel()
    # Not public, but what multihost_utils and orbax use as well; the public ways to agree compile programs.
    from jax._src.distributed import global_state

    if global_state.num_processes == 1:
        return
    _group = ProcessGroup(global_state.client, global_state.process_id, global_state.num_processes, coordinator_timeout)
    if not is_main():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for the rest of the process
    watcher = threading.Thread(target=_watch, args=(_group,), daemon=True)
    watcher.start()

    def stop_watching() -> None:
        _group.leaving.set()
        watcher.join()

    # Called before JAX's own, which takes the client away.
    atexit.register(stop_watching)


def check_arguments(
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    coordinator_timeout: int = COORDINATOR_TIMEOUT,
    heartbeat_timeout: int = HEARTBEAT_TIMEOUT,
) -> None:
    """Raises the UserError of `start_processes` where its arguments make no sense, before anything is done."""
    if num_processes == 1 and coordinator is None and process_id is None:
        # Alone, whatever the environment says.
        return
    given = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if 0 < len(missing) < len(given):
        raise UserError(f"{' and '.join(missing)} missing: --coordinator, --num_processes and --process_id go together")
    for name, value in (("coordinator_timeout", coordinator_timeout), ("heartbeat_timeout", heartbeat_timeout)):
        if value < 1:
            raise UserError(f"--{name}={value}: must be at least 1 second")
    if missing:
        return
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or len(port) > 5 or not 0 < int(port) < 65536:
        raise UserError(f"--coordinator={coordinator}: must be HOST:PORT, an address of process 0")
    if num_processes < 1:
        raise UserError(f"--num_processes={num_processes}: must be at least 1")
    if not 0 <= process_id < num_processes:
        raise UserError(f"--process_id={process_id}: must be from 0 to {num_processes - 1}, --num_processes less 1")


def _reach(coordinator: str, is_coordinator: bool, timeout: float) -> None:
    """Raises a UserError if nobody listens at the address, or, on process 0, if its port is taken."""
    host, _, port = coordinator.rpartition(":")
    if is_coordinator:
        with socket.socket(socket.AF_INET) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("", int(port)))
            except OSError as error:
                raise UserError(f"--coordinator={coordinator}: cannot use the port: {error.strerror}") from error
        return
    deadline = time.monotonic() + timeout
    reason: OSError | None = None
    while (left := deadline - time.monotonic()) > 0:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=left).close()
            return
        except OSError as error:
            reason = error
            time.sleep(min(0.2, left))
    raise UserError(
        f"--coordinator={coordinator} does not answer within {timeout:.0f} s"
        f" ({(reason and reason.strerror) or reason}): start process 0 there, or correct the address"
    )


def _give_up(where: str, timeout: float) -> None:
    print(
        f"error: {where}: not all processes of the run have come together within {timeout} s: start them all, with the"
        " same --num_processes and each with its own --process_id",
        file=sys.stderr,
    )
    leave_now(_USER_ERROR)


def agree_on(topic: str, values: Mapping[str, Any]) -> None:
    """Raises the same UserError in all processes if values that must be equal are not; all have to call it.

    Args:
        topic: what it is about; once a run.
        values: JSON values by the name that a user knows them by.
    """
    if _group is None:
        return
    folder = f"bert_jax/agree/{topic}"
    ours = {name: _short(value) for name, value in values.items()}
    _group.client.key_value_set(f"{folder}/{_group.index}", json.dumps(ours))
    if _group.index == 0:
        differences = (
            _difference(ours, json.loads(wait_for(f"{folder}/{index}", f"process {index}")), index)
            for index in range(1, _group.count)
        )
        _group.client.key_value_set(f"{folder}/verdict", next(filter(None, differences), "equal"))
    verdict = wait_for(f"{folder}/verdict", "process 0")
    if verdict != "equal":
        raise UserError(verdict)


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= _LONGEST_VALUE_SHOWN else "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _difference(ours: Mapping[str, str], theirs: Mapping[str, str], index: int) -> str:
    names = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    if not names:
        return ""

    def show(name: str) -> str:
        pair = ours.get(name, "nothing"), theirs.get(name, "nothing")
        return name if any(value.startswith("sha256:") for value in pair) else f"{name} ({pair[0]} and {pair[1]})"

    return f"processes 0 and {index} differ in {', '.join(map(show, names))}: start all of them with the same"


def wait_for(key: str, whose: str) -> str:
    """Returns what a process has set in the coordination service's store, once it has; a UserError if it does not.

    Args:
        key: of the store.
        whose: the process that sets it, for the message.
    """
    import jax

    try:
        return _group.client.blocking_key_value_get(key, int(1000 * _group.timeout))
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"{whose} does not answer: {_first_line(error)}; start all processes again") from error


def await_all(point: str) -> None:
    """Returns when all processes of the run have come here; to be called before the first step.

    Compiling and the first batch may take one process much longer than another, and the first collective on CPUs has
    the patience of half a minute (that of Gloo, fixed in XLA).

    Args:
        point: where; named once a start of the run.
    """
    if _group is not None:
        _group.client.wait_at_barrier(f"bert_jax/{point}", int(1000 * _group.timeout))


def end_process(code: int, line: str) -> None:
    """Ends this process at once if it is one of several, and tells the others why; they end as well.

    Without this, they would wait for it in their next collective until its heartbeat is missed, and JAX's own exit
    would wait for them.

    Args:
        code: the exit code, of all.
        line: the reason, which is already printed here.
    """
    if _group is None:
        return
    _group.leaving.set()
    _say_farewell(code, line)
    leave_now(code)


@contextlib.contextmanager
def ending_with_the_others() -> Iterator[None]:
    """Ends this process where a collective fails because another one was lost, and says so.

    Not every loss shows like this: on most devices a collective waits, until the heartbeat is missed.
    """
    if _group is None:
        yield
        return
    try:
        yield
    except Exception as error:
        if not _tells_of_a_loss(error):
            raise
        line = (
            f"another process of the run was lost ({_first_line(error)[:200]}): start all of them again; the run goes"
            " on from its last checkpoint"
        )
        print(f"error: {line}", file=sys.stderr)
        end_process(_FAILED, line)


def _tells_of_a_loss(error: BaseException | None) -> bool:
    """Whether an error, or one that it came of, is what a collective ends with whose other side is gone."""
    import jax

    while error is not None and not isinstance(error, UserError | TrainingError):
        text = str(error)
        # Gloo's come as errors of JAX's, and as ValueErrors too, by the way that they were found.
        if _GLOO.search(text):
            return True
        if isinstance(error, jax.errors.JaxRuntimeError):
            return not text.startswith(_OUR_OWN)
        error = error.__cause__ or error.__context__
    return False


def _silence_garbage_collection() -> None:
    """Keeps the reason the last line: what libraries have left open is remarked on whenever it is collected."""
    sys.unraisablehook = lambda _: None


def _say_farewell(code: int, line: str) -> None:
    import jax

    _silence_garbage_collection()
    try:
        record = json.dumps({"code": code, "line": line})
        _group.client.key_value_set(f"{_ENDED}/{_group.index}", record, allow_overwrite=True)
        deadline = time.monotonic() + _FAREWELL_SECONDS
        while _group.index == 0 and time.monotonic() < deadline:
            if len(_group.client.key_value_dir_get(_ENDED)) == _group.count:
                return
            time.sleep(0.1)
    except jax.errors.JaxRuntimeError:
        # Process 0 is gone, and its store with it.
        return


def _watch(group: ProcessGroup) -> None:
    """Ends this process when another one has failed."""
    import jax

    while not group.leaving.wait(_POLL_SECONDS):
        try:
            entries = group.client.key_value_dir_get(_ENDED)
        except jax.errors.JaxRuntimeError:
            # Process 0 is gone; JAX's own watch ends this process.
            return
        if not entries or group.leaving.is_set():
            continue
        key, value = min(entries)
        record = json.loads(value)
        _silence_garbage_collection()
        print(f"error: process {key.rpartition('/')[2]} ended the run: {record['line']}", file=sys.stderr)
        _say_farewell(record["code"], record["line"])
        leave_now(record["code"])


def leave_now(code: int) -> None:
    """Ends the process without the interpreter's exit, and JAX's, which waits for the others of a run."""
    for stream in (sys.stdout, sys.stderr):
        # Its reader may be gone.
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
