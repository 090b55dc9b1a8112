"""Fixtures for every test: real data beside the repository, and programs that are compiled once for all runs."""

import os
import pathlib

import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """The folder of real data and reference results; tests that ask for it are skipped where it is absent."""
    data = pathlib.Path(os.environ.get("BERT_JAX_SHARED") or _ROOT.parent / "shared") / "data"
    if not data.is_dir():
        pytest.skip(f"needs the shared data folder: no {data} (or set BERT_JAX_SHARED)")
    return data


def pytest_configure(config: pytest.Config) -> None:
    """Lets all tests, their subprocesses and the next run share compiled programs.

    JAX reads these variables when it is imported; what the caller has set is kept.
    """
    cache = getattr(config, "cache", None)
    if cache is not None:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache.mkdir("jax")))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
