"""Freed memory is used again without asking the system for every page."""

import subprocess
import sys

import pytest

from launch.host_memory import keep_freed_memory

# Prints whether memory is kept, and the page faults of a program that is called for the sixth time. Blocks of 36 MB are
# more than glibc ever keeps of its own accord.
_PROGRAM = """
import resource, sys
from launch.host_memory import keep_freed_memory

kept = sys.argv[1] == "keep" and keep_freed_memory()
import jax
import jax.numpy as jnp

matrix = jnp.ones((3000, 3000))
product = jax.jit(lambda matrix: jnp.sum(jnp.tanh(matrix @ matrix) @ matrix))
for _ in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    product(matrix).block_until_ready()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(kept, faults)
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
    # 36 MB are 8,790 pages of 4 KiB, and 17 of 2 MiB.
    assert otherwise > 16 and faults < otherwise / 100


def test_beside_an_accelerator_nothing_is_kept(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    assert not keep_freed_memory()
