"""Which tasks a step is made of: every batch of every task, the same at any step however it is reached."""

import collections

import numpy as np
import pytest

from bert_jax.data.task_mixture import PROPORTIONAL, SUM, TaskMixture

_BATCHES = (30, 4, 11)


def test_with_sum_every_step_has_all_tasks_and_small_ones_come_round():
    mixture = TaskMixture(SUM, _BATCHES, seed=3)
    assert mixture.steps_per_epoch == 30
    for step in (0, 7, 95):
        assert mixture(step) == ((0, step), (1, step), (2, step))
    np.testing.assert_array_equal(mixture.shares, [1, 1, 1])


def test_in_proportion_each_batch_of_each_task_comes_once_an_epoch():
    mixture = TaskMixture(PROPORTIONAL, _BATCHES, seed=3)
    assert mixture.steps_per_epoch == 45
    orders = []
    for epoch in range(3):
        steps = [mixture(epoch * 45 + place) for place in range(45)]
        assert all(len(step) == 1 for step in steps)
        of_tasks = collections.defaultdict(list)
        for ((task, batch),) in steps:
            of_tasks[task].append(batch)
        # A task goes through its own batches in order: those of its own epoch, and no others.
        assert of_tasks == {
            task: list(range(epoch * count, (epoch + 1) * count)) for task, count in enumerate(_BATCHES)
        }
        orders.append([task for ((task, _),) in steps])
    assert orders[0] != orders[1] != orders[2]
    np.testing.assert_allclose(mixture.shares, [30 / 45, 4 / 45, 11 / 45])


def test_tasks_are_spread_over_the_epoch():
    tasks = [TaskMixture(PROPORTIONAL, (900, 100), seed=0)(step)[0][0] for step in range(1000)]
    for quarter in np.split(np.asarray(tasks), 4):
        assert 15 <= quarter.sum() <= 35


def test_a_step_does_not_depend_on_those_before_it():
    mixture = TaskMixture(PROPORTIONAL, _BATCHES, seed=3)
    through = [mixture(step) for step in range(100)]
    for step in (99, 3, 50):
        assert TaskMixture(PROPORTIONAL, _BATCHES, seed=3)(step) == through[step] == mixture(step)
    other = TaskMixture(PROPORTIONAL, _BATCHES, seed=4)
    assert [other(step) for step in range(100)] != through


def test_there_are_two_ways():
    with pytest.raises(ValueError, match="one of sum, proportional, not 'mean'"):
        TaskMixture("mean", _BATCHES, seed=0)
