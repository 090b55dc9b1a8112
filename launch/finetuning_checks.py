"""What can be wrong with a fine-tuning run beside its files, found out before these are read."""

from collections.abc import Mapping

from absl import flags

from bert_jax.config import BertConfig
from bert_jax.models.execution import Execution
from bert_jax.models.registry import CLASSIFICATION_CLASSES
from bert_jax.tasks.auxiliary_losses import with_further_losses
from bert_jax.tasks.finetuning_recipe import FineTune
from launch.mesh_flags import check_layout
from launch.process_flags import is_one_of_several


def rows_of_steps(recipe: FineTune) -> dict[str, tuple[int, int]]:
    """Returns the rows of a step and its micro-batches, for `make_checked_mesh`."""
    return {"--batch_size": (recipe.batch_size, recipe.accumulation_steps)}


def check_before_reading(
    values: flags.FlagValues, recipe: FineTune, config: BertConfig, model_classes: Mapping[str, str]
) -> None:
    """Raises a UserError if the devices do not fit, or what is to be frozen is not there.

    One of several processes must not import JAX before it has met the others, and finds most of it out afterwards.

    Args:
        values: the flags.
        recipe: the choices.
        config: the architecture.
        model_classes: of each task; by its name, or of a single one by "".
    """
    check_layout(values, config.num_attention_heads, rows_of_steps(recipe))
    if not (recipe.frozen_layers or recipe.frozen) or is_one_of_several(values):
        return
    import jax

    from bert_jax.tasks.multitask import SharedEncoder
    from bert_jax.tasks.objectives import ModelObjective
    from bert_jax.training.trainable import update_factors

    execution = Execution()
    objectives = {}
    for name, model_class in model_classes.items():
        # However many labels there are, their parameters have the same names.
        labels = 2 if model_class in CLASSIFICATION_CLASSES else None
        objective = ModelObjective(model_class, config, labels, execution)
        objectives[name] = with_further_losses(objective, recipe, config, execution)
    trained = objectives[""] if "" in objectives else SharedEncoder(objectives)
    params = jax.eval_shape(trained.init, jax.random.key(0))
    update_factors(params, frozen_layers=recipe.frozen_layers, frozen=recipe.frozen)
