"""Which further losses a fine-tuning recipe asks for, checked before JAX is imported, and the objective with them."""

from typing import TYPE_CHECKING

import numpy as np

from bert_jax.config import BertConfig
from bert_jax.errors import UserError
from bert_jax.models.execution import Execution
from bert_jax.tasks.encoding.encoded_rows import EncodedRows
from bert_jax.tasks.finetuning_recipe import FineTune
from bert_jax.tasks.pretraining_view import PretrainingView, second_texts
from bert_jax.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from bert_jax.tasks.objectives import ModelObjective, Objective


def check_auxiliary_losses(recipe: FineTune, config: BertConfig, rows: EncodedRows) -> None:
    """Raises a UserError if the model has no such layers, or the training rows are no pairs of texts."""
    last = config.num_computed_layers
    for layer in recipe.auxiliary_layers:
        if not 1 <= layer < last:
            raise UserError(
                f"finetune.auxiliary_layers: the model has {last} layers, and {layer} is none below the last: choose"
                f" from 1 to {last - 1}"
                if last > 1
                else "finetune.auxiliary_layers: the model has no layer below the last: leave it out"
            )
    if recipe.nsp_weight is not None:
        second_texts(rows, np.arange(len(rows)))


def pretraining_view(
    recipe: FineTune, rows: EncodedRows, tokenizer: Tokenizer, markers: tuple[str, ...]
) -> PretrainingView | None:
    """Returns what makes the arrays that the losses of pre-training need in a batch; None if there are none."""
    if recipe.mlm_weight is None and recipe.nsp_weight is None:
        return None
    return PretrainingView.of(rows, recipe.seed, tokenizer, markers, with_pairs=recipe.nsp_weight is not None)


def with_further_losses(
    objective: "ModelObjective", recipe: FineTune, config: BertConfig, execution: Execution
) -> "Objective":
    """Returns the objective with all losses that the recipe adds to it; itself if there are none. Imports JAX."""
    from bert_jax.tasks.layer_heads import LayerHeads
    from bert_jax.tasks.pretraining_losses import PretrainingLosses
    from bert_jax.tasks.r_drop import RDrop

    wrapped = objective
    if recipe.r_drop is not None:
        wrapped = RDrop(objective, recipe.r_drop)
    if recipe.auxiliary_layers:
        wrapped = LayerHeads(objective, recipe.auxiliary_layers, recipe.auxiliary_weight)
    if recipe.mlm_weight is not None or recipe.nsp_weight is not None:
        wrapped = PretrainingLosses(
            wrapped, config, mlm_weight=recipe.mlm_weight, nsp_weight=recipe.nsp_weight, execution=execution
        )
    return wrapped
