"""Questions with their contexts as rows: [CLS] question [SEP] window of the context [SEP].

As in the original's run_squad: long contexts are read in windows that overlap; where the answer is not in a window, the
target is [CLS]; and of a token in several windows only the one counts where it has most context.
"""

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from bert_jax.errors import UserError
from bert_jax.tasks.encoding.chunks import in_chunks
from bert_jax.tasks.encoding.encoded_rows import Row
from bert_jax.tasks.examples.example_types import QuestionExample
from bert_jax.text.offsets import Pieces
from bert_jax.text.tokenizer import Tokenizer

# The names of the targets: positions in the row of the answer's first and last token, 0 ([CLS]) for none.
START, END = "start_positions", "end_positions"
# Questions are tokenized in batches, each context of a batch once.
_BATCH = 256


@dataclasses.dataclass(frozen=True, slots=True)
class Window:
    """Where the tokens of a row stand in the text of the context.

    Attributes:
        offset: the position in the row of the window's first piece.
        starts, ends: int32 `[pieces]`, places in the context, in characters, of the window's pieces.
        has_most_context: bool `[pieces]`, whether no other window of the context would show a piece better.
    """

    offset: int
    starts: np.ndarray
    ends: np.ndarray
    has_most_context: np.ndarray


class PassageEncoder:
    """Turns questions into rows; see `ExampleEncoder`.

    Attributes:
        questions, long: how many were encoded, and how many of them need several windows.
        long_questions: questions that were cut.
        lost_answers: answers of which the tokenizer keeps nothing; they are learned as no answer.
    """

    rows_per_unit = 1

    def __init__(self, tokenizer: Tokenizer, max_seq_len: int = 384, doc_stride: int = 128, max_question_len: int = 64):
        """Makes the encoder.

        Args:
            tokenizer: gives the ids.
            max_seq_len: tokens of a row at most, [CLS] and two [SEP] among them.
            doc_stride: how many tokens a window begins after the one before it.
            max_question_len: tokens of a question at most; the rest is cut off.

        Raises:
            UserError: the numbers leave no room for the context.
        """
        room = max_seq_len - max_question_len - 3
        if min(doc_stride, max_question_len) < 1:
            raise UserError("doc_stride and max_question_len must be 1 at least")
        if room < 1:
            raise UserError(
                f"max_seq_len {max_seq_len} leaves no room for the context beside a question of {max_question_len}"
                " tokens and three special ones: take a larger one, or a smaller max_question_len"
            )
        self._tokenizer = tokenizer
        self._max_seq_len = max_seq_len
        self._doc_stride = doc_stride
        self._max_question_len = max_question_len
        self.questions = self.long = self.long_questions = self.lost_answers = 0

    def encode(self, examples: Iterable[QuestionExample]) -> Iterator[tuple[QuestionExample, list[Row]]]:
        """Yields each question with its rows, one at least; their `detail` is the window that they show.

        Where answers were read, rows have the targets START and END, of the first answer that is in the context.
        """
        for batch in in_chunks(enumerate(examples), _BATCH):
            contexts = list(dict.fromkeys(example.context for _, example in batch))
            pieces = dict(zip(contexts, self._tokenizer.encode_with_offsets(contexts), strict=True))
            questions = self._tokenizer.encode_batch([example.question for _, example in batch])
            for (number, example), question in zip(batch, questions, strict=True):
                self.long_questions += len(question) > self._max_question_len
                answer = self._answer(example, pieces[example.context])
                question = question[: self._max_question_len]
                prefix = [self._tokenizer.cls_id, *question, self._tokenizer.sep_id]
                has_answers = example.answers is not None
                bounds, windows = self._windows(len(prefix), pieces[example.context])
                rows = []
                for (first, last), window in zip(bounds, windows, strict=True):
                    tokens = [*prefix, *pieces[example.context].ids[first:last], self._tokenizer.sep_id]
                    targets = _targets(answer, first, last, len(prefix)) if has_answers else {}
                    rows.append(Row(tokens, len(prefix), number, targets, detail=window))
                yield example, rows

    def report(self) -> list[str]:
        """Returns lines for people on what was encoded so far."""
        line = f"{self.long:,} of {self.questions:,} questions have more context than {self._max_seq_len} tokens hold"
        lines = [f"{line}; it is read in windows, one every {self._doc_stride} tokens" if self.long else line]
        if self.long_questions:
            lines.append(f"{self.long_questions:,} questions have over {self._max_question_len} tokens and were cut")
        if self.lost_answers:
            lines.append(f"{self.lost_answers:,} answers hold nothing that the tokenizer keeps; learned as no answer")
        return lines

    def _answer(self, example: QuestionExample, pieces: Pieces) -> tuple[int, int] | None:
        """Returns the first and last piece of the first answer that is in the context; None for no answer."""
        found = next(((text, start) for text, start in example.answers or () if start >= 0), None)
        if found is None:
            return None
        text, start = found
        first = int(np.searchsorted(pieces.ends, start, side="right"))
        last = int(np.searchsorted(pieces.starts, start + len(text), side="left")) - 1
        if first > last:
            self.lost_answers += 1
            return None
        return first, last

    def _windows(self, offset: int, pieces: Pieces) -> tuple[list[tuple[int, int]], list[Window]]:
        """Returns the windows of a context as (first piece, last + 1), and where their pieces stand."""
        bounds = passage_windows(len(pieces.ids), self._max_seq_len - offset - 1, self._doc_stride)
        best = most_context(len(pieces.ids), bounds)
        self.questions += 1
        self.long += len(bounds) > 1
        windows = []
        for index, (first, last) in enumerate(bounds):
            starts, ends = pieces.starts[first:last], pieces.ends[first:last]
            windows.append(Window(offset, starts, ends, best[first:last] == index))
        return bounds, windows


def _targets(answer: tuple[int, int] | None, first: int, last: int, offset: int) -> dict[str, int]:
    """Returns the positions of an answer in the row of a window; 0 where all of it is not in there."""
    if answer is None or answer[0] < first or answer[1] >= last:
        return {START: 0, END: 0}
    return {START: offset + answer[0] - first, END: offset + answer[1] - first}


def passage_windows(length: int, size: int, stride: int) -> list[tuple[int, int]]:
    """Returns windows (first, last + 1) of at most `size` pieces, a stride apart, that together hold all `length`."""
    windows = [(0, min(length, size))]
    while windows[-1][1] < length:
        first = windows[-1][0] + min(size, stride)
        windows.append((first, min(length, first + size)))
    return windows


def most_context(length: int, windows: list[tuple[int, int]]) -> np.ndarray:
    """Returns the number of the window in which each piece has most context, int64 `[length]`.

    That is the smaller of what is before and behind it, and a hundredth of the window's length, as in the original: the
    last window is shorter, and shows best what is well inside of it; the first of equals.
    """
    context = np.full((len(windows), length), -1.0)
    for index, (first, last) in enumerate(windows):
        before = np.arange(last - first)
        context[index, first:last] = np.minimum(before, before[::-1]) + 0.01 * (last - first)
    return context.argmax(axis=0)
