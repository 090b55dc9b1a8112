"""The models by the names under which the field knows them. Importable without JAX."""

from typing import TYPE_CHECKING

from bert_jax.config import BertConfig
from bert_jax.errors import UserError
from bert_jax.models.execution import Execution

if TYPE_CHECKING:
    from bert_jax.models.parameters import Functional

# Those whose head has a logit for each label.
CLASSIFICATION_CLASSES = ("BertForSequenceClassification", "BertForTokenClassification")
MODEL_CLASSES = (
    "BertModel",
    "BertForPreTraining",
    "BertForMaskedLM",
    *CLASSIFICATION_CLASSES,
    "BertForQuestionAnswering",
)


def build_model(
    model_class: str, config: BertConfig, *, num_labels: int | None = None, execution: Execution | None = None
) -> "Functional":
    """Describes a model; nothing is computed until its `init`.

    Args:
        model_class: one of MODEL_CLASSES.
        config: the architecture, its vocab_size filled in.
        num_labels: logits of a classification; for those two classes only.
        execution: how it is computed; float32 and nothing recomputed if None.

    Returns:
        The model as functions of parameters whose root keys are `bert` and those of the heads. It is called with a
        batch and dropout keys; parts of it by name, such as
        `model.apply(parameters, input_ids, token_type_ids, position_ids, segment_ids, method="bert.hidden_states")`.

    Raises:
        UserError: there is no such class, or num_labels is missing where it belongs or given where it does not.
    """
    if model_class not in MODEL_CLASSES:
        raise UserError(f"unknown model class {model_class!r}: choose one of {', '.join(MODEL_CLASSES)}")
    is_classification = model_class in CLASSIFICATION_CLASSES
    if is_classification != (num_labels is not None) or (is_classification and num_labels < 1):
        wanted = "a positive number of labels" if is_classification else "no number of labels"
        raise UserError(f"{model_class} takes {wanted}, not {num_labels!r}")
    from bert_jax.models import bert, task_models
    from bert_jax.models.parameters import Functional

    classes = {
        "BertModel": bert.BertForFeatureExtraction,
        "BertForPreTraining": bert.BertForPreTraining,
        "BertForMaskedLM": bert.BertForMaskedLM,
        "BertForSequenceClassification": task_models.BertForSequenceClassification,
        "BertForTokenClassification": task_models.BertForTokenClassification,
        "BertForQuestionAnswering": task_models.BertForQuestionAnswering,
    }
    labels = (num_labels,) if is_classification else ()
    chosen = execution or Execution()
    return Functional(lambda rngs: classes[model_class](config, *labels, execution=chosen, rngs=rngs))


def build_layer_head(
    model_class: str, config: BertConfig, *, num_labels: int | None = None, execution: Execution | None = None
) -> "Functional":
    """Describes a head like that of a task's model, for the states of one layer: a `LayerHead`.

    Args:
        model_class: one with a head for a task.
        config: the architecture.
        num_labels: see `build_model`.
        execution: see `build_model`.
    """
    from bert_jax.models.layer_head import LayerHead
    from bert_jax.models.parameters import Functional

    chosen = execution or Execution()
    return Functional(
        lambda rngs: LayerHead(
            config,
            # The start and the end of an answer.
            num_labels or 2,
            with_pooler=model_class == "BertForSequenceClassification",
            with_dropout=model_class in CLASSIFICATION_CLASSES,
            execution=chosen,
            rngs=rngs,
        )
    )
