"""What a recipe leaves open is decided by the model's width, or by how the run began."""

import pytest

from bert_jax.tasks.finetuning_defaults import default_learning_rate, settle
from bert_jax.tasks.finetuning_recipe import FineTune


def never():
    raise AssertionError("the model is not looked at")


@pytest.mark.parametrize(("width", "rate"), [(768, 5e-5), (384, 1e-4), (128, 3e-4), (1024, 3.8e-5), (312, 1.2e-4)])
def test_the_rate_follows_the_width(width, rate):
    assert default_learning_rate(width) == rate
    recipe, said = settle(FineTune(), lambda: width, None, has_model=True)
    assert recipe.learning_rate == rate
    assert f"learning rate {rate:g}, which suits a width of {width}: --learning_rate" in said


def test_what_is_given_stays():
    given = FineTune(learning_rate=2e-5, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.3)
    assert settle(given, never, None, has_model=True) == (given, [])
    recipe, said = settle(FineTune(learning_rate=2e-5, hidden_dropout_prob=0.2), never, None, has_model=True)
    assert (recipe.hidden_dropout_prob, recipe.attention_probs_dropout_prob) == (0.2, 0.1)
    (line,) = said
    assert line.startswith("dropout 0.1") and "finetune.attention_probs_dropout_prob" in line


def test_random_weights_have_the_dropout_of_their_architecture():
    recipe, said = settle(FineTune(), lambda: 128, None, has_model=False)
    assert recipe.hidden_dropout_prob is None and recipe.attention_probs_dropout_prob is None
    assert len(said) == 1 and "learning rate" in said[0]


@pytest.mark.parametrize("dropout", [None, 0.1, 0.0])
def test_a_run_that_goes_on_keeps_what_it_began_with(dropout):
    """Also one of before the model's own dropout was replaced, which noted none."""
    begun = {
        "finetune.learning_rate": 5e-5,
        "finetune.hidden_dropout_prob": dropout,
        "finetune.attention_probs_dropout_prob": dropout,
    }
    recipe, said = settle(FineTune(), never, begun, has_model=True)
    assert (recipe.learning_rate, recipe.hidden_dropout_prob) == (5e-5, dropout) and said == []
    assert recipe.attention_probs_dropout_prob == dropout
    # Another one that is given is for `check_identity` to refuse.
    assert settle(FineTune(learning_rate=1e-3), never, begun, has_model=True)[0].learning_rate == 1e-3
