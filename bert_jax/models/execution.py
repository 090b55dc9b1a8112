"""How a model is computed, as opposed to what it computes.

Importable without JAX, so that settings are checked first.
"""

import dataclasses
from typing import Any

from bert_jax.errors import UserError
from bert_jax.numerics import Numerics

DTYPES = ("float32", "bfloat16")
REMAT = ("none", "full", "dots", "dots_no_batch")


@dataclasses.dataclass(frozen=True)
class Execution:
    """Choices that change speed and memory, and results by rounding at most; but for what is frozen.

    Attributes:
        dtype: of the computation, "float32" or "bfloat16"; parameters, softmax, LayerNorm's statistics, logits and
            reductions are float32 always.
        remat: what a layer keeps for the backward pass: "none" (nothing is recomputed), "full" (everything is), "dots"
            (results of matrix products are kept) or "dots_no_batch" (those without batch dimensions are).
        unroll: layers per iteration of the scan; more compiles longer and, on CPUs, runs faster.
        frozen_layers: so many layers from the bottom, and the embeddings below them, get no gradient, and are run
            without keeping anything for it.
        numerics: as of the run that goes on, which may have been begun with an older version.
    """

    dtype: str = "float32"
    remat: str = "none"
    unroll: int = 1
    frozen_layers: int = 0
    numerics: Numerics = Numerics()  # noqa: RUF009 (frozen)

    def __post_init__(self):
        if self.dtype not in DTYPES:
            raise UserError(f"Execution.dtype must be one of {', '.join(DTYPES)}, not {self.dtype!r}")
        if self.remat not in REMAT:
            raise UserError(f"Execution.remat must be one of {', '.join(REMAT)}, not {self.remat!r}")
        if not isinstance(self.unroll, int) or self.unroll < 1:
            raise UserError(f"Execution.unroll must be a positive whole number, not {self.unroll!r}")
        if not isinstance(self.frozen_layers, int) or self.frozen_layers < 0:
            raise UserError(f"Execution.frozen_layers must be a whole number, at least 0, not {self.frozen_layers!r}")
        if not isinstance(self.numerics, Numerics):
            raise UserError(f"Execution.numerics follows from the run: leave it out, instead of {self.numerics!r}")

    @property
    def jax_dtype(self) -> Any:
        """The dtype as JAX knows it."""
        import jax.numpy as jnp

        return jnp.dtype(self.dtype)
