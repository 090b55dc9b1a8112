"""Signals become requests, and only within the block that listens."""

import os
import signal

import pytest

from bert_jax.training.interruption import listen_for_stop


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_is_a_request(number, code):
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    with listen_for_stop() as stop:
        assert stop.signal is None
        os.kill(os.getpid(), number)
        assert stop.signal is number and stop.exit_code == code
    assert {one: signal.getsignal(one) for one in before} == before


def test_a_second_interrupt_does_not_wait():
    with pytest.raises(KeyboardInterrupt), listen_for_stop():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_a_second_termination_still_waits():
    with listen_for_stop() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal is signal.SIGTERM


def test_handlers_come_back_after_an_error():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), listen_for_stop():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGTERM) is before
