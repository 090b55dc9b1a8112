"""A loop whose first task fails waits for the others before it closes."""

import asyncio

import pytest

from bert_jax.training.event_loops import patient_event_loops


def _run(coroutine) -> None:
    # As orbax does.
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(coroutine)
    finally:
        loop.close()


def test_a_loop_closes_after_its_tasks(recwarn):
    ended = []

    async def slow(seconds: float) -> None:
        await asyncio.sleep(seconds)
        ended.append(seconds)
        raise ValueError("another one that nobody asks for")

    async def fail() -> None:
        raise KeyError("first")

    async def both() -> None:
        await asyncio.gather(slow(0.02), slow(0.05), fail())

    with patient_event_loops(), pytest.raises(KeyError):
        _run(both())
    assert ended == [0.02, 0.05]
    with pytest.raises(KeyError):
        _run(both())
    assert ended == [0.02, 0.05]


def test_the_policy_before_comes_back():
    before = asyncio.get_event_loop_policy()
    with pytest.raises(ZeroDivisionError), patient_event_loops():
        assert asyncio.get_event_loop_policy() is not before
        raise ZeroDivisionError
    assert asyncio.get_event_loop_policy() is before
