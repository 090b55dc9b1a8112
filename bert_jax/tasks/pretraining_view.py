"""A task's training rows as pre-training would show them: tokens masked and, of half of the pairs, another second text.

NumPy alone. The view of a row is a function of (seed, step, the row's number in the global batch), however the batch is
cut.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from bert_jax.data.array_masking import mask_rows
from bert_jax.errors import UserError
from bert_jax.tasks.encoding.encoded_rows import EncodedRows, Row
from bert_jax.text.tokenizer import Tokenizer

# What the view's arrays are called in a batch, beside those of the task.
PREFIX = "view_"
# Keeps these draws apart from others that begin from the same seed.
_STREAM = 0x71E4
# Of this share of the pairs, the second text is another one.
_SWAPPED = 0.5
# How often another text is drawn until it is one; the original looks for another document as often.
_TRIES = 10


@dataclasses.dataclass(frozen=True)
class PretrainingView:
    """Makes the view of a batch.

    Of the choices of a question, the row with the right one is shown: text as it should be.

    Attributes:
        rows: the training rows.
        shown: int64 `[units]`, the row that is shown of each unit.
        seconds: int64 `[rows]`, equal for rows with equal second texts; negative for those without.
        pool: int64, the rows shown that have a second text.
        seed: of the draws.
        mask_id: of [MASK].
        sep_id: of [SEP].
        kept_ids: tokens that are never masked.
        vocab_size: random words are drawn from all of them.
    """

    rows: EncodedRows
    shown: np.ndarray
    seconds: np.ndarray
    pool: np.ndarray
    seed: int
    mask_id: int
    sep_id: int
    kept_ids: tuple[int, ...]
    vocab_size: int

    @classmethod
    def of(
        cls, rows: EncodedRows, seed: int, tokenizer: Tokenizer, markers: Sequence[str], *, with_pairs: bool
    ) -> "PretrainingView":
        """Masks all tokens but [CLS], [SEP], [PAD] and the markers.

        Args:
            rows: the training rows.
            seed: of the draws.
            tokenizer: that made their ids.
            markers: words that are never masked.
            with_pairs: whether second texts are swapped, and there are labels that say which.
        """
        shown = np.arange(rows.num_units) * rows.rows_per_unit
        if rows.rows_per_unit > 1:
            shown = shown + rows.targets["labels"][shown]
        seconds = second_texts(rows, shown) if with_pairs else np.full(len(rows), -1)
        kept = (tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id, *map(tokenizer.token_to_id, markers))
        pool = shown[seconds[shown] >= 0]
        return cls(rows, shown, seconds, pool, seed, tokenizer.mask_id, tokenizer.sep_id, kept, tokenizer.vocab_size)

    def __call__(self, units: np.ndarray, length: int, step: int, numbers: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the view of a batch's rows.

        Args:
            units: `[batch]`; -1 for one that is empty.
            length: of the batch; a second text from elsewhere is cut to it.
            step: of the run.
            numbers: `[batch]`, the numbers of the batch's rows in the global batch.

        Returns:
            view_input_ids, view_token_type_ids, view_position_ids and view_segment_ids int32 `[batch, length]`;
            masked_positions, masked_ids and masked_weights as of `mask_rows`; next_sentence_labels int32 `[batch]`, 0
            for the row's own second text and 1 for another, and next_sentence_weights float32 `[batch]`, 0 for rows
            without a second text.
        """
        made, draws = [], []
        labels, weights = np.zeros(len(units), np.int32), np.zeros(len(units), np.float32)
        for place, (unit, number) in enumerate(zip(units.tolist(), numbers.tolist(), strict=True)):
            draw = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, _STREAM, step, number])))
            is_swapped, tries = draw.random() < _SWAPPED, draw.random(_TRIES)
            draws.append(draw.random((length, 3), np.float32))
            if unit < 0:
                made.append(Row((self.sep_id,), 1, -1))
                continue
            row = int(self.shown[unit])
            tokens, first = self._tokens(row), int(self.rows.first_lengths[row])
            if self.seconds[row] >= 0:
                weights[place] = 1
                other = self._other(row, tries) if is_swapped else None
                if other is not None:
                    labels[place] = 1
                    second = self._tokens(other)[self.rows.first_lengths[other] :]
                    if first + len(second) > length:
                        second = np.append(second[: length - first - 1], np.int32(self.sep_id))
                    tokens = np.concatenate([tokens[:first], second])
            made.append(Row(tokens, first, -1))
        batch = EncodedRows.of(made).batch(np.where(units >= 0, np.arange(len(made)), -1), length)
        is_token = batch["segment_ids"] > 0
        masked = mask_rows(
            batch["input_ids"],
            is_token.sum(axis=1),
            is_token & ~np.isin(batch["input_ids"], self.kept_ids),
            np.stack(draws),
            mask_id=self.mask_id,
            vocab_size=self.vocab_size,
        )
        batch["input_ids"] = masked.pop("input_ids")
        tokens = ("input_ids", "token_type_ids", "position_ids", "segment_ids")
        return {
            **{PREFIX + name: batch[name] for name in tokens},
            **masked,
            "next_sentence_labels": labels,
            "next_sentence_weights": weights,
        }

    def shapes(self, batch_size: int, length: int) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Returns shape and dtype of each array of a batch's view."""
        empty = self(np.full(1, -1), length, 0, np.zeros(1, np.int64))
        return {name: ((batch_size, *array.shape[1:]), array.dtype) for name, array in empty.items()}

    def _tokens(self, row: int) -> np.ndarray:
        return self.rows.tokens[self.rows.offsets[row] : self.rows.offsets[row + 1]]

    def _other(self, row: int, draws: np.ndarray) -> int | None:
        """Returns the first row drawn that is of another example and has another second text; None if none is."""
        examples, candidates = self.rows.examples, self.pool[(draws * len(self.pool)).astype(np.int64)]
        is_other = (examples[candidates] != examples[row]) & (self.seconds[candidates] != self.seconds[row])
        return int(candidates[is_other.argmax()]) if is_other.any() else None


def second_texts(rows: EncodedRows, shown: np.ndarray) -> np.ndarray:
    """Numbers the second texts of the rows `shown`, int64 `[rows]`: equal texts alike; -1 where there is none.

    Raises:
        UserError: there are not two different ones.
    """
    numbers: dict[bytes, int] = {}
    found = np.full(len(rows), -1)
    begins, ends = rows.offsets[:-1] + rows.first_lengths, rows.offsets[1:]
    for row in shown.tolist():
        # More than [SEP].
        if ends[row] - begins[row] > 1:
            text = rows.tokens[begins[row] : ends[row]].tobytes()
            found[row] = numbers.setdefault(text, len(numbers))
    if len(numbers) < 2:
        what = "all have the same second text" if numbers else "are single texts"
        raise UserError(f"finetune.nsp_weight is for pairs of texts, and the training examples {what}: leave it out")
    return found
