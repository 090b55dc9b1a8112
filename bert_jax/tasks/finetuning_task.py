"""What fine-tuning asks of a task, seen from the files: how examples become rows, and outputs become answers.

Nothing here needs JAX but `objective`: files, labels and lengths are checked before it is imported.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from bert_jax.config import BertConfig
from bert_jax.models.execution import Execution
from bert_jax.tasks.encoding.encoded_rows import EncodedRows
from bert_jax.tasks.encoding.example_encoder import ExampleEncoder
from bert_jax.tasks.examples.places import BadRows
from bert_jax.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from bert_jax.tasks.objectives import Objective

# By name, one array for each unit of the rows that were run over.
Outputs = Mapping[str, Sequence[np.ndarray]]


class FineTuningTask(Protocol):
    """A kind of answer that a model is fine-tuned to give.

    Attributes:
        name: of the kind, as --task has it.
        model_class: what checkpoints call the model.
        labels: of the classes or tags, in the order of the logits; None where there are none.
        markers: words that are one token each wherever they stand; they are added to a vocabulary without them.
        main_metric: the one that the best checkpoint is chosen by.
        larger_is_better: whether it is.
    """

    name: str
    model_class: str
    labels: Sequence[str] | None
    markers: Sequence[str]
    main_metric: str
    larger_is_better: bool

    def to_json(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps, and `tasks.finetuning_tasks.task_from_json` makes the task from."""

    def objective(self, config: BertConfig, execution: Execution) -> "Objective":
        """Returns what is minimised; imports JAX."""

    def usable(self, examples: Iterable[Any], bad_rows: BadRows) -> Iterator[Any]:
        """Yields the examples that the task can learn from or answer, as they come.

        Args:
            examples: of any file of the task's kind.
            bad_rows: takes the others: those with a label that the task does not have.

        Raises:
            UserError: a bad row where that is fatal, or examples of another shape, such as pairs for single texts.
        """

    def encoder(self, tokenizer: Tokenizer, max_seq_len: int, long_texts: str) -> ExampleEncoder:
        """Returns what turns examples into rows."""

    def score(self, examples: Sequence[Any], rows: EncodedRows, outputs: Outputs) -> dict[str, float]:
        """Returns the metrics, `main_metric` among them; every example counts once."""

    def baseline(self, training: Sequence[Any], examples: Sequence[Any]) -> dict[str, float]:
        """Returns the metrics of answering without looking at the text; empty where there is no such answer."""

    def report(self, examples: Sequence[Any], rows: EncodedRows, outputs: Outputs) -> list[str]:
        """Returns lines for people beyond the metrics, such as a table of classes."""

    def predictions(self, examples: Sequence[Any], rows: EncodedRows, outputs: Outputs) -> Iterator[dict[str, Any]]:
        """Yields for each example, in order, its id and the answer as JSON values."""
