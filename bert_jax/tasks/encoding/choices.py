"""Multiple choice as rows: for each choice [CLS] context [SEP] question and choice [SEP], side by side as one unit."""

import itertools
from collections.abc import Iterable, Iterator

from bert_jax.errors import UserError
from bert_jax.tasks.encoding.chunks import in_chunks
from bert_jax.tasks.encoding.encoded_rows import Row
from bert_jax.tasks.encoding.texts import WINDOWS, LengthCount, cut, first_share
from bert_jax.tasks.examples.choices import continuations
from bert_jax.tasks.examples.example_types import ChoiceExample
from bert_jax.text.tokenizer import Tokenizer

# Examples are tokenized in batches, each text of a batch once: passages often have several questions.
_BATCH = 128


class ChoiceEncoder:
    """Turns examples into rows, as many for each: choices that an example does not have are rows without tokens.

    Attributes:
        count: of examples, and of those with a choice whose row is over the limit.
    """

    def __init__(self, tokenizer: Tokenizer, max_seq_len: int, num_choices: int, long_texts: str):
        """Makes the encoder.

        Args:
            tokenizer: gives the ids.
            max_seq_len: tokens of a row at most, [CLS] and two [SEP] among them.
            num_choices: rows of an example.
            long_texts: what is kept of a text over the limit: the head, the tail or both. Of context and continuation,
                the longer gives up tokens first.

        Raises:
            UserError: choices cannot be read in windows.
        """
        if long_texts == WINDOWS:
            raise UserError(
                "multiple choice compares whole texts and has no windows: choose --long_texts=head, tail or"
                " head_and_tail"
            )
        self._tokenizer = tokenizer
        self._max_seq_len = max_seq_len
        self.rows_per_unit = num_choices
        self._long_texts = long_texts
        self.count = LengthCount()

    def report(self) -> list[str]:
        """See `ExampleEncoder`."""
        return [self.count.report(self._max_seq_len, self._long_texts)]

    def encode(self, examples: Iterable[ChoiceExample]) -> Iterator[tuple[ChoiceExample, list[Row]]]:
        """Yields each example with its rows; those with an answer have it as the target `labels`."""
        for batch in in_chunks(enumerate(examples), _BATCH):
            texts = [(example.context, *continuations(example)) for _, example in batch]
            unique = list(dict.fromkeys(itertools.chain.from_iterable(texts)))
            ids = dict(zip(unique, self._tokenizer.encode_batch(unique), strict=True))
            for (number, example), (context, *endings) in zip(batch, texts, strict=True):
                targets = {} if example.answer is None else {"labels": example.answer}
                longest = max(len(ids[context]) + len(ids[ending]) + 3 for ending in endings)
                self.count.texts += 1
                self.count.longest = max(self.count.longest, longest)
                self.count.long += longest > self._max_seq_len
                rows = [self._row(ids[context], ids[ending], number, targets) for ending in endings]
                yield example, rows + [Row([], 0, number, targets)] * (self.rows_per_unit - len(endings))

    def _row(self, context: list[int], ending: list[int], number: int, targets: dict[str, int]) -> Row:
        limit = self._max_seq_len - 3
        if len(context) + len(ending) > limit:
            kept = first_share(len(context), len(ending), limit)
            context, ending = cut(context, kept, self._long_texts), cut(ending, limit - kept, self._long_texts)
        first = [self._tokenizer.cls_id, *context, self._tokenizer.sep_id]
        return Row([*first, *ending, self._tokenizer.sep_id], len(first), number, targets)
