"""Parameters of several models that share one encoder, as one tree: {"bert": ..., "tasks": {name: heads}}.

Importable without JAX: what is done here is done to dicts.
"""

from collections.abc import Mapping
from typing import Any

ENCODER, TASKS, POOLER = "bert", "tasks", "pooler"
_PRETRAINING_HEADS = ("masked_lm", "next_sentence")


def share_encoder(models: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns one tree for trees like the parameters of models with the same encoder.

    Args:
        models: by the task's name. The encoder is that of the first with a pooler; of the first where none has one.
    """
    encoders = [model[ENCODER] for model in models.values()]
    encoder = next((one for one in encoders if POOLER in one), encoders[0])
    heads = {name: {key: part for key, part in model.items() if key != ENCODER} for name, model in models.items()}
    return {ENCODER: encoder, TASKS: heads}


def model_of_task(shared: Mapping[str, Any], name: str, *, with_pooler: bool) -> dict[str, Any]:
    """Returns the tree of one task's model.

    Args:
        shared: of `share_encoder`.
        name: of the task.
        with_pooler: whether its model has one; what others have is left out then.
    """
    encoder = {key: part for key, part in shared[ENCODER].items() if with_pooler or key != POOLER}
    return {ENCODER: encoder, **shared[TASKS][name]}


def share_pretraining_heads(parameters: Mapping[str, Any], shared: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns a single model's tree with its heads for words and pairs under each task that has such heads.

    Args:
        parameters: of any model.
        shared: of `share_encoder`, or a single model's: the tree that is to begin with those parameters.
    """
    tasks = shared.get(TASKS)
    if tasks is None or TASKS in parameters:
        return parameters
    taken = {
        name: {head: _copied(parameters[head]) for head in _PRETRAINING_HEADS if head in own and head in parameters}
        for name, own in tasks.items()
    }
    used = {head for heads in taken.values() for head in heads}
    return {**{key: part for key, part in parameters.items() if key not in used}, TASKS: taken}


def _copied(tree: Any) -> Any:
    """Returns a tree of arrays of its own: a training step gives each of its parameters up to the next."""
    return {key: _copied(part) for key, part in tree.items()} if isinstance(tree, Mapping) else tree.copy()
