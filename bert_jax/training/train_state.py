"""What training changes, as one plain pytree."""

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
    """

    params: Any
    opt_state: Any
    step: jax.Array


def create_train_state(params: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """Returns the state before the first step."""
    return TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32))
