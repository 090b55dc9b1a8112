"""Logits to answers: the n best spans of a context, cut from its text, and the odds of there being none.

As in the original's run_squad, but for the search, which looks at all spans up to the length limit instead of those
between the best starts and the best ends: its best span is never worse.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from bert_jax.tasks.encoding.encoded_rows import EncodedRows
from bert_jax.tasks.encoding.passages import Window
from bert_jax.tasks.examples.example_types import QuestionExample


@dataclasses.dataclass(frozen=True, slots=True)
class AnswerSpan:
    """A possible answer.

    Attributes:
        text: cut from the context as it was given; "" for no answer.
        start, end: its place in the context, in characters; 0 and 0 for no answer.
        start_logit, end_logit: of its first and last token.
        probability: of the n best, no answer among them where it is allowed.
    """

    text: str
    start: int
    end: int
    start_logit: float
    end_logit: float
    probability: float


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What is predicted of a question.

    Attributes:
        id: the question's.
        spans: the n best, the best first, with different texts; with no answer among them if that is allowed.
        null_odds: by how much the score of no answer exceeds that of the best span (0 where there is no span);
            minus infinity where every question has an answer.
    """

    id: str
    spans: tuple[AnswerSpan, ...]
    null_odds: float

    @property
    def best(self) -> AnswerSpan:
        """The best span that is an answer; the empty one if there is none at all."""
        return next((span for span in self.spans if span.text), _NOTHING)

    def text(self, null_threshold: float = 0.0) -> str:
        """Returns the predicted answer: "" where the odds of there being none are above the threshold."""
        return "" if self.null_odds > null_threshold else self.best.text


_NOTHING = AnswerSpan("", 0, 0, 0.0, 0.0, 1.0)


def decode(
    example: QuestionExample,
    windows: Sequence[Window],
    start_logits: Sequence[np.ndarray],
    end_logits: Sequence[np.ndarray],
    *,
    may_be_impossible: bool,
    n_best: int = 20,
    max_answer_len: int = 30,
) -> Answer:
    """Returns the best answers to a question.

    Args:
        example: the question.
        windows: of its context, as the encoder made them.
        start_logits: for each window `[tokens]`; padding may follow.
        end_logits: likewise.
        may_be_impossible: whether no answer is among the possible ones (SQuAD v2.0).
        n_best: how many answers at most.
        max_answer_len: tokens of an answer at most.
    """
    scores, places = [], []
    for index, (window, start, end) in enumerate(zip(windows, start_logits, end_logits, strict=True)):
        found, first, last = _best_spans(window, start, end, 3 * n_best, max_answer_len)
        scores.append(found)
        places.append(np.stack([np.full(len(first), index), first, last], axis=1))
    score, place = np.concatenate(scores), np.concatenate(places)
    # By text: its place in the context and its two logits.
    spans: dict[str, tuple[int, int, float, float]] = {}
    for index, first, last in place[np.argsort(-score, kind="stable")].tolist():
        window = windows[index]
        begin, end = int(window.starts[first]), int(window.ends[last])
        text = example.context[begin:end]
        if text.strip() and text not in spans:
            logits = start_logits[index][window.offset + first], end_logits[index][window.offset + last]
            spans[text] = (begin, end, float(logits[0]), float(logits[1]))
            if len(spans) == n_best:
                break
    found = [(text, *values) for text, values in spans.items()]
    null_odds = -np.inf
    if may_be_impossible:
        # Of all windows, the one least sure that there is no answer.
        start, end = min(
            ((float(start[0]), float(end[0])) for start, end in zip(start_logits, end_logits, strict=True)), key=sum
        )
        null_odds = start + end - (sum(found[0][3:]) if found else 0.0)
        found = sorted([*found, ("", 0, 0, start, end)], key=lambda span: -sum(span[3:]))
    if not found:
        return Answer(example.id, (_NOTHING,), null_odds)
    scores = np.array([sum(span[3:]) for span in found])
    weights = np.exp(scores - scores[0])
    shares = (weights / weights.sum()).tolist()
    return Answer(
        example.id, tuple(AnswerSpan(*span, share) for span, share in zip(found, shares, strict=True)), null_odds
    )


def decode_all(
    examples: Sequence[QuestionExample],
    rows: EncodedRows,
    windows: Sequence[Window],
    start_logits: Sequence[np.ndarray],
    end_logits: Sequence[np.ndarray],
    **options: Any,
) -> Iterator[Answer]:
    """Yields the best answers to every question, in order.

    Args:
        examples: the questions.
        rows: of all of them, as `PassageEncoder` made them, one after the other.
        windows: one for each row.
        start_logits: likewise, `[tokens]`; padding may follow.
        end_logits: likewise.
        **options: of `decode`.
    """
    edges = np.searchsorted(rows.examples, np.arange(len(examples) + 1))
    for example, first, last in zip(examples, edges[:-1], edges[1:], strict=True):
        yield decode(example, windows[first:last], start_logits[first:last], end_logits[first:last], **options)


def official_predictions(answers: Iterable[Answer], null_threshold: float = 0.0) -> dict[str, str]:
    """Returns predictions in the official format: texts by question id, "" for no answer."""
    return {answer.id: answer.text(null_threshold) for answer in answers}


def official_null_odds(answers: Iterable[Answer]) -> dict[str, float]:
    """Returns the odds of there being no answer by question id, as the v2.0 evaluator reads them."""
    return {answer.id: answer.null_odds for answer in answers}


def official_n_best(answers: Iterable[Answer]) -> dict[str, list[dict[str, str | float]]]:
    """Returns the n best by question id, in the layout of the original's nbest_predictions.json."""
    keys = ("text", "probability", "start_logit", "end_logit")
    return {answer.id: [{key: getattr(span, key) for key in keys} for span in answer.spans] for answer in answers}


def _best_spans(
    window: Window, start_logits: np.ndarray, end_logits: np.ndarray, count: int, max_answer_len: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns scores, first and last pieces of a window's best spans that begin where the window is the best."""
    length = len(window.starts)
    offset = window.offset
    if not length:
        return np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64)
    starts = np.asarray(start_logits[offset : offset + length], np.float64)
    starts = np.where(window.has_most_context, starts, -np.inf)
    ends = np.full(length + max_answer_len - 1, -np.inf)
    ends[:length] = end_logits[offset : offset + length]
    # [first piece, number of pieces - 1]
    scores = starts[:, None] + np.lib.stride_tricks.sliding_window_view(ends, max_answer_len)
    flat = scores.ravel()
    chosen = np.argpartition(flat, -count)[-count:] if len(flat) > count else np.arange(len(flat))
    chosen = np.sort(chosen[np.isfinite(flat[chosen])])
    first, more = np.divmod(chosen, max_answer_len)
    return flat[chosen], first, first + more
