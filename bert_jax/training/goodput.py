"""Where the time of a run goes: the share that trains (goodput), and how much of the devices' peak that uses (MFU).

At every moment a run does one thing of a few kinds, so that the seconds of all kinds add up to those that have passed.
The host's clock is read at its own switches from one kind to another; no device is waited for. Times add up over the
starts of a run: they are kept in its checkpoints. What happened after the last checkpoint of a process that was killed
is in none, nor is the time in which no process ran.

MFU (Chowdhery et al. 2022, section 4.1) is the seconds that the steps' arithmetic alone would take at the devices'
peak, as flops.py counts both, over the seconds that the steps took, waiting for data included.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping

COMPILING, DATA, STEPPING = "compiling", "waiting_for_data", "stepping"
EVALUATING, CHECKPOINTING, OTHER = "evaluating", "checkpointing", "other"
# OTHER is what comes before the first compilation and after the last step: imports, files, the initial state, curves.
KINDS = (COMPILING, DATA, STEPPING, EVALUATING, CHECKPOINTING, OTHER)

# The split of the log whose lines hold the times so far; there is one before every checkpoint.
SPLIT = "goodput"
# All names in metrics.jsonl whose values the clock decides: two runs of the same losses differ in them.
CLOCK_METRICS = frozenset(
    {"tokens_per_second", "train_seconds", "mfu", "goodput", *(f"{kind}_seconds" for kind in KINDS)}
)


class Goodput:
    """Seconds by kind, of this process and of those that trained the same run before it."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        """Begins with OTHER."""
        self._clock = clock
        self._seconds = dict.fromkeys(KINDS, 0.0)
        self._kind, self._since = OTHER, clock()
        # Of steps on devices whose peak is known: what they took, and what their arithmetic alone would have.
        self._rated_seconds = self._arithmetic_seconds = 0.0

    @contextlib.contextmanager
    def measure(self, kind: str) -> Iterator[None]:
        """Counts what happens inside as of this kind, and not as of the kind around it."""
        around = self._kind
        self._switch(kind)
        try:
            yield
        finally:
            self._switch(around)

    def reclassify(self, kind: str) -> None:
        """Counts what has happened since the last switch as of another kind."""
        self._kind = kind

    def _switch(self, kind: str) -> None:
        now = self._clock()
        self._seconds[self._kind] += now - self._since
        self._kind, self._since = kind, now

    def add_step(self, seconds: float, arithmetic_seconds: float | None) -> float | None:
        """Counts a step into the run's MFU and returns the step's own; None where the devices' peak is not known.

        Args:
            seconds: that it took.
            arithmetic_seconds: that its arithmetic would take at the devices' peak, or None.
        """
        if arithmetic_seconds is None:
            return None
        self._rated_seconds += seconds
        self._arithmetic_seconds += arithmetic_seconds
        return arithmetic_seconds / seconds

    def to_json(self) -> dict[str, float]:
        """Returns what a checkpoint keeps, for `add`."""
        self._switch(self._kind)
        return {**self._seconds, "rated": self._rated_seconds, "arithmetic": self._arithmetic_seconds}

    def add(self, earlier: Mapping[str, float]) -> None:
        """Adds the times of the starts before this one; kinds that are not known are left out."""
        for kind in KINDS:
            self._seconds[kind] += earlier.get(kind, 0.0)
        self._rated_seconds += earlier.get("rated", 0.0)
        self._arithmetic_seconds += earlier.get("arithmetic", 0.0)

    def metrics(self) -> dict[str, float]:
        """Returns the values of a line of the log: seconds by kind, the share that is stepping, and MFU if known."""
        self._switch(self._kind)
        values = {f"{kind}_seconds": self._seconds[kind] for kind in KINDS}
        values["goodput"] = self._seconds[STEPPING] / max(sum(self._seconds.values()), 1e-9)
        if self._rated_seconds:
            values["mfu"] = self._arithmetic_seconds / self._rated_seconds
        return values

    def describe(self) -> str:
        """Says the same in a line for people."""
        values = self.metrics()
        seconds = ", ".join(f"{kind.replace('_', ' ')} {_duration(values[f'{kind}_seconds'])}" for kind in KINDS)
        mfu = f"; MFU {values['mfu']:.1%}" if "mfu" in values else ""
        return f"goodput {values['goodput']:.1%}: {seconds}{mfu}"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02} h" if hours else f"{minutes}:{seconds:02} min"
