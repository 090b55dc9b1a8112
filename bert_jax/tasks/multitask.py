"""Several tasks learned by one encoder: each objective as a task on the parameters that they share."""

from collections.abc import Mapping
from typing import Any

import jax

from bert_jax.models.parameters import Parameters
from bert_jax.models.shared_encoder import ENCODER, POOLER, model_of_task, share_encoder
from bert_jax.tasks.objectives import Objective
from bert_jax.training.gradient_steps import key_of_task
from bert_jax.training.task import Batch, Scalars


class SharedEncoder:
    """The parameters of several objectives, whose encoders are one; see `models.shared_encoder`.

    Attributes:
        tasks: each objective on the shared parameters, by name, in order.
    """

    def __init__(self, objectives: Mapping[str, Objective]):
        """Takes the objectives by the task's name, all of the same architecture."""
        self._objectives = dict(objectives)
        self.tasks = {name: TaskOfSeveral(one, name) for name, one in self._objectives.items()}

    def init(self, key: jax.Array) -> Parameters:
        """Returns initial parameters; those of the first task are what it would begin with alone."""
        keys = (key_of_task(key, place) for place in range(len(self._objectives)))
        return share_encoder(
            {name: one.init(own) for (name, one), own in zip(self._objectives.items(), keys, strict=True)}
        )

    def logical_axes(self) -> Parameters:
        """Returns for each parameter the names of its axes."""
        return share_encoder({name: one.logical_axes() for name, one in self._objectives.items()})


class TaskOfSeveral:
    """One objective, see `tasks.objectives.Objective`, on parameters that hold the heads of others too."""

    def __init__(self, objective: Objective, name: str):
        """Wraps an objective."""
        self._objective = objective
        self._name = name
        self._with_pooler = POOLER in objective.logical_axes()[ENCODER]
        self.term_weights: Mapping[str, float] = objective.term_weights

    def _own(self, parameters: Parameters) -> Parameters:
        return model_of_task(parameters, self._name, with_pooler=self._with_pooler)

    def loss_weights(self, batch: Batch) -> Scalars:
        """Totals the weights of a batch."""
        return self._objective.loss_weights(batch)

    def loss(self, parameters: Parameters, batch: Batch, keys: jax.Array | None) -> tuple[Scalars, Scalars]:
        """Sums the losses; see `Task.loss`."""
        return self._objective.loss(self._own(parameters), batch, keys)

    def metrics(self, statistics: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the objective's metrics."""
        return self._objective.metrics(statistics)

    def outputs(self, parameters: Parameters, batch: Batch) -> dict[str, jax.Array]:
        """Returns what predictions are made from."""
        return self._objective.outputs(self._own(parameters), batch)
