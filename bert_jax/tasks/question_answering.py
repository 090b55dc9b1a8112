"""Question answering: the span of a passage that answers, or none (Devlin et al. 2018, sections 4.2 and 4.3)."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bert_jax.config import BertConfig
from bert_jax.errors import UserError
from bert_jax.models.execution import Execution
from bert_jax.tasks.encoding.answer_spans import Answer, decode_all, official_n_best, official_null_odds
from bert_jax.tasks.encoding.encoded_rows import EncodedRows
from bert_jax.tasks.encoding.passages import PassageEncoder
from bert_jax.tasks.examples.example_types import QuestionExample
from bert_jax.tasks.examples.places import BadRows
from bert_jax.tasks.scores.answers import (
    CMRC,
    EVALUATORS,
    evaluator_for,
    fractions,
    score_answers,
    squad2_scores,
    tune_null_threshold,
)
from bert_jax.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from bert_jax.tasks.objectives import SpanObjective

# Tokens of an answer at most: that of the original's run_squad; and in Chinese, where each character is a token, what
# holds every answer of CMRC 2018's dev set (30 would miss one in seventeen).
_MAX_ANSWER_LEN, _MAX_ANSWER_LEN_CHINESE = 30, 80


@dataclasses.dataclass(frozen=True)
class PassageReading:
    """How passages are read and answers looked for. The defaults are those of the original's run_squad.

    Attributes:
        doc_stride: tokens from the beginning of a window of a long passage to that of the next.
        max_question_len: tokens of a question at most.
        max_answer_len: tokens of an answer at most; if None 30, and 80 in Chinese.
        n_best: how many answers a prediction lists.
    """

    doc_stride: int = 128
    max_question_len: int = 64
    max_answer_len: int | None = None
    n_best: int = 20

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            if value is not None and value < 1:
                raise UserError(f"{name} must be at least 1, not {value}")


class QuestionAnswering:
    """See the module and `FineTuningTask`. Long passages are always read in windows.

    Metrics are exact_match and f1 between 0 and 1, as the official evaluator of `evaluator` computes them. Where there
    may be no answer, also best_f1, with the null threshold that serves these examples best; null_threshold, which
    that is; and f1 of the questions with an answer and without. A checkpoint keeps the null threshold with its metrics,
    and `tasks.finetuning_tasks.task_from_json` takes it from there: predictions are made with it.
    """

    name = "question_answering"
    model_class = "BertForQuestionAnswering"
    labels: Sequence[str] | None = None
    markers: Sequence[str] = ()

    def __init__(
        self,
        evaluator: str,
        may_be_impossible: bool,
        main_metric: str | None = None,
        reading: PassageReading | None = None,
        null_threshold: float = 0.0,
    ):
        """Makes the task.

        Args:
            evaluator: whose rules count: one of `scores.answers.EVALUATORS`.
            may_be_impossible: whether there may be no answer.
            main_metric: the one that decides; if None f1, or best_f1 where there may be no answer.
            reading: how passages are read.
            null_threshold: by how much the score of no answer must exceed that of the best answer to be predicted.
        """
        self.evaluator = evaluator
        self.may_be_impossible = may_be_impossible
        self.reading = reading or PassageReading()
        if self.reading.max_answer_len is None:
            longest = _MAX_ANSWER_LEN_CHINESE if evaluator == CMRC else _MAX_ANSWER_LEN
            self.reading = dataclasses.replace(self.reading, max_answer_len=longest)
        self.null_threshold = null_threshold
        self.main_metric = main_metric or ("best_f1" if may_be_impossible else "f1")
        self.larger_is_better = self.main_metric != "loss"
        known = ("f1", "exact_match", "loss", *(("best_f1",) if may_be_impossible else ()))
        if self.main_metric not in known:
            raise UserError(f"there is no metric {self.main_metric!r:.60} here: choose one of {', '.join(known)}")
        if evaluator not in EVALUATORS:
            raise UserError(f"there is no evaluator {evaluator!r:.60}: choose one of {', '.join(EVALUATORS)}")

    def with_null_threshold(self, null_threshold: float) -> "QuestionAnswering":
        """Returns the task with another threshold."""
        return QuestionAnswering(
            self.evaluator, self.may_be_impossible, self.main_metric, self.reading, null_threshold=null_threshold
        )

    @classmethod
    def of(
        cls,
        training: Sequence[QuestionExample],
        dev: Sequence[QuestionExample],
        main_metric: str | None = None,
        evaluator: str | None = None,
        reading: PassageReading | None = None,
    ) -> "QuestionAnswering":
        """Makes the task of examples: there may be no answer if one of those for training has none."""
        may_be_impossible = any(example.is_impossible for example in training)
        return cls(evaluator or evaluator_for([*training, *dev]), may_be_impossible, main_metric, reading)

    def to_json(self) -> dict[str, Any]:
        """See `FineTuningTask`."""
        return {
            "task": self.name,
            "evaluator": self.evaluator,
            "may_be_impossible": self.may_be_impossible,
            "main_metric": self.main_metric,
            **dataclasses.asdict(self.reading),
            "null_threshold": self.null_threshold,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "QuestionAnswering":
        """Inverse of `to_json`."""
        reading = PassageReading(**{field.name: values[field.name] for field in dataclasses.fields(PassageReading)})
        names = ("evaluator", "may_be_impossible", "main_metric", "null_threshold")
        return cls(reading=reading, **{name: values[name] for name in names})

    def objective(self, config: BertConfig, execution: Execution) -> "SpanObjective":
        """See `FineTuningTask`."""
        from bert_jax.tasks.objectives import SpanObjective

        return SpanObjective(config, execution=execution)

    def usable(self, examples: Iterable[QuestionExample], bad_rows: BadRows) -> Iterator[QuestionExample]:
        """See `FineTuningTask`: all."""
        return iter(examples)

    def encoder(self, tokenizer: Tokenizer, max_seq_len: int, long_texts: str) -> PassageEncoder:
        """See `FineTuningTask`; the targets are those of `SpanObjective`."""
        return PassageEncoder(tokenizer, max_seq_len, self.reading.doc_stride, self.reading.max_question_len)

    def score(self, examples: Sequence[QuestionExample], rows: EncodedRows, outputs: Any) -> dict[str, float]:
        """See `FineTuningTask`, and the class."""
        answers = list(self._answers(examples, rows, outputs))
        texts = {answer.id: answer.text(self.null_threshold) for answer in answers}
        scores = fractions(score_answers(self.evaluator, examples, texts))
        if not self.may_be_impossible:
            return scores
        spoken, odds = {answer.id: answer.best.text for answer in answers}, official_null_odds(answers)
        official = squad2_scores(examples, spoken, odds, self.null_threshold)
        named = {"HasAns_f1": "has_answer_f1", "NoAns_f1": "no_answer_f1", "best_f1": "best_f1"}
        scores |= {ours: official[theirs] / 100 for theirs, ours in named.items() if theirs in official}
        return {**scores, "null_threshold": tune_null_threshold(examples, spoken, odds)}

    def baseline(self, training: Sequence[QuestionExample], examples: Sequence[QuestionExample]) -> dict[str, float]:
        """See `FineTuningTask`: no answer to any question, where that may be."""
        if not self.may_be_impossible:
            return {}
        scores = fractions(score_answers(self.evaluator, examples, {example.id: "" for example in examples}))
        return {**scores, "best_f1": scores["f1"]}

    def report(self, examples: Sequence[QuestionExample], rows: EncodedRows, outputs: Any) -> list[str]:
        """See `FineTuningTask`: the official evaluator's own names and percentages."""
        answers = list(self._answers(examples, rows, outputs))
        texts = {answer.id: answer.text(self.null_threshold) for answer in answers}
        odds = official_null_odds(answers) if self.may_be_impossible else None
        scores = score_answers(self.evaluator, examples, texts, odds)
        return [f"{self.evaluator}: {', '.join(f'{name} {value:.4f}' for name, value in scores.items())}"]

    def predictions(
        self, examples: Sequence[QuestionExample], rows: EncodedRows, outputs: Any
    ) -> Iterator[dict[str, Any]]:
        """See `FineTuningTask`.

        `answer` is the text that the official format has for the `id`, "" for none; `start` and `end` are its place in
        the context in characters, and null where there is no answer. `n_best` has the layout of the original's
        nbest_predictions.json; `null_odds`, where there may be no answer, is the value in its null_odds.json.
        """
        for answer in self._answers(examples, rows, outputs):
            text = answer.text(self.null_threshold)
            chosen = next((span for span in answer.spans if span.text == text), answer.best)
            prediction = {
                "id": answer.id,
                "answer": text,
                "start": chosen.start if text else None,
                "end": chosen.end if text else None,
                "probability": chosen.probability,
            }
            if self.may_be_impossible:
                prediction["null_odds"] = float(answer.null_odds)
            yield {**prediction, "n_best": official_n_best([answer])[answer.id]}

    def _answers(self, examples: Sequence[QuestionExample], rows: EncodedRows, outputs: Any) -> Iterator[Answer]:
        logits = outputs["logits"]
        return decode_all(
            examples,
            rows,
            rows.details,
            [values[:, 0] for values in logits],
            [values[:, 1] for values in logits],
            may_be_impossible=self.may_be_impossible,
            n_best=self.reading.n_best,
            max_answer_len=self.reading.max_answer_len,
        )
