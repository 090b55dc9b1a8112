"""Masked-token augmentation: some tokens of a training batch are hidden, so that no single one is relied upon.

Unlike the masking of pre-training, nothing is predicted of them, and every one chosen becomes [MASK].
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from bert_jax.text.tokenizer import Tokenizer

# Keeps these draws apart from others that begin from the same seed.
_STREAM = 0x3A5C


@dataclasses.dataclass(frozen=True)
class InputMasking:
    """Which tokens are hidden: a function of (seed, step, row of the global batch), however the batch is cut.

    Attributes:
        probability: of each ordinary token.
        seed: of the draws.
        mask_id: what a hidden token becomes.
        kept_ids: tokens that are never hidden.
    """

    probability: float
    seed: int
    mask_id: int
    kept_ids: tuple[int, ...]

    @classmethod
    def of(cls, probability: float, seed: int, tokenizer: Tokenizer, markers: Sequence[str]) -> "InputMasking":
        """Hides all tokens but [CLS], [SEP], [PAD] and the markers."""
        kept = (tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id, *map(tokenizer.token_to_id, markers))
        return cls(probability, seed, tokenizer.mask_id, kept)

    def __call__(self, batch: Mapping[str, np.ndarray], step: int, rows: np.ndarray) -> np.ndarray:
        """Returns the batch's input_ids with some tokens hidden.

        Args:
            batch: of `EncodedRows.batch`.
            step: of the run.
            rows: `[batch]`, the numbers of the batch's rows in the global batch.
        """
        ids = batch["input_ids"]
        draws = np.stack([self._draw(step, int(row), ids.shape[1:]) for row in rows])
        is_ordinary = (batch["segment_ids"] > 0) & ~np.isin(ids, self.kept_ids)
        return np.where(is_ordinary & (draws < self.probability), np.int32(self.mask_id), ids)

    def _draw(self, step: int, row: int, shape: tuple[int, ...]) -> np.ndarray:
        seed = np.random.SeedSequence([self.seed, _STREAM, step, row])
        return np.random.Generator(np.random.Philox(seed)).random(shape, np.float32)
