"""Memory that tensorstore keeps at each call that turns JSON into Python values; orbax calls both for each save.

Prints the growth of the process, in bytes a call, of two calls of tensorstore that return such values, and of one that
takes them, for comparison. Example: python -m benchmarks.faults.tensorstore_growth
"""

import gc
from collections.abc import Callable

import tensorstore


def _resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def growth(call: Callable[[], object], calls: int) -> float:
    """Returns by how many bytes a call the process grows, after it has warmed up."""
    for _ in range(calls // 10):
        call()
    gc.collect()
    before = _resident_bytes()
    for _ in range(calls):
        call()
    gc.collect()
    return (_resident_bytes() - before) / calls


def main() -> None:
    """Prints a line for each call."""
    values = {"driver": "file", "path": "/tmp/"}
    spec = tensorstore.KvStore.Spec(values)
    metrics = tensorstore.experimental_collect_matching_metrics
    for name, call, calls in (
        ("KvStore.Spec(values).to_json()", spec.to_json, 20_000),
        ("experimental_collect_matching_metrics", lambda: metrics("/tensorstore/"), 2_000),
        ("KvStore.Spec(values)", lambda: tensorstore.KvStore.Spec(values), 20_000),
    ):
        print(f"{name:<42}{growth(call, calls):>8.0f} bytes a call", flush=True)


if __name__ == "__main__":
    main()
