"""How processes are found, meet and agree: the coordination service is a dict here, and the processes are threads."""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time

import jax
import pytest

from bert_jax.errors import TrainingError, UserError
from bert_jax.parallel import processes
from bert_jax.parallel.cluster import find_cluster
from bert_jax.parallel.processes import (
    ProcessGroup,
    agree_on,
    ending_with_the_others,
    is_main,
    process_group,
    start_processes,
)
from bert_jax.parallel.shared_folder import agree_on_folder
from bert_jax.parallel.stop_agreement import StopAgreement

_SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
}


class Service:
    """The key-value store that JAX's coordination service is, for threads."""

    def __init__(self):
        self._values: dict[str, str] = {}
        self._changed = threading.Condition()

    def key_value_set(self, key: str, value: str, allow_overwrite: bool = False) -> None:
        with self._changed:
            assert allow_overwrite or key not in self._values
            self._values[key] = value
            self._changed.notify_all()

    def key_value_dir_get(self, folder: str) -> list[tuple[str, str]]:
        with self._changed:
            return [(key, value) for key, value in self._values.items() if key.startswith(folder + "/")]

    def blocking_key_value_get(self, key: str, timeout_in_ms: int) -> str:
        with self._changed:
            if not self._changed.wait_for(lambda: key in self._values, timeout_in_ms / 1000):
                raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: " + key)
            return self._values[key]


@pytest.mark.parametrize(
    ("environment", "cluster"),
    [
        ({}, None),
        ({"JAX_COORDINATOR_ADDRESS": "host:1"}, "JAX_COORDINATOR_ADDRESS"),
        (_SLURM, "SLURM"),
        ({**_SLURM, "SLURM_NTASKS": "1"}, None),
        ({name: value for name, value in _SLURM.items() if name != "SLURM_PROCID"}, None),
        ({"OMPI_MCA_orte_hnp_uri": "1.0;tcp://a:1", "OMPI_COMM_WORLD_SIZE": "4"}, "Open MPI"),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, "Cloud TPU"),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, None),
        ({"TPU_PROCESS_ADDRESSES": "a:1,b:1", "TPU_WORKER_HOSTNAMES": "a"}, "Cloud TPU"),
        ({"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"}, "Cloud TPU"),
    ],
)
def test_a_cluster_is_told_by_its_environment(environment, cluster):
    assert find_cluster(environment, read_attribute=lambda name: None) == cluster


@pytest.mark.parametrize(
    ("attributes", "cluster"),
    [
        ({}, None),
        ({"worker-network-endpoints": "unknown:0:10.0.0.1"}, None),
        ({"worker-network-endpoints": "unknown:0:10.0.0.1,unknown:1:10.0.0.2"}, "Cloud TPU"),
        ({"worker-network-endpoints": "a:0:10.0.0.1", "tpu-env": "MEGASCALE_NUM_SLICES: '2'"}, "Cloud TPU"),
    ],
)
def test_a_tpu_machine_is_told_by_its_metadata(attributes, cluster):
    assert find_cluster({}, attributes.get) == cluster


def test_a_lone_machine_asks_nobody(monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", lambda *args, **others: pytest.fail("asked a server"))
    for name in (*_SLURM, "JAX_COORDINATOR_ADDRESS", "TPU_WORKER_HOSTNAMES", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("bert_jax.parallel.cluster._has_tpus", lambda: False)
    start_processes()
    assert process_group() is None and is_main()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("host:1", 2, None), "--process_id missing"),
        ((None, 2, 0), "--coordinator missing"),
        (("host", 2, 0), "--coordinator=host: must be HOST:PORT"),
        (("host:port", 2, 0), "must be HOST:PORT"),
        (("host:1", 0, 0), "--num_processes=0: must be at least 1"),
        (("host:1", 2, 2), "--process_id=2: must be from 0 to 1"),
    ],
)
def test_flags_that_make_no_sense(arguments, message):
    with pytest.raises(UserError) as error:
        start_processes(*arguments)
    assert message in str(error.value) and "\n" not in str(error.value)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def test_a_coordinator_that_does_not_answer():
    coordinator = f"localhost:{_free_port()}"
    with pytest.raises(UserError, match=f"--coordinator={coordinator} does not answer within 1 s"):
        start_processes(coordinator, 2, 1, coordinator_timeout=1)
    assert process_group() is None


def test_a_coordinator_whose_port_is_taken():
    with socket.socket() as listener:
        listener.bind(("", 0))
        listener.listen()
        with pytest.raises(UserError, match="cannot use the port: Address already in use"):
            start_processes(f"localhost:{listener.getsockname()[1]}", 2, 0, coordinator_timeout=1)


def _as_group(monkeypatch, count: int, work) -> list:
    """Runs work(index) in a thread for each process; returns what they returned, or the UserErrors."""
    service, here = Service(), threading.local()

    class Group:
        """The group that each thread sees as its own."""

        def __getattr__(self, name):
            return getattr(here.group, name)

    monkeypatch.setattr(processes, "_group", Group())
    results: list = [None] * count

    def run(index: int) -> None:
        here.group = ProcessGroup(service, index, count, timeout=10)
        try:
            results[index] = work(index)
        except UserError as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_what_is_equal_is_agreed_on(monkeypatch):
    values = {"--mesh": "data:-1", "gin": "x" * 1000, "steps": 7, "phases": [[1, 2], None]}
    assert _as_group(monkeypatch, 3, lambda index: agree_on("start", values)) == [None] * 3


def test_a_difference_is_named_by_all(monkeypatch):
    def work(index: int) -> None:
        agree_on("start", {"--mesh": "data:4", "steps": 7 + (index == 2), "gin": "x" * 100 + str(index // 2)})

    errors = _as_group(monkeypatch, 3, work)
    assert {str(error) for error in errors} == {
        "processes 0 and 2 differ in steps (7 and 8), gin: start all of them with the same"
    }


def test_alone_there_is_nobody_to_agree_with(tmp_path):
    agree_on("start", {"any": 1})
    agree_on_folder("--workdir", tmp_path)
    assert os.listdir(tmp_path) == []


def test_one_folder_is_the_same_by_any_path(monkeypatch, tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").symlink_to("here")
    paths = [tmp_path / "here", tmp_path / "there", tmp_path / "there/../here"]
    assert _as_group(monkeypatch, 3, lambda index: agree_on_folder("--workdir", paths[index])) == [None] * 3
    assert os.listdir(tmp_path / "here") == []


def test_folders_that_are_not_one_are_named_by_all(monkeypatch, tmp_path):
    """Even where both are new and empty, and of the same name."""
    paths = [tmp_path / machine / "run" for machine in "aab"]
    for path in paths:
        path.mkdir(parents=True, exist_ok=True)
    errors = _as_group(monkeypatch, 3, lambda index: agree_on_folder("--workdir", paths[index], 0.3))
    assert {str(error) for error in errors} == {
        f"--workdir must be one folder that all processes share: {paths[2]} in process 2 is not {paths[0]} in process"
        " 0; give the same to all"
    }
    assert not list(tmp_path.rglob(".*"))


def test_a_folder_that_process_0_cannot_write_ends_all(monkeypatch, tmp_path):
    paths = [tmp_path / "nowhere", tmp_path]
    errors = _as_group(monkeypatch, 2, lambda index: agree_on_folder("--workdir", paths[index], 0.3))
    (line,) = {str(error) for error in errors}
    assert line.startswith("--workdir cannot be written in process 0: No such file or directory")


def _caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


_GLOO = "UNKNOWN: Gloo all-reduce failed: [gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1"


@pytest.mark.parametrize(
    ("error", "is_lost"),
    [
        (jax.errors.JaxRuntimeError("INTERNAL: a collective failed"), True),
        (ValueError(_GLOO), True),
        (_caused(ValueError("cannot save"), ValueError(_GLOO)), True),
        (_caused(RuntimeError("cannot save"), jax.errors.JaxRuntimeError("UNAVAILABLE")), True),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory"), False),
        (jax.errors.JaxRuntimeError("INVALID_ARGUMENT: a program that cannot be compiled"), False),
        (OSError("cannot read /data/igloo/rows"), False),
        (ValueError("shapes do not fit"), False),
        (_caused(UserError("a checkpoint is damaged"), jax.errors.JaxRuntimeError("DATA_LOSS")), False),
        (_caused(TrainingError("not finite"), ValueError(_GLOO)), False),
    ],
    ids=str,
)
def test_the_end_of_another_process_is_one_line(monkeypatch, capsys, error, is_lost):
    codes = []
    monkeypatch.setattr(processes, "_group", ProcessGroup(Service(), 0, 2, timeout=1))
    monkeypatch.setattr(processes, "end_process", lambda code, line: codes.append(code))
    with contextlib.nullcontext() if is_lost else pytest.raises(type(error)), ending_with_the_others():
        raise error
    said = capsys.readouterr().err
    assert codes == [1] * is_lost
    assert said.count("\n") == is_lost and said.startswith("error: another process of the run was lost (" * is_lost)


@pytest.mark.parametrize("seed", range(3))
def test_all_stop_at_the_same_step(seed):
    """Processes that are at different steps, some in a long one, when a signal reaches one or two of them."""
    service, count = Service(), 4
    draw = random.Random(seed)
    pauses = [draw.uniform(0.001, 0.01) for _ in range(count)]
    signals = {draw.randrange(count): signal.SIGTERM, draw.randrange(count): signal.SIGINT}
    stopped: dict[int, tuple[int, int]] = {}
    last = [0] * count

    def run(index: int) -> None:
        agreement = StopAgreement(ProcessGroup(service, index, count, timeout=10))
        step = 100
        while (number := agreement.due(step)) is None:
            time.sleep(0.3 if index == 1 and step == 103 else pauses[index])
            step += 1
            # Like a collective: nobody is more than three steps ahead of another.
            last[index] = step
            while step > min(at for at in last if at) + 3 and not stopped:
                time.sleep(0.001)
            if step == 110 and index in signals:
                agreement.request(signals[index])
        stopped[index] = step, number
        agreement.close()

    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(stopped) == count and len(set(stopped.values())) == 1
    step, number = stopped[0]
    assert step > 110 and number in signals.values()


def test_a_signal_before_the_first_step_stops_there():
    service = Service()
    agreements = [StopAgreement(ProcessGroup(service, index, 2, timeout=10)) for index in range(2)]
    agreements[1].request(signal.SIGTERM)
    deadline = time.monotonic() + 20
    while not all(agreement._agreed for agreement in agreements) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [agreement.due(40) for agreement in agreements] == [signal.SIGTERM] * 2
    for agreement in agreements:
        agreement.close()


def test_who_has_finished_keeps_nobody_waiting():
    """A signal that comes when another process has done its last step; there is no later one to stop at."""
    service = Service()
    agreements = [StopAgreement(ProcessGroup(service, index, 2, timeout=10)) for index in range(2)]
    assert agreements[0].due(7) is None and agreements[1].due(6) is None
    agreements[0].close()
    agreements[1].request(signal.SIGTERM)
    deadline = time.monotonic() + 20
    while agreements[1]._agreed is None and time.monotonic() < deadline:
        time.sleep(0.01)
    began = time.monotonic()
    assert agreements[1].due(7) is None and time.monotonic() - began < 5
    agreements[1].close()


_SUPERVISED = """
import os, signal, sys, time
from bert_jax.parallel.supervisor import supervise
supervise()
print(os.getpid(), flush=True)
{work}
"""


def _supervised(root, work: str) -> subprocess.Popen:
    code = _SUPERVISED.format(work=textwrap.dedent(work))
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(
    ("work", "code", "message"),
    [
        ("sys.exit(3)", 3, ""),
        ("pass", 0, ""),
        ("os.abort()", 1, "error: another process of the run was lost"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 137, "error: this process of the run was ended by SIGKILL"),
    ],
)
def test_the_parent_has_the_last_word(repository_root, work, code, message):
    process = _supervised(repository_root, work)
    _, error = process.communicate(timeout=30)
    assert process.returncode == code
    assert error.startswith(message) and error.count("\n") == bool(message)


def test_signals_reach_the_child(repository_root):
    work = """
    signal.signal(signal.SIGTERM, lambda *arguments: sys.exit(143))
    print("ready", flush=True)
    time.sleep(30)
    """
    process = _supervised(repository_root, work)
    assert int(process.stdout.readline()) != process.pid and process.stdout.readline() == "ready\n"
    process.terminate()
    assert process.wait(timeout=20) == 143


def test_a_signal_right_after_the_fork_reaches_the_child(repository_root):
    """It comes to the parent before that can pass it on; it must not end the parent alone."""
    code = """
    import os, signal, time

    from bert_jax.parallel.supervisor import supervise

    fork = os.fork

    def fork_and_be_terminated():
        child = fork()
        if child:
            os.kill(os.getpid(), signal.SIGTERM)
        return child

    os.fork = fork_and_be_terminated
    supervise()
    time.sleep(30)
    """
    finished = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=repository_root, timeout=20)
    assert finished.returncode == 128 + signal.SIGTERM


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_a_killed_parent_takes_the_child_with_it(repository_root):
    process = _supervised(repository_root, "time.sleep(60)")
    assert int(process.stdout.readline()) != process.pid
    began = time.monotonic()
    process.kill()
    # The pipe ends when nobody holds it any more; the child would for a minute.
    assert process.stdout.read() == "" and time.monotonic() - began < 30
    process.wait()


def test_a_failure_is_told_to_the_others(monkeypatch, capsys):
    """The watch of process 1 ends it with the code and the reason of process 0."""
    service = Service()
    service.key_value_set("bert_jax/ended/0", json.dumps({"code": 2, "line": "cannot write a file"}))
    group = ProcessGroup(service, 1, 2, timeout=10)
    monkeypatch.setattr(processes, "_group", group)
    monkeypatch.setattr(processes, "_POLL_SECONDS", 0.01)
    codes: list[int] = []

    def leave(code: int) -> None:
        codes.append(code)
        group.leaving.set()

    monkeypatch.setattr(processes, "leave_now", leave)
    processes._watch(group)
    assert codes == [2]
    assert capsys.readouterr().err == "error: process 0 ended the run: cannot write a file\n"
    assert [key for key, _ in service.key_value_dir_get("bert_jax/ended")] == ["bert_jax/ended/0", "bert_jax/ended/1"]
