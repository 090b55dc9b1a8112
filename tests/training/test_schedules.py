"""Learning rates at exact steps, against formulas written out by hand."""

import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.errors import UserError
from bert_jax.training import schedules
from bert_jax.training.recipe import PhaseRates, Schedule, Stretch, plan_learning_rate


def rates(schedule, learning_rate, total_steps, steps):
    function = schedules.build_schedule(schedule, learning_rate, total_steps)
    return np.array([function(step) for step in steps])


def google(step, peak, warmup, total, power=1.0, end=0.0):
    """google-research/bert, create_optimizer: polynomial decay of the global step, replaced during the warm-up."""
    if step < warmup:
        return peak * step / warmup
    return (peak - end) * (1 - min(step, total) / total) ** power + end


@pytest.mark.parametrize("warmup", [0, 1, 10, 100])
@pytest.mark.parametrize("power, end_factor", [(1.0, 0.0), (1.0, 0.25), (2.0, 0.0), (0.5, 0.1)])
def test_linear_and_polynomial_are_those_of_the_original(warmup, power, end_factor):
    kind = "linear" if power == 1 else "polynomial"
    schedule = Schedule(kind, warmup_steps=warmup, power=power, end_factor=end_factor)
    steps = range(121)
    expected = [google(step, 1e-3, warmup, 100, power, 1e-3 * end_factor) for step in steps]
    np.testing.assert_allclose(rates(schedule, 1e-3, 100, steps), expected, rtol=1e-5, atol=1e-10)


def test_linear_decays_from_step_zero_and_the_first_step_changes_nothing():
    first, last_warm, after, end = rates(Schedule("linear", warmup_steps=10), 1.0, 100, [0, 9, 10, 100])
    assert first == 0
    assert last_warm == pytest.approx(0.9)
    # Not 1.0: the way down is counted from the beginning of the run.
    assert after == pytest.approx(0.9)
    assert end == 0


def test_cosine_starts_down_from_the_peak_after_the_warmup():
    schedule = Schedule("cosine", warmup_steps=20, end_factor=0.1)
    got = rates(schedule, 2.0, 100, [10, 20, 60, 100, 1000])
    np.testing.assert_allclose(got, [1.0, 2.0, 1.1, 0.2, 0.2], rtol=1e-6)


def test_inverse_square_root():
    got = rates(Schedule("inverse_square_root", warmup_steps=16), 2.0, 400, [8, 16, 64, 256, 400, 500])
    np.testing.assert_allclose(got, [1.0, 2.0, 1.0, 0.5, 0.4, 0.4], rtol=1e-6)
    got = rates(Schedule("inverse_square_root"), 1.0, 100, [0, 1, 4])
    np.testing.assert_allclose(got, [1.0, 1.0, 0.5], rtol=1e-6)


def test_constant_and_fraction():
    schedule = Schedule("constant", warmup_fraction=0.1)
    np.testing.assert_allclose(rates(schedule, 3.0, 50, [0, 1, 5, 49, 99]), [0, 0.6, 3, 3, 3], rtol=1e-6)
    assert schedule.warmup(59) == 5


@pytest.mark.parametrize("kind", ["linear", "cosine", "inverse_square_root", "constant"])
@pytest.mark.parametrize("warmup", [0, 30])
def test_traced_steps_give_the_same_float32(kind, warmup):
    function = schedules.build_schedule(Schedule(kind, warmup_steps=warmup), 1e-4, 30)
    traced = jax.jit(function)(jnp.int32(7))
    assert traced.dtype == jnp.float32
    assert traced.shape == ()
    assert not traced.weak_type
    np.testing.assert_allclose(traced, function(7), rtol=1e-6)
    with jax.debug_nans(True):
        for step in (0, 29, 30, 31):
            assert math.isfinite(function(jnp.int32(step)))


def test_phases_without_rates_share_one_schedule():
    schedule = Schedule("linear", warmup_steps=10)
    phased = schedules.build_phased_schedule(schedule, 1e-3, [PhaseRates(90), PhaseRates(10)])
    single = schedules.build_schedule(schedule, 1e-3, 100)
    assert [float(phased(step)) for step in range(110)] == [float(single(step)) for step in range(110)]


def test_phases_with_rates_warm_up_again():
    # The shape of LAMB's 64k + 32k recipe, small.
    phases = [PhaseRates(80, 6e-3, 20), PhaseRates(40, 4e-3, 10)]
    function = schedules.build_phased_schedule(Schedule("linear"), 1.0, phases)
    steps = range(130)
    expected = [google(step, 6e-3, 20, 80) if step < 80 else google(step - 80, 4e-3, 10, 40) for step in steps]
    np.testing.assert_allclose([function(step) for step in steps], expected, rtol=1e-5, atol=1e-9)
    traced = jax.jit(jax.vmap(function))(jnp.arange(130))
    np.testing.assert_allclose(traced, expected, rtol=1e-5, atol=1e-9)


def test_plan_inherits_what_a_phase_does_not_give():
    schedule = Schedule("linear", warmup_steps=3)
    phases = [PhaseRates(10), PhaseRates(10), PhaseRates(20, 0.5), PhaseRates(5), PhaseRates(30, None, 0)]
    assert plan_learning_rate(schedule, 0.1, phases) == (
        Stretch(0, 20, 0.1, 3),
        Stretch(20, 25, 0.5, 3),
        Stretch(45, 30, 0.1, 0),
    )


def test_a_fraction_is_one_of_the_stretch_that_it_warms_up():
    plan = plan_learning_rate(Schedule(warmup_fraction=0.1), 1.0, [PhaseRates(60), PhaseRates(40), PhaseRates(50, 0.5)])
    assert [stretch.warmup_steps for stretch in plan] == [10, 5]


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: Schedule("exponential"), "linear, polynomial"),
        (lambda: Schedule(warmup_steps=-1), "warmup_steps"),
        (lambda: Schedule(warmup_steps=0.1), "whole number"),
        (lambda: Schedule(warmup_fraction=1.0), "below 1"),
        (lambda: Schedule(warmup_steps=5, warmup_fraction=0.1), "not both"),
        (lambda: Schedule("linear", power=2.0), "power"),
        (lambda: Schedule("constant", end_factor=0.1), "end_factor"),
        (lambda: Schedule(end_factor=1.5), "at most 1"),
        (lambda: Schedule(end_factor=float("nan")), "finite"),
        (lambda: plan_learning_rate(Schedule(), -1e-4, [PhaseRates(10)]), "learning_rate"),
        (lambda: plan_learning_rate(Schedule(), math.inf, [PhaseRates(10)]), "learning_rate"),
        (lambda: plan_learning_rate(Schedule(), "1e-4", [PhaseRates(10)]), "learning_rate"),
        (lambda: plan_learning_rate(Schedule(), 1e-4, []), "phase"),
        (lambda: plan_learning_rate(Schedule(), 1e-4, [PhaseRates(0)]), "steps"),
        (lambda: plan_learning_rate(Schedule(), 1e-4, [PhaseRates(5), PhaseRates(5, -1.0)]), "of phase 2"),
        (lambda: plan_learning_rate(Schedule(warmup_steps=11), 1e-4, [PhaseRates(10)]), "warm-up of 11"),
        (lambda: plan_learning_rate(Schedule(), 1e-4, [PhaseRates(9), PhaseRates(10, 1.0, 11)]), "at step 9"),
    ],
)
def test_mistakes_are_said(make, says):
    with pytest.raises(UserError, match=says):
        make()


def test_only_schedules_that_come_down_depend_on_the_number_of_steps():
    assert Schedule("linear").depends_on_total_steps
    assert Schedule("constant", warmup_fraction=0.1).depends_on_total_steps
    assert not Schedule("constant", warmup_steps=10).depends_on_total_steps
    assert not Schedule("inverse_square_root", warmup_steps=10).depends_on_total_steps


def test_recipes_are_checked_without_jax():
    program = "import sys, bert_jax.training.recipe; sys.exit(bool({'jax', 'tensorflow', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
