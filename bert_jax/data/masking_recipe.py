"""How tokens are masked, as plain settings that need no TensorFlow to be read and checked."""

import dataclasses
import math

from bert_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Masking:
    """The recipe of masked-language modelling; the defaults are those of the paper.

    Attributes:
        masked_lm_prob: share of a pair's tokens that is predicted.
        max_predictions_per_pair: at most this many; None means masked_lm_prob of a full row.
        mask_share: share of the predicted tokens that becomes [MASK].
        keep_share: share that stays as it is; the rest becomes a random word.
        whole_word: mask all pieces of a word, or none.
        static: the same masks in every epoch, instead of new ones.
    """

    masked_lm_prob: float = 0.15
    max_predictions_per_pair: int | None = None
    mask_share: float = 0.8
    keep_share: float = 0.1
    whole_word: bool = False
    static: bool = False

    def __post_init__(self):
        for name in ("masked_lm_prob", "mask_share", "keep_share"):
            if not isinstance(getattr(self, name), int | float):
                raise UserError(f"Masking.{name} must be a number, not {getattr(self, name)!r}")
        if not 0 < self.masked_lm_prob < 1:
            raise UserError(f"Masking.masked_lm_prob must lie between 0 and 1, not {self.masked_lm_prob!r}")
        most = self.max_predictions_per_pair
        if most is not None and (not isinstance(most, int) or most < 1):
            raise UserError(f"Masking.max_predictions_per_pair must be a positive whole number or None, not {most!r}")
        if min(self.mask_share, self.keep_share) < 0 or self.mask_share + self.keep_share > 1:
            raise UserError("Masking.mask_share and Masking.keep_share must not be negative, nor exceed 1 together")


def max_predictions_per_row(masking: Masking, seq_len: int, max_pairs: int) -> int:
    """The width of the predictions' axis: room for every masked token of a full row, whatever pairs it packs.

    Each pair rounds its own number, and masks at least one token: with several in a row that adds up to less than one
    token a pair.
    """
    return min(math.ceil(masking.masked_lm_prob * seq_len) + (max_pairs if max_pairs > 1 else 0), seq_len)
