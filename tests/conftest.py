"""Fixtures for every test: real data beside the repository, programs compiled once for all runs, and small batches."""

import contextlib
import os
import pathlib
import resource
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """Lets all tests, their subprocesses and the next run share compiled programs, and compiles them faster.

    JAX reads these variables when it is imported; what the caller has set is kept. Level 1 of LLVM halves the time that
    small programs take to compile, and they run no slower.
    """
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")
    cache = getattr(config, "cache", None)
    if cache is not None:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache.mkdir("jax")))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


@pytest.fixture(scope="session")
def repository_root() -> pathlib.Path:
    """The folder that holds bert_jax, launch and tests; subprocesses run in it."""
    return _ROOT


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """The folder of real data and reference results; tests that ask for it are skipped where it is absent."""
    data = pathlib.Path(os.environ.get("BERT_JAX_SHARED") or _ROOT.parent / "shared") / "data"
    if not data.is_dir():
        pytest.skip(f"needs the shared data folder: no {data} (or set BERT_JAX_SHARED)")
    return data


@pytest.fixture(scope="session")
def short_files() -> Callable[[int], contextlib.AbstractContextManager[None]]:
    """Makes a context in which no file can get more than so many bytes, whoever writes it: a disk that is full."""

    @contextlib.contextmanager
    def limit(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limit


class Pair(NamedTuple):
    """A masked sentence pair: `[CLS] A [SEP] B [SEP]` with some ids replaced, and what was there before."""

    ids: np.ndarray
    first_length: int
    label: int
    masked: dict[int, int]


@pytest.fixture(scope="session")
def random_pairs():
    """Makes pairs of random ids, some of them masked."""

    def make(number: int, vocab_size: int, *, seed: int = 0, lengths: tuple[int, int] = (6, 12)) -> list[Pair]:
        random = np.random.default_rng(seed)
        pairs = []
        for _ in range(number):
            length = int(random.integers(lengths[0], lengths[1] + 1))
            ids = random.integers(5, vocab_size, length)
            first_length = int(random.integers(3, length - 2))
            ids[[0, first_length - 1, -1]] = 2, 3, 3
            places = random.choice(np.flatnonzero(ids > 3), int(random.integers(1, 4)), replace=False)
            masked = {int(place): int(ids[place]) for place in sorted(places)}
            ids[list(masked)] = 4
            pairs.append(Pair(ids, first_length, int(random.integers(2)), masked))
        return pairs

    return make


@pytest.fixture(scope="session")
def lay_out():
    """Lays rows of pairs out as a pre-training batch, pair by pair and token by token."""

    def make(rows: Sequence[Sequence[Pair]], length: int, predictions: int, max_pairs: int) -> dict[str, np.ndarray]:
        by_token, by_prediction = (len(rows), length), (len(rows), predictions)
        names = ("input_ids", "token_type_ids", "position_ids", "segment_ids")
        batch = {name: np.zeros(by_token, np.int32) for name in names}
        batch |= {name: np.zeros(by_prediction, np.int32) for name in ("masked_positions", "masked_ids")}
        batch |= {
            name: np.zeros((len(rows), max_pairs), np.int32) for name in ("cls_positions", "next_sentence_labels")
        }
        batch["masked_weights"] = np.zeros(by_prediction, np.float32)
        batch["next_sentence_weights"] = np.zeros((len(rows), max_pairs), np.float32)
        for row, pairs in enumerate(rows):
            start = prediction = 0
            for number, pair in enumerate(pairs):
                batch["cls_positions"][row, number] = start
                batch["next_sentence_labels"][row, number] = pair.label
                batch["next_sentence_weights"][row, number] = 1
                for position, token in enumerate(pair.ids):
                    batch["input_ids"][row, start + position] = token
                    batch["token_type_ids"][row, start + position] = position >= pair.first_length
                    batch["position_ids"][row, start + position] = position
                    batch["segment_ids"][row, start + position] = number + 1
                for position, token in pair.masked.items():
                    batch["masked_positions"][row, prediction] = start + position
                    batch["masked_ids"][row, prediction] = token
                    batch["masked_weights"][row, prediction] = 1
                    prediction += 1
                start += len(pair.ids)
        return batch

    return make
