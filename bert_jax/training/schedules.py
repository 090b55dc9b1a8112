"""Learning rates as functions of the step, in float32, for traced and for ordinary steps."""

from collections.abc import Sequence

import jax.numpy as jnp
import optax

from bert_jax.training import recipe


def build_schedule(schedule: recipe.Schedule, learning_rate: float, total_steps: int) -> optax.Schedule:
    """Returns the learning rate of a run of one phase: a function of the step, counted from 0.

    Args:
        schedule: the shape; `recipe.Schedule` says what each kind does.
        learning_rate: the peak.
        total_steps: steps of the run; beyond them the rate stays where it is.

    Raises:
        UserError: the rate is negative, there are no steps, or the warm-up is longer than the run.
    """
    return build_phased_schedule(schedule, learning_rate, [recipe.PhaseRates(total_steps)])


def build_phased_schedule(
    schedule: recipe.Schedule, learning_rate: float, phases: Sequence[recipe.PhaseRates]
) -> optax.Schedule:
    """Returns the learning rate of a run of several phases: a function of the step, counted from 0 over all of them.

    Args:
        schedule: the shape of every stretch.
        learning_rate: the peak where a phase gives none.
        phases: objects with `steps`, `learning_rate` and `warmup_steps`; `recipe.plan_learning_rate` says how they
            combine.

    Raises:
        UserError: as for `recipe.plan_learning_rate`.
    """
    stretches = recipe.plan_learning_rate(schedule, learning_rate, phases)
    joined = optax.join_schedules(
        [_stretch_schedule(schedule, stretch) for stretch in stretches],
        [stretch.first_step for stretch in stretches[1:]],
    )
    return lambda step: jnp.asarray(joined(step), jnp.float32)


def _stretch_schedule(schedule: recipe.Schedule, stretch: recipe.Stretch) -> optax.Schedule:
    """The learning rate within one stretch, by the step within it."""
    peak, warmup, total = stretch.learning_rate, stretch.warmup_steps, stretch.steps
    end = peak * schedule.end_factor
    if schedule.kind in ("linear", "polynomial"):
        # From step 0, not from the end of the warm-up: so does the original.
        after_warmup = optax.polynomial_schedule(peak, end, schedule.power, total)
    elif schedule.kind == "cosine":
        cosine = optax.cosine_decay_schedule(peak, max(total - warmup, 1), schedule.end_factor)

        def after_warmup(step):
            return cosine(jnp.maximum(step - warmup, 0))

    elif schedule.kind == "inverse_square_root":

        def after_warmup(step):
            # Without a warm-up there is no step 0 to divide by, so that steps 0 and 1 both get the peak.
            return peak * jnp.sqrt(max(warmup, 1) / jnp.clip(step, max(warmup, 1), total).astype(jnp.float32))

    else:
        after_warmup = optax.constant_schedule(peak)
    if not warmup:
        return after_warmup
    return lambda step: jnp.where(step < warmup, peak * (step / jnp.float32(warmup)), after_warmup(step))
