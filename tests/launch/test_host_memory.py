"""Freed memory is used again without asking the system for every page."""

import subprocess
import sys

import pytest

from launch.host_memory import keep_freed_memory

# Prints whether memory is kept, and the page faults of writing to 64 MiB, in a thread, a second time.
_PROGRAM = """
import resource, sys, threading
from launch.host_memory import keep_freed_memory

kept = sys.argv[1] == "keep" and keep_freed_memory()
faults = []

def work():
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        block = bytearray(64 << 20)
        block[:: 4096] = bytes([1]) * len(block[:: 4096])
        del block
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

thread = threading.Thread(target=work)
thread.start()
thread.join()
print(kept, faults[1])
"""


def _faults(repository_root, monkeypatch, what, platforms="cpu"):
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    arguments = [sys.executable, "-c", _PROGRAM, what]
    finished = subprocess.run(arguments, cwd=repository_root, capture_output=True, text=True, check=True)
    kept, faults = finished.stdout.split()
    return kept == "True", int(faults)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="is about glibc's malloc")
def test_freed_memory_is_kept(repository_root, monkeypatch):
    kept, faults = _faults(repository_root, monkeypatch, "keep")
    if not kept:
        pytest.skip("is about glibc's malloc")
    _, otherwise = _faults(repository_root, monkeypatch, "do not")
    # 64 MiB are 16,384 pages of 4 KiB.
    assert faults < 200 and otherwise > 10 * faults + 30


def test_beside_an_accelerator_nothing_is_kept(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    assert not keep_freed_memory()
