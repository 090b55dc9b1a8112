"""What a recipe of fine-tuning leaves open, decided: as the run began, or by the model that is tuned."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from bert_jax.tasks.finetuning_recipe import FineTune

# That of Devlin et al. 2018, whatever the model was pre-trained with: a small one, which had nothing to overfit then,
# sees a task's few examples several times.
DROPOUT = 0.1
_BASE_WIDTH, _BASE_RATE = 768, 5e-5
_DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob")


def default_learning_rate(hidden_size: int) -> float:
    """Returns a peak for a model of that width: 5e-5 at 768, as published for BERT-base, and inversely proportional.

    Adam's updates have the same size whatever the gradient's, and the sum over a wider input adds up more of them (Yang
    et al. 2021, table 3). Rounded to two digits.
    """
    return float(f"{_BASE_RATE * _BASE_WIDTH / hidden_size:.1e}")


def settle(
    recipe: FineTune, hidden_size: Callable[[], int], begun: Mapping[str, Any] | None, *, has_model: bool
) -> tuple[FineTune, list[str]]:
    """Decides the learning rate and the dropout that a recipe leaves open.

    Args:
        recipe: where they may be None.
        hidden_size: returns the width of the model that is tuned; called if it is needed.
        begun: what the run is that goes on, by names such as "finetune.learning_rate": it keeps what it began with.
            None for a new one.
        has_model: whether a model is tuned, and not an architecture with random weights, which says its own dropout.

    Returns:
        The recipe, and what was decided here, a line for each, to be said.
    """
    begun = begun or {}
    kept = {name: begun[f"finetune.{name}"] for name in ("learning_rate", *_DROPOUTS) if f"finetune.{name}" in begun}
    values = {name: value for name, value in kept.items() if getattr(recipe, name) is None}
    said = []
    if recipe.learning_rate is None and "learning_rate" not in kept:
        width = hidden_size()
        values["learning_rate"] = default_learning_rate(width)
        said.append(f"learning rate {values['learning_rate']:g}, which suits a width of {width}: --learning_rate")
    chosen = [name for name in _DROPOUTS if has_model and getattr(recipe, name) is None and name not in kept]
    if chosen:
        values |= dict.fromkeys(chosen, DROPOUT)
        said.append(f"dropout {DROPOUT:g}, whatever the model was pre-trained with: finetune.{chosen[0]}")
    return dataclasses.replace(recipe, **values), said
