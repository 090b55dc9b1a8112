"""Names for the axes of activations, by which a mesh keeps them cut while the model is traced.

Left alone, the compiler may well answer a cut weight by cutting the activations along the same axis, and hand every
device the whole batch. The models say what each axis is; whoever traces them says what that means on a mesh.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import jax

# What an activation's axes may be called; any other has no name, None, and is not cut.
BATCH, HEADS, MLP, VOCAB = "batch", "heads", "mlp", "vocab"

Layout = Callable[[jax.Array, tuple[str | None, ...]], jax.Array]
_layout: contextvars.ContextVar[Layout | None] = contextvars.ContextVar("layout", default=None)


def with_axes(activation: Any, *axes: str | None) -> Any:
    """Returns the activation, laid out as its axes' names say; those that are not named are not cut.

    Args:
        activation: an array, or None, which is returned.
        axes: the names of its first axes.
    """
    layout = _layout.get()
    if layout is None or activation is None:
        return activation
    return layout(activation, (*axes, *[None] * (activation.ndim - len(axes))))


@contextlib.contextmanager
def laying_out(layout: Layout | None) -> Iterator[None]:
    """While models are traced in here, `layout` is applied to their activations and their axes' names."""
    token = _layout.set(layout)
    try:
        yield
    finally:
        _layout.reset(token)
