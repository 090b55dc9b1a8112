"""What a recipe of fine-tuning makes of an epoch's steps."""

import pytest

from bert_jax.tasks.finetuning_recipe import FineTune
from bert_jax.training.recipe import Optimizer


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("wanted", [1, 2, 3, 4, 7])
def test_no_more_evaluations_than_asked_for(wanted, epochs):
    """The one at the end counts too: it must not follow another by a step or two."""
    recipe = FineTune(evaluations_per_epoch=wanted, epochs=epochs, learning_rate=5e-5)
    for steps_per_epoch in range(1, 60):
        total = recipe.total_steps(steps_per_epoch)
        evaluated = {*range(0, total + 1, recipe.eval_every(steps_per_epoch)), total} - {0}
        assert 1 <= len(evaluated) <= wanted * epochs


def test_none_but_at_the_end():
    assert FineTune(evaluations_per_epoch=0).eval_every(100) == 0


def test_identity_says_of_muon_what_only_muon_has():
    adamw, muon = (FineTune(optimizer=Optimizer(kind)).identity() for kind in ("adamw", "muon"))
    assert muon.keys() - adamw.keys() == {"Optimizer.muon_learning_rate_factor", "Optimizer.muon_momentum"}
    assert {name for name in adamw if adamw[name] != muon[name]} == {"Optimizer.kind"}
