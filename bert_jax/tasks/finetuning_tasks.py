"""All tasks of fine-tuning, by name; a checkpoint says in JSON which one its model was tuned for."""

from collections.abc import Mapping
from typing import Any

from bert_jax.errors import UserError
from bert_jax.tasks.classification import Classification
from bert_jax.tasks.finetuning_recipe import FineTune
from bert_jax.tasks.finetuning_task import FineTuningTask
from bert_jax.tasks.multiple_choice import MultipleChoice
from bert_jax.tasks.question_answering import QuestionAnswering
from bert_jax.tasks.relation import RelationExtraction
from bert_jax.tasks.tagging import Tagging
from bert_jax.text.json_files import expect_type, show_json

TASKS = {task.name: task for task in (Classification, Tagging, QuestionAnswering, MultipleChoice, RelationExtraction)}

# The fields that tasks keep in JSON, by name; a task has those of its own kind.
_TYPES = {
    "kind": str,
    "labels": list[str] | None,
    "main_metric": str | None,
    "markers": list[str],
    "is_pair": bool | None,
    "context_len": int,
    "evaluator": str,
    "may_be_impossible": bool,
    "num_choices": int,
    "doc_stride": int,
    "max_question_len": int,
    "max_answer_len": int | None,
    "n_best": int,
    "null_threshold": float,
    # Added by the recipe of the run.
    "max_seq_len": int,
    "long_texts": str,
}
_LEAST = {"context_len": 0}
_PLACE = "the record of what the model was tuned for is damaged"
_REMEDY = "use another checkpoint"

# What an evaluation finds on the dev set and predictions are made with.
_TUNED = ("null_threshold",)


def check_recipe(recipe: FineTune, task: FineTuningTask) -> None:
    """Raises a UserError if a choice of the recipe says nothing to the task."""
    kind = task.kind if isinstance(task, Classification) else None
    one_label, labels = "texts with one label each", "texts with labels"
    what = f"--labels={kind}" if kind else f"--task={task.name}"
    for name, is_for, fits in (
        ("few_shot", labels, kind in ("single", "multi")),
        ("class_weights", one_label, kind == "single"),
        ("r_drop", one_label, kind == "single"),
        ("nsp_weight", "pairs of texts", task.name not in (Tagging.name, RelationExtraction.name)),
        ("pooling", "answers for whole texts", task.model_class == Classification.model_class),
    ):
        if getattr(recipe, name) is not None and not fits:
            raise UserError(f"finetune.{name} is for {is_for}, and this is {what}: leave it out")
    if recipe.pooling == "entities" and task.name != RelationExtraction.name:
        raise UserError(f"finetune.pooling='entities' is for --task={RelationExtraction.name}, and this is {what}")


def task_from_json(values: Mapping[str, Any], validation: Mapping[str, float] | None = None) -> FineTuningTask:
    """Returns the task that was saved by its `to_json`.

    Args:
        values: what was saved; entries of others among them do not matter.
        validation: the metrics of the checkpoint, from which the task takes what was tuned on the dev set.

    Raises:
        UserError: there is no such task, or the record is damaged.
    """
    expect_type(validation, dict | None, f"{_PLACE}: validation", _REMEDY)
    tuned = {name: validation[name] for name in _TUNED if name in (validation or {})}
    values = {**expect_type(values, dict, f"{_PLACE}: it", _REMEDY), **tuned}
    name = expect_type(values.get("task"), str, f"{_PLACE}: task", _REMEDY)
    if name not in TASKS:
        raise UserError(f"the model is tuned for {show_json(name)}, and known are {', '.join(TASKS)}")
    for field, kind in _TYPES.items():
        if field in values:
            value = expect_type(values[field], kind, f"{_PLACE}: {field}", _REMEDY)
            if kind is int and value < _LEAST.get(field, 1):
                raise UserError(f"{_PLACE}: {field} is {value}: {_REMEDY}")
    if "labels" in values and values["labels"] is None and values.get("kind") != "float":
        raise UserError(f"{_PLACE}: there are no labels: {_REMEDY}")
    try:
        return TASKS[name].from_json(values)
    except KeyError as error:  # a field that is missing, or a kind that there is not
        raise UserError(f"{_PLACE}: there is no {error}: {_REMEDY}") from error
