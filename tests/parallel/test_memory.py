"""What does not fit into memory is said in bytes before it is made, and what ran out of memory in one line."""

import errno
import subprocess
import sys
import types

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from bert_jax.errors import UserError
from bert_jax.parallel import memory
from bert_jax.parallel.memory import Need, check_bytes, check_memory, check_step, describe_shortage, size_text

_FLOATS = jax.ShapeDtypeStruct((1000,), np.float32)
_HALVES = jax.ShapeDtypeStruct((1000,), jax.numpy.bfloat16)


@pytest.fixture
def machine(monkeypatch):
    """Gives the machine so much memory."""
    return lambda number: monkeypatch.setattr(memory, "host_memory", lambda: number)


def devices(number, platform="cpu", **stats):
    return [types.SimpleNamespace(platform=platform, memory_stats=lambda: stats or None) for _ in range(number)]


def test_what_fits_says_nothing_and_a_byte_more_is_refused(machine):
    needs = [Need("parameters", {"a": _FLOATS, "b": _FLOATS}, "lower this"), Need("a batch", _HALVES, "lower that")]
    machine(10_000)
    check_memory(needs)
    machine(9_999)
    with pytest.raises(UserError) as refused:
        check_memory(needs)
    assert str(refused.value) == (
        "not enough memory: 9.8 KiB are needed (parameters 7.8 KiB, a batch 2.0 KiB), and the memory of the machine"
        " has 9.8 KiB: lower this"
    )


def test_the_remedy_is_that_of_the_largest(machine):
    machine(10)
    needs = [
        Need("parameters", _HALVES, "lower this"),
        Need("nothing", None, ""),
        Need("a batch", _FLOATS, "lower that"),
    ]
    with pytest.raises(UserError, match=r"parameters 2.0 KiB, a batch 3.9 KiB\), .*: lower that"):
        check_memory(needs)


def test_sizes_beyond_any_machine_are_counted(machine):
    machine(2**40)
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))
    rows = jax.ShapeDtypeStruct((10**30, 128), np.int32, sharding=NamedSharding(mesh, PartitionSpec("data")))
    with pytest.raises(UserError, match="EiB"):
        check_memory([Need("a batch", rows, "lower it")])


def test_devices_of_a_cpu_share_the_machine(machine):
    machine(100)
    check_bytes(50, devices(2), "x", "y")
    with pytest.raises(
        UserError, match=r"51 bytes are needed on each of 2 devices \(x\), .* the machine has 100 bytes: y"
    ):
        check_bytes(51, devices(2), "x", "y")


def test_accelerators_say_what_they_have():
    check_bytes(100, devices(8, "gpu", bytes_limit=100), "x", "y")
    with pytest.raises(UserError, match=r"101 bytes are needed \(x\), and the memory of a device has 100 bytes: y"):
        check_bytes(101, devices(8, "gpu", bytes_limit=100), "x", "y")
    # Some say nothing.
    check_bytes(2**80, devices(1, "tpu"), "x", "y")


def test_a_step_needs_what_its_compiler_has_planned(machine):
    analysis = types.SimpleNamespace(
        argument_size_in_bytes=60, output_size_in_bytes=50, alias_size_in_bytes=50, temp_size_in_bytes=40
    )
    step = types.SimpleNamespace(memory_analysis=lambda: analysis)
    machine(100)
    check_step(step, devices(1), "y")
    machine(99)
    with pytest.raises(UserError, match=r"100 bytes .*\(state and batch 60 bytes, within a step 40 bytes\)"):
        check_step(step, devices(1), "y")


def test_this_machine_has_memory_and_a_limit_of_the_process_counts(monkeypatch):
    there = memory.host_memory()
    assert there is None or there > 2**26
    monkeypatch.setattr(memory.resource, "getrlimit", lambda which: (12345, 12345))
    assert memory.host_memory() == 12345


def test_a_container_has_what_it_is_given(monkeypatch, tmp_path):
    for text, expected in (("1000\n", 1000), ("max\n", None)):
        (tmp_path / "memory.max").write_text(text)
        monkeypatch.setattr(memory, "_CGROUP_LIMITS", (tmp_path / "memory.max", tmp_path / "absent"))
        monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "absent")
        monkeypatch.setattr(memory.resource, "getrlimit", lambda which: (memory.resource.RLIM_INFINITY,) * 2)
        assert memory.host_memory() == expected


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (3 * 2**29, "1.5 GiB"), (2**75, "32,768.0 EiB")],
)
def test_sizes_are_written_for_people(number, text):
    assert size_text(number) == text


def test_running_out_of_memory_is_one_line_that_names_the_bytes():
    with pytest.raises(MemoryError) as of_numpy:
        np.empty(2**60, np.int8)
    exhausted = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123456 bytes.\nmore")
    for error, named in (
        (of_numpy.value, "Unable to allocate 1.00 EiB"),
        (exhausted, "(Out of memory allocating 123456 bytes. more)"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "Cannot allocate memory"),
        (MemoryError(), "out of memory: lower"),
    ):
        line = describe_shortage(error)
        assert named in line and "lower the batch size" in line and "\n" not in line


@pytest.mark.parametrize(
    "error",
    [
        ValueError("RESOURCE_EXHAUSTED"),
        RuntimeError("INTERNAL: else"),
        OSError(errno.ENOSPC, "No space"),
        KeyError("a"),
    ],
    ids=repr,
)
def test_other_errors_are_not_shortages(error):
    assert describe_shortage(error) is None


def test_no_jax_is_needed_to_say_so(repository_root):
    code = "import sys, bert_jax.parallel.memory as m; m.describe_shortage(MemoryError()); print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=repository_root, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
