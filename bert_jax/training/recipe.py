"""What to optimise with: the choices of optimizer and schedule, as plain values that are checked without JAX.

`bert_jax.training.optimizers` and `bert_jax.training.schedules` turn them into functions.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from bert_jax.errors import UserError

# The registry: the function that builds an optimizer, "module:function", by the name that users give. The function is
# named and not imported, so that recipes are checked without JAX; `optimizers.build_optimizer` calls it.
OPTIMIZERS = {
    "bert_adamw": "bert_jax.training.optimizers:bert_adamw",
    "adamw": "bert_jax.training.optimizers:adamw",
    "lamb": "bert_jax.training.optimizers:lamb",
    "muon": "bert_jax.training.muon:muon",
}
SCHEDULES = ("linear", "polynomial", "cosine", "inverse_square_root", "constant")
# The schedules that come down to a chosen value at the last step; the others never look at the number of steps.
DECAYS_TO_AN_END = ("linear", "polynomial", "cosine")
# Steps, and all that is counted in a run, are numbers of 32 bits on the devices.
MOST = 2**31 - 1


def _require_number(name: str, value: Any, minimum: float, below: float = math.inf, above: bool = False) -> None:
    """Raises a UserError unless `value` is a number in [minimum, below), or in (minimum, below) if `above`."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and (minimum < value if above else minimum <= value) and value < below:
        return
    bounds = f"above {minimum:g}" if above else f"at least {minimum:g}"
    bounds += "" if math.isinf(below) else f" and below {below:g}"
    raise UserError(f"{name} must be a finite number {bounds}, not {value!r}")


def require_count(name: str, value: Any, minimum: int = 1) -> None:
    """Raises a UserError unless `value` is a whole number in [minimum, MOST]."""
    if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= MOST:
        raise UserError(f"{name} must be a whole number from {minimum} to {MOST}, not {value!r}")


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """How gradients become updates.

    Attributes:
        kind: "bert_adamw", the optimizer that BERT was trained with; "adamw", that of optax; "lamb" (You et al. 2019),
            for very large batches; "muon" (Jordan et al. 2024), for the matrices of the encoder's layers, with AdamW
            for all else; or another name of `OPTIMIZERS`.
        b1: decay of the running mean of the gradients.
        b2: decay of the running mean of their squares.
        eps: added to the square root of the second moment, outside the root.
        weight_decay: decoupled decay (Loshchilov and Hutter 2017), multiplied by the learning rate, of all parameters
            but biases and LayerNorm.
        bias_correction: whether the running means are corrected for starting at zero (Kingma and Ba 2014). None means
            "as published": no for bert_adamw, yes for the others. optax's adamw cannot do without. Of muon: AdamW's.
        clip_global_norm: gradients whose norm over all parameters exceeds this are scaled down to it, before anything
            else sees them; None for no clipping.
        muon_learning_rate_factor: the learning rate of the encoder's matrices under muon, as a multiple of the run's at
            each step. A factor and not a rate, so that one number serves warm-ups, decays and phases with peaks of
            their own.
        muon_momentum: decay of the running mean of the matrices' gradients under muon.
    """

    kind: str = "bert_adamw"
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-6
    weight_decay: float = 0.01
    bias_correction: bool | None = None
    clip_global_norm: float | None = 1.0
    # Settings of one kind alone name it.
    muon_learning_rate_factor: float = dataclasses.field(default=10.0, metadata={"kind": "muon"})
    muon_momentum: float = dataclasses.field(default=0.95, metadata={"kind": "muon"})

    def __post_init__(self):
        if self.kind not in OPTIMIZERS:
            raise UserError(f"Optimizer.kind must be one of {', '.join(OPTIMIZERS)}, not {self.kind!r}")
        _require_number("Optimizer.b1", self.b1, 0, below=1)
        _require_number("Optimizer.b2", self.b2, 0, below=1)
        _require_number("Optimizer.eps", self.eps, 0, above=True)
        _require_number("Optimizer.weight_decay", self.weight_decay, 0)
        if self.clip_global_norm is not None:
            _require_number("Optimizer.clip_global_norm", self.clip_global_norm, 0, above=True)
        if self.bias_correction not in (None, True, False):
            raise UserError(f"Optimizer.bias_correction must be True, False or None, not {self.bias_correction!r}")
        if self.kind == "adamw" and self.bias_correction is False:
            raise UserError("Optimizer.bias_correction=False needs Optimizer.kind='bert_adamw' (adamw always corrects)")
        _require_number("Optimizer.muon_learning_rate_factor", self.muon_learning_rate_factor, 0, above=True)
        _require_number("Optimizer.muon_momentum", self.muon_momentum, 0, below=1)
        for field in dataclasses.fields(self):
            if not self._has(field) and getattr(self, field.name) != field.default:
                kind = field.metadata["kind"]
                raise UserError(f"Optimizer.{field.name} needs Optimizer.kind={kind!r}, not {self.kind!r}")

    def _has(self, field: dataclasses.Field) -> bool:
        """Whether a field says anything of an optimizer of this kind."""
        return field.metadata.get("kind", self.kind) == self.kind

    def to_json(self) -> dict[str, Any]:
        """Returns the fields that say anything of this kind, as a dict of JSON values, for a run's identity.

        So a run of one kind reads the same as before there were others.
        """
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if self._has(field)}

    @property
    def corrects_bias(self) -> bool:
        """Whether the running means are corrected, with None resolved."""
        return self.kind != "bert_adamw" if self.bias_correction is None else self.bias_correction


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How the learning rate goes from step to step, as a share of its peak.

    Every schedule first warms up: step s, counted from 0, gets s / warm-up of the peak, so that the very first step
    changes nothing, as in the original code. What follows depends on `kind`; after the last step the rate stays put.

    Attributes:
        kind: "linear" and "polynomial" come down as Google's code does: as if there had been no warm-up, from the peak
            at step 0 to the end at the last step, so that the warm-up ends with a small step down to that line.
            "cosine" (Loshchilov and Hutter 2016) comes down from the peak at the end of the warm-up. "constant" stays
            at the peak, and "inverse_square_root" (Vaswani et al. 2017) is peak * sqrt(warm-up / step).
        warmup_steps: length of the warm-up.
        warmup_fraction: the same, as a fraction of all steps (rounded down); at most one of the two may be given.
        power: of "polynomial": the exponent of the share of steps left.
        end_factor: of "linear", "polynomial" and "cosine": the rate after the last step, as a share of the peak.
    """

    kind: str = "linear"
    warmup_steps: int = 0
    warmup_fraction: float = 0.0
    power: float = 1.0
    end_factor: float = 0.0

    def __post_init__(self):
        if self.kind not in SCHEDULES:
            raise UserError(f"Schedule.kind must be one of {', '.join(SCHEDULES)}, not {self.kind!r}")
        require_count("Schedule.warmup_steps", self.warmup_steps, 0)
        _require_number("Schedule.warmup_fraction", self.warmup_fraction, 0, below=1)
        if self.warmup_steps and self.warmup_fraction:
            raise UserError("give Schedule.warmup_steps or Schedule.warmup_fraction, not both")
        _require_number("Schedule.power", self.power, 0, above=True)
        if self.power != 1 and self.kind != "polynomial":
            raise UserError(f"Schedule.power needs Schedule.kind='polynomial', not {self.kind!r}")
        _require_number("Schedule.end_factor", self.end_factor, 0)
        if self.end_factor > 1:
            raise UserError(f"Schedule.end_factor must be at most 1, not {self.end_factor!r}")
        if self.end_factor and self.kind not in DECAYS_TO_AN_END:
            raise UserError(f"Schedule.end_factor needs Schedule.kind={'|'.join(DECAYS_TO_AN_END)}, not {self.kind!r}")

    @property
    def depends_on_total_steps(self) -> bool:
        """Whether a longer run would have had other learning rates from the beginning."""
        return self.kind in DECAYS_TO_AN_END or self.warmup_fraction > 0

    def warmup(self, total_steps: int) -> int:
        """Returns the steps of warm-up in a schedule of `total_steps` steps."""
        return int(self.warmup_fraction * total_steps) if self.warmup_fraction else self.warmup_steps


@dataclasses.dataclass(frozen=True)
class PhaseRates:
    """What the learning rate depends on in a phase of training; any object with these attributes will do.

    Attributes:
        steps: length of the phase.
        learning_rate: its peak; None for the run's.
        warmup_steps: length of its warm-up; None for the run's.
    """

    steps: int
    learning_rate: float | None = None
    warmup_steps: int | None = None


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Consecutive steps that share one peak, one warm-up and one way down.

    Attributes:
        first_step: where it begins; its schedule counts from there.
        steps: its length.
        learning_rate: its peak.
        warmup_steps: length of its warm-up.
    """

    first_step: int
    steps: int
    learning_rate: float
    warmup_steps: int


def plan_learning_rate(schedule: Schedule, learning_rate: float, phases: Sequence[PhaseRates]) -> tuple[Stretch, ...]:
    """Returns the stretches of the learning rate over the phases of a run; raises UserError where they make no sense.

    A phase that gives a learning rate or a warm-up (0 counts) begins a stretch, and what it does not give is the run's.
    A phase that gives neither goes on with the stretch before it. So phases without rates of their own share one
    schedule over all their steps, and LAMB's recipe (You et al. 2019, a second warm-up for the long sequences) is two
    phases that each give both.

    Args:
        schedule: the run's schedule; its kind holds for every stretch.
        learning_rate: the run's peak.
        phases: in order.
    """
    _require_number("learning_rate", learning_rate, 0)
    if not phases:
        raise UserError("a run needs at least one phase")
    groups: list[list[PhaseRates]] = []
    for number, phase in enumerate(phases, start=1):
        where = f" of phase {number}" if len(phases) > 1 else ""
        require_count(f"steps{where}", phase.steps, 1)
        if phase.learning_rate is not None:
            _require_number(f"learning_rate{where}", phase.learning_rate, 0)
        if phase.warmup_steps is not None:
            require_count(f"warmup_steps{where}", phase.warmup_steps, 0)
        if groups and phase.learning_rate is None and phase.warmup_steps is None:
            groups[-1].append(phase)
        else:
            groups.append([phase])
    stretches: list[Stretch] = []
    first_step = 0
    for group in groups:
        steps = sum(phase.steps for phase in group)
        peak, warmup_steps = group[0].learning_rate, group[0].warmup_steps
        peak = learning_rate if peak is None else peak
        warmup_steps = schedule.warmup(steps) if warmup_steps is None else warmup_steps
        if warmup_steps > steps:
            raise UserError(
                f"a warm-up of {warmup_steps} steps does not fit into the {steps} steps that begin at step"
                f" {first_step}: give fewer warmup_steps, or more steps"
            )
        stretches.append(Stretch(first_step, steps, peak, warmup_steps))
        first_step += steps
    return tuple(stretches)
