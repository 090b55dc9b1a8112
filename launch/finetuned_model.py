"""A fine-tuned model opened for use: the task that it was tuned for, and its answers to rows of any length."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from bert_jax.errors import UserError
from bert_jax.interop.huggingface import PROBLEM_TYPES
from bert_jax.interop.pretrained import Pretrained
from bert_jax.interop.task_heads import choose_task
from bert_jax.models.execution import Execution
from bert_jax.tasks.classification import Classification
from bert_jax.tasks.encoding.encoded_rows import EncodedRows
from bert_jax.tasks.encoding.example_encoder import ExampleEncoder
from bert_jax.tasks.encoding.texts import HEAD
from bert_jax.tasks.finetuning_task import FineTuningTask
from bert_jax.tasks.finetuning_tasks import task_from_json
from bert_jax.text.json_files import expect_type
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training.saved_models import BEST_OR_LATEST
from launch.model_choice import open_chosen

if TYPE_CHECKING:
    from jax.sharding import Mesh

# The lengths that batches are padded to, each a program that is compiled when it is first needed.
_LENGTHS = (16, 32, 64, 128, 192, 256, 384, 512)


@dataclasses.dataclass(frozen=True)
class FineTuned:
    """A model and what it was tuned for.

    Attributes:
        model: the weights, not yet read.
        task: turns examples into rows, and outputs into answers.
        tokenizer: that it was tuned with.
        max_seq_len: tokens of a row at most.
        long_texts: what becomes of longer texts.
    """

    model: Pretrained
    task: FineTuningTask
    tokenizer: Tokenizer
    max_seq_len: int
    long_texts: str

    def encoder(self) -> ExampleEncoder:
        """Returns what turns examples into rows."""
        return self.task.encoder(self.tokenizer, self.max_seq_len, self.long_texts)


def define_task_name_flag(values: flags.FlagValues) -> None:
    """Adds --task_name, for launchers that use a fine-tuned model."""
    flags.DEFINE_string(
        "task_name",
        None,
        "Of a model of several tasks: the one to use it for, as the file of --tasks calls it.",
        flag_values=values,
    )


def open_finetuned(path: str, checkpoint: str | None, task_name: str | None = None) -> FineTuned:
    """Opens a model; imports no JAX.

    Args:
        path: the --workdir of a fine-tuning run or one of its checkpoints, or what such a model was converted to; or a
            directory of Hugging Face's with a classifier of texts and the names of its labels.
        checkpoint: of a run, "best", "latest" or a step; the best, or the latest where none was evaluated, if None.
        task_name: of a run of several tasks, the one to use the model for; see `choose_task`.

    Raises:
        UserError: there is no model, or it is not tuned for any task, or for several and none is chosen.
    """
    model, run = choose_task(open_chosen(path, checkpoint or BEST_OR_LATEST), task_name)
    tuned = run.get("finetuning")
    if tuned is None and model.model_class == Classification.model_class and model.labels:
        kinds = {problem_type: kind for kind, problem_type in PROBLEM_TYPES.items()}
        # One label cannot be told from another: it is a number.
        kind = kinds.get(run.get("problem_type"), "single" if len(model.labels) > 1 else "float")
        if kind == "float" and len(model.labels) > 1:
            raise UserError(
                f"{model.path} predicts {len(model.labels)} numbers of a text, and only one can be: use another"
            )
        task = Classification(kind, None if kind == "float" else model.labels)
        length = min(512, model.config.max_position_embeddings)
        tuned = {**task.to_json(), "max_seq_len": length, "long_texts": HEAD}
    if tuned is None:
        raise UserError(
            f"{model.path} is a {model.model_class} that is not fine-tuned for a task: tune it with python -m"
            " launch.finetune"
        )
    # What the dev set decided, such as a threshold, stands among its metrics.
    task = task_from_json(tuned, run.get("validation"))
    place, remedy = f"{model.path}: finetuning", "use another checkpoint"
    max_seq_len = expect_type(tuned.get("max_seq_len"), int, f"{place}.max_seq_len", remedy)
    long_texts = expect_type(tuned.get("long_texts"), str, f"{place}.long_texts", remedy)
    if not 0 < max_seq_len <= model.config.max_position_embeddings:
        raise UserError(
            f"{place}.max_seq_len is {max_seq_len}, and the model has {model.config.max_position_embeddings} positions:"
            f" {remedy}"
        )
    return FineTuned(model, task, model.load_tokenizer(), max_seq_len, long_texts)


class Answers:
    """A model's outputs for rows, one compiled program for each length of batches."""

    def __init__(self, tuned: FineTuned, mesh: "Mesh", batch_size: int, dtype: str):
        """Reads the weights."""
        import jax

        from bert_jax.models.parameters import restrict
        from bert_jax.parallel.mesh import check_batch
        from bert_jax.parallel.mesh_spec import check_heads
        from bert_jax.parallel.sharding import param_shardings

        config = tuned.model.config
        check_heads(mesh.shape["tensor"], config.num_attention_heads)
        check_batch(mesh, batch_size, 1, "--batch_size")
        self._mesh, self._batch_size = mesh, batch_size
        self._objective = tuned.task.objective(config, Execution(dtype=dtype))
        # Without the heads of auxiliary losses, which lay beside the task's.
        parameters = restrict(tuned.model.load_parameters(), self._objective.logical_axes())
        self._params = jax.device_put(parameters, param_shardings(mesh, self._objective.logical_axes(), parameters))
        self._lengths = sorted({min(length, tuned.max_seq_len) for length in _LENGTHS} | {tuned.max_seq_len})
        self._programs: dict[tuple[int, bool], Any] = {}

    def of(self, rows: EncodedRows, with_loss: bool = False) -> tuple[dict[str, float], dict[str, list[np.ndarray]]]:
        """Returns the statistics' sums (none without targets) and the outputs; see `outputs_of_rows`."""
        from bert_jax.tasks.finetuning_batches import outputs_of_rows

        programs = _Programs(self._lengths, lambda length: self._program(rows, length, with_loss))
        return outputs_of_rows(programs, self._params, rows, self._batch_size, self._mesh)

    def mean_loss(self, statistics: Mapping[str, float]) -> float:
        """The loss of summed statistics."""
        return float(self._objective.metrics(statistics)["loss"])

    def _program(self, rows: EncodedRows, length: int, with_loss: bool) -> Any:
        from bert_jax.parallel.mesh import abstract_batch
        from bert_jax.training.compilation import compile_outputs

        if (length, with_loss) not in self._programs:
            shapes = abstract_batch(self._mesh, rows.shapes(self._batch_size, length))
            compiled = compile_outputs(self._objective, self._params, shapes, with_statistics=with_loss)
            self._programs[length, with_loss] = compiled
        return self._programs[length, with_loss]


class _Programs(Mapping[int, Any]):
    """Programs by length, each made when it is asked for."""

    def __init__(self, lengths: Sequence[int], make: Any):
        self._lengths, self._make = lengths, make

    def __getitem__(self, length: int) -> Any:
        return self._make(length)

    def __iter__(self) -> Iterator[int]:
        return iter(self._lengths)

    def __len__(self) -> int:
        return len(self._lengths)
