"""Classes that count more or less in the loss than others, such as rare ones more."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from bert_jax.errors import UserError

# So that all the rows of one class count as much together as all those of another.
BALANCED = "balanced"


def class_weights(choice: Sequence[float] | str, labels: Sequence[str], row_labels: np.ndarray) -> np.ndarray:
    """Returns the weight of each class, float32 `[labels]`.

    Args:
        choice: "balanced", rows / (labels * rows of the class); or one number for each label, in their order.
        labels: names of the classes.
        row_labels: of the training rows, int `[rows]`.

    Raises:
        UserError: the numbers are not as many as the labels, or not positive.
    """
    if choice == BALANCED:
        counts = np.bincount(row_labels, minlength=len(labels))
        # Of a listed label that no row has, the weight is never asked for.
        return (len(row_labels) / (len(labels) * np.maximum(counts, 1))).astype(np.float32)
    if len(choice) != len(labels):
        raise UserError(
            f"class_weights has {len(choice)} numbers, and there are {len(labels)} labels: give one for each, in the"
            f" order {', '.join(labels)}"
        )
    if not all(0 < weight < math.inf for weight in choice):
        raise UserError(f"class_weights must be numbers above 0, not {list(choice)!r}")
    return np.asarray(choice, np.float32)


class ClassWeigher:
    """Gives a batch's rows the weights of their classes; see `finetuning_batches.Weigh`."""

    def __init__(self, weights: np.ndarray):
        """Takes the weight of each class."""
        self._weights = weights

    def __call__(self, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns float32 `[batch]`; what is empty still counts for nothing."""
        return self._weights[batch["labels"]] * batch["row_weights"]
