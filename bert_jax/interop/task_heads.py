"""One task's model out of a run of several tasks, whose checkpoints hold one encoder and the heads of all."""

import dataclasses
from typing import Any

from bert_jax.errors import UserError
from bert_jax.interop import huggingface
from bert_jax.interop.names import MODEL_PARTS
from bert_jax.interop.pretrained import Pretrained
from bert_jax.models.shared_encoder import POOLER, TASKS, model_of_task
from bert_jax.text.json_files import expect_type, show_json

_REMEDY = "use another checkpoint"


def choose_task(model: Pretrained, name: str | None) -> tuple[Pretrained, dict[str, Any]]:
    """Returns the model of one task, and what its checkpoint says of it, as if it had been tuned for that task alone.

    Of a directory of Hugging Face's that is what `huggingface.read_task` finds.

    Args:
        model: of any kind; one that holds no several tasks is returned as it is.
        name: of the task, as --task_name has it; may be None where there is one alone.

    Raises:
        UserError: there is no such task, there are several and none is named, or one is named where there are none.
    """
    run = dict(model.record)
    if model.kind == "huggingface":
        run = huggingface.read_task(model.path, model.model_class)
    tasks = expect_type(run.get(TASKS), dict[str, dict] | None, f"{model.path}: {TASKS}", _REMEDY)
    if tasks is None:
        if name is not None:
            raise UserError(
                f"--task_name={name} is for models of several tasks, and {model.path} is none: leave it out"
            )
        return model, run
    if not tasks:
        raise UserError(f"{model.path} is a model of no tasks: {_REMEDY}")
    listed = f"{model.path} is a model of the tasks {', '.join(map(str, tasks)):.400}"
    if name is None and len(tasks) > 1:
        raise UserError(f"{listed}: choose one by --task_name={next(iter(tasks))}")
    name = next(iter(tasks)) if name is None else name
    if name not in tasks:
        raise UserError(f"--task_name={name}: {listed}")
    own = tasks[name]
    place = f"{model.path}: {TASKS}[{name!r}]"
    expect_type(own.get("labels"), list[str] | None, f"{place}.labels", _REMEDY)
    if expect_type(own.get("model_class"), str, f"{place}.model_class", _REMEDY) not in MODEL_PARTS:
        raise UserError(f"{place} is a {show_json(own['model_class'])}: known are {', '.join(MODEL_PARTS)}")
    prefix = f"{name}/"
    validation = {
        metric.removeprefix(prefix): value
        for metric, value in (run.get("validation") or {}).items()
        if metric.startswith(prefix)
    }
    chosen = dataclasses.replace(
        model,
        model_class=own["model_class"],
        labels=tuple(own["labels"]) if own.get("labels") else None,
        _load=lambda: _load(model, name, with_pooler=POOLER in MODEL_PARTS[own["model_class"]]),
    )
    return chosen, {**run, **own, "validation": validation}


def _load(model: Pretrained, name: str, *, with_pooler: bool) -> tuple[dict[str, Any], Any]:
    parameters = model.load_parameters()
    return model_of_task(parameters, name, with_pooler=with_pooler), model.report
