"""Signals that ask a run to stop: it finishes the step, saves, and exits, in all of its processes."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

HANDLED = (signal.SIGTERM, signal.SIGINT)


class Agreement(Protocol):
    """What makes several processes stop at the same step; see `bert_jax.parallel.stop_agreement`."""

    def request(self, number: int) -> None:
        """Asks all processes to stop."""

    def due(self, step: int) -> int | None:
        """Returns the signal if all stop after `step` steps."""

    def close(self) -> None:
        """Stops listening."""


class StopRequest:
    """Whether somebody asked the run to stop, and by which signal.

    Attributes:
        signal: which, once the run is to stop.
    """

    def __init__(self, agreement: Agreement | None = None):
        """Nobody has, so far.

        Args:
            agreement: with the other processes of the run.
        """
        self.signal: signal.Signals | None = None
        self._agreement = agreement
        self._received: int | None = None

    def receive(self, number: int) -> None:
        """Takes a signal; raises KeyboardInterrupt at the second SIGINT."""
        if self._received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._received = number
        if self._agreement:
            self._agreement.request(number)
        else:
            self.signal = signal.Signals(number)

    def due(self, step: int) -> bool:
        """Whether the run stops here, after `step` steps; to be asked before each step."""
        if self._agreement and (number := self._agreement.due(step)):
            self.signal = signal.Signals(number)
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """The conventional code of a process ended by the signal: 143 for SIGTERM, 130 for SIGINT."""
        return 128 + self.signal


@contextmanager
def listen_for_stop(agreement: Agreement | None = None) -> Iterator[StopRequest]:
    """Turns SIGTERM and SIGINT into a request; a second SIGINT interrupts at once.

    Args:
        agreement: with the other processes of the run, if there are any; closed at the end.
    """
    request = StopRequest(agreement)

    def handle(number: int, frame: FrameType | None) -> None:
        request.receive(number)

    previous = {number: signal.signal(number, handle) for number in HANDLED}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if agreement:
            agreement.close()
