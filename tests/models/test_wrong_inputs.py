"""Models refuse input that they cannot make sense of; a compiled program, which cannot refuse, answers NaN."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.errors import UserError
from bert_jax.models.bert import BertModel
from bert_jax.models.execution import Execution
from bert_jax.models.heads import NextSentenceHead
from bert_jax.models.parameters import Functional
from bert_jax.models.registry import build_model

_NAMES = ("input_ids", "token_type_ids", "position_ids", "segment_ids")
# The vocabulary of 50 is padded to 128.
_WRONG = [
    ("input_ids", 50, "input_ids: the largest is 50, and the numbers of the vocabulary are 0 to 49"),
    ("input_ids", 1000, "input_ids: the largest is 1000, "),
    ("input_ids", -1, "input_ids: the smallest is -1, "),
    ("token_type_ids", 2, "token_type_ids: the largest is 2, and the numbers of the token types are 0 to 1"),
    ("token_type_ids", -1, "token_type_ids: the smallest is -1, "),
    ("position_ids", 32, "position_ids: the largest is 32, and the numbers of the model's positions are 0 to 31"),
    ("position_ids", -1, "position_ids: the smallest is -1, "),
]


def arrays(**wrong):
    """Two texts of five tokens, the last token of the second with the wrong number."""
    found = {name: np.full((2, 5), int(name == "segment_ids"), np.int32) for name in _NAMES}
    for name, value in wrong.items():
        found[name][1, -1] = value
    return found


@pytest.fixture(scope="module")
def model(config):
    return Functional(lambda rngs: BertModel(config, with_pooler=False, rngs=rngs))


@pytest.fixture(scope="module")
def compiled(model):
    return jax.jit(model.apply)


@pytest.mark.parametrize(("name", "value", "message"), _WRONG)
def test_a_number_that_there_is_not_is_refused_and_compiled_it_is_nan(
    config, fill, model, compiled, name, value, message
):
    batch = arrays(**{name: value})
    with pytest.raises(UserError, match=message):
        model.apply(fill(model, config), *batch.values())
    with pytest.raises(UserError, match=message):
        model.apply(fill(model, config), *map(jnp.asarray, batch.values()))
    hidden = compiled(fill(model, config), *batch.values())
    assert np.isnan(hidden[1]).all() and np.isfinite(hidden[0]).all()


def _under_scan(function):
    """Has a loop call a function of ids, which are traced then."""
    return lambda ids: jax.lax.scan(lambda carry, one: (carry, function(one)), 0, ids[None])[1][0]


@pytest.mark.parametrize(
    "transform",
    [jax.jit, lambda function: lambda ids: jax.vmap(function)(ids[None])[0], _under_scan],
    ids=["jit", "vmap", "scan"],
)
def test_arrays_that_a_traced_function_closes_over_are_taken_and_checked(config, fill, model, transform):
    """They are known there, and what is computed from them is not."""
    parameters = fill(model, config)

    def encode(**wrong):
        _, *others = map(jnp.asarray, arrays(**wrong).values())
        return transform(lambda ids: model.apply(parameters, ids, *others))(jnp.asarray(arrays()["input_ids"]))

    expected = model.apply(parameters, *arrays().values())
    np.testing.assert_allclose(encode(), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="token_type_ids: the largest is 2"):
        encode(token_type_ids=2)


def test_arrays_that_a_gradient_closes_over_are_taken(config, fill, model):
    inputs = [jnp.asarray(array) for array in arrays().values()]
    gradient = jax.jit(jax.grad(lambda parameters: jnp.sum(model.apply(parameters, *inputs) ** 2)))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient(fill(model, config))))


class _OnOtherProcessesToo(np.ndarray):
    """Stands for an array that this process holds a part of; looking at its numbers fails."""

    is_fully_addressable = False

    def min(self, *_, **__):
        raise AssertionError("the array was fetched")

    max = __array__ = min


def test_arrays_of_several_processes_are_not_fetched(config):
    ids = np.zeros((2, 5), np.int32).view(_OnOtherProcessesToo)
    with pytest.raises(AssertionError, match="fetched"):
        ids.max()
    from bert_jax.models.embeddings import _checked

    assert not np.asarray(_checked(ids, 5, "input_ids", "the vocabulary")).any()


@pytest.mark.parametrize(
    ("ids", "given"),
    [
        (np.zeros((2, 5), np.float32), "float32"),
        (jnp.zeros((2, 5)), "float32"),
        (np.zeros((2, 5), bool), "bool"),
        ([[0] * 5] * 2, "a list"),
        (None, "a NoneType"),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", _NAMES[:3])
def test_what_is_not_an_array_of_whole_numbers_is_refused(config, fill, model, name, ids, given):
    message = f"{name} must be an array of whole numbers, not {given}: give such as jnp.asarray"
    with pytest.raises(TypeError, match=message):
        model.apply(fill(model, config), *{**arrays(), name: ids}.values())


def test_positions_by_formula_end_too(config, fill):
    config = dataclasses.replace(config, position_embedding_type="sinusoidal")
    model = Functional(lambda rngs: BertModel(config, with_pooler=False, rngs=rngs))
    hidden = jax.jit(model.apply)(fill(model, config), *arrays(position_ids=32).values())
    assert np.isnan(hidden[1]).all() and np.isfinite(hidden[0]).all()


def test_the_first_and_the_last_of_everything_are_taken(config, fill, model):
    last = arrays(input_ids=49, token_type_ids=1, position_ids=31)
    assert np.isfinite(model.apply(fill(model, config), *last.values())).all()


def test_parameters_of_another_model_are_refused_with_the_names_of_both(config, fill):
    encoder = Functional(lambda rngs: BertModel(config, rngs=rngs))
    head = Functional(lambda rngs: NextSentenceHead(config, execution=Execution(), rngs=rngs))
    with pytest.raises(UserError) as of_encoder:
        encoder.apply(fill(head, config), *arrays().values())
    assert "are not those of a BertModel, which has embeddings/" in str(of_encoder.value)
    assert "it lacks embeddings/" in str(of_encoder.value) and "it has dense/bias, dense/kernel" in str(
        of_encoder.value
    )
    with pytest.raises(UserError, match=r"NextSentenceHead, which has dense/bias, dense/kernel: it lacks dense/bias"):
        head.apply(fill(encoder, config), jnp.zeros((2, 16)))
    assert "\n" not in str(of_encoder.value)


def test_each_difference_is_named(config, fill):
    model = build_model("BertForTokenClassification", config, num_labels=3)
    parameters = fill(model, config)

    def refused(changed, message):
        with pytest.raises(UserError, match=message):
            model.apply(changed, arrays())
        with pytest.raises(UserError, match=message):
            jax.jit(model.apply)(changed, arrays())

    refused({"bert": parameters["bert"]}, "it lacks classifier/bias, classifier/kernel; give")
    refused({**parameters, "span": {"bias": jnp.zeros(2)}}, ": it has span/bias; give")
    other = fill(build_model("BertForTokenClassification", config, num_labels=4), config)
    shapes = (
        r"of another shape classifier/bias \[4\] instead of \[3\], classifier/kernel \[16, 4\] instead of \[16, 3\]"
    )
    refused({**parameters, "classifier": other["classifier"]}, shapes)
