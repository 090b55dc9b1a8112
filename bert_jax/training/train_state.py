"""What training changes, as one plain pytree."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class TrainState(NamedTuple):
    """The state between two steps.

    Attributes:
        params: a nested dict of float32 arrays.
        opt_state: of the optimizer.
        step: int32 scalar, the number of steps taken.
        ema: the exponential moving average of the parameters, like them; None in a run without.
    """

    params: Any
    opt_state: Any
    step: jax.Array
    ema: Any = None

    @property
    def evaluated_params(self) -> Any:
        """The parameters that are evaluated and predicted with."""
        return self.params if self.ema is None else self.ema

    def beginning_with(self, params: Any) -> "TrainState":
        """Returns the state with other parameters, before the first step."""
        return self._replace(params=params, ema=None if self.ema is None else jax.tree.map(jnp.copy, params))


def create_train_state(params: Any, optimizer: optax.GradientTransformation, *, with_ema: bool = False) -> TrainState:
    """Returns the state before the first step.

    Args:
        params: the initial parameters.
        optimizer: whose state it is.
        with_ema: whether there is an average of the parameters; see `make_train_step`.
    """
    # A copy, since both are donated to the first step.
    ema = jax.tree.map(jnp.copy, params) if with_ema else None
    return TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32), ema)


def average_parameters(ema: Any, params: Any, decay: float, step: jax.Array) -> Any:
    """Returns the average of the parameters after each step so far, the weight of each `decay` of the next one's.

    What there was before the first step has no part in it: the correction of Kingma and Ba 2015, section 3, written as
    a step towards the new parameters that grows smaller, down to 1 - decay.

    Args:
        ema: the average before the step.
        params: the parameters after it.
        decay: between 0 and 1.
        step: the number of steps taken, this one among them.
    """
    # 1 - decay ** step, exactly for small differences.
    rate = (1 - decay) / -jnp.expm1(step * math.log(decay))
    return jax.tree.map(lambda average, new: average + rate * (new - average), ema, params)
