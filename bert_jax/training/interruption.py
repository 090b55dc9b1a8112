"""Signals that ask a run to stop: it finishes the step, saves, and exits."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

HANDLED = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Whether somebody asked the run to stop, and by which signal."""

    def __init__(self):
        """Nobody has, so far."""
        self.signal: signal.Signals | None = None

    @property
    def exit_code(self) -> int:
        """The conventional code of a process ended by the signal: 143 for SIGTERM, 130 for SIGINT."""
        return 128 + self.signal


@contextmanager
def listen_for_stop() -> Iterator[StopRequest]:
    """Turns SIGTERM and SIGINT into a request; a second SIGINT interrupts at once."""
    request = StopRequest()

    def handle(number: int, frame: FrameType | None) -> None:
        if request.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.signal = signal.Signals(number)

    previous = {number: signal.signal(number, handle) for number in HANDLED}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
