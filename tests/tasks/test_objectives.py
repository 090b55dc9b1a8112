"""The losses of fine-tuning against numpy, and that what fills up a batch counts for nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.config import BertConfig
from bert_jax.models.dropout import row_keys
from bert_jax.tasks.objectives import ChoiceObjective, SpanObjective, TextObjective, TokenObjective

_CONFIG = BertConfig(
    vocab_size=40,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=16,
    initializer_range=0.2,
)
_LENGTHS = (9, 6, 4)


def tokens(lengths, length):
    draw = np.random.default_rng(0)
    used = np.arange(length) < np.asarray(lengths)[..., None]
    return {
        "input_ids": np.where(used, draw.integers(5, 40, (*used.shape[:-1], 20))[..., :length], 0).astype(np.int32),
        "token_type_ids": np.zeros(used.shape, np.int32),
        "position_ids": np.where(used, np.arange(length), 0).astype(np.int32),
        "segment_ids": used.astype(np.int32),
        "row_weights": np.asarray([1, 0.5, 2], np.float32),
    }


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


def classes(logits, batch):
    losses = -np.take_along_axis(log_softmax(logits), batch["labels"][:, None], 1)[:, 0]
    return losses, batch["row_weights"]


def labels(logits, batch):
    chances = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    wanted = batch["labels"]
    losses = -(wanted * np.log(chances) + (1 - wanted) * np.log(1 - chances)).mean(axis=1)
    return losses, batch["row_weights"]


def value(logits, batch):
    return np.square(np.asarray(logits)[:, 0] - batch["labels"]), batch["row_weights"]


def tags(logits, batch):
    wanted = batch["labels"]
    losses = -np.take_along_axis(log_softmax(logits), np.maximum(wanted, 0)[..., None], -1)[..., 0]
    return losses, batch["row_weights"][:, None] * (wanted >= 0)


def span(logits, batch):
    losses = 0
    for side, name in enumerate(("start_positions", "end_positions")):
        scores = np.where(batch["segment_ids"] > 0, np.asarray(logits)[..., side], -np.inf)
        losses = losses - np.take_along_axis(log_softmax(scores), batch[name][:, None], 1)[:, 0] / 2
    return losses, batch["row_weights"]


def choice(logits, batch):
    scores = np.where(batch["segment_ids"].any(axis=-1), np.asarray(logits), -np.inf)
    return -np.take_along_axis(log_softmax(scores), batch["labels"][:, None], 1)[:, 0], batch["row_weights"]


_CASES = {
    "classes": (TextObjective(_CONFIG, "classes", 3), classes, {"labels": np.asarray([2, 0, 1], np.int32)}),
    "labels": (
        TextObjective(_CONFIG, "labels", 2),
        labels,
        {"labels": np.asarray([[1, 0], [1, 1], [0, 0]], np.float32)},
    ),
    "value": (TextObjective(_CONFIG, "value", 1), value, {"labels": np.asarray([0.3, -2, 4], np.float32)}),
    "tags": (TokenObjective(_CONFIG, 3), tags, None),
    "span": (
        SpanObjective(_CONFIG),
        span,
        {"start_positions": np.asarray([3, 0, 1], np.int32), "end_positions": np.asarray([5, 0, 1], np.int32)},
    ),
    "choice": (ChoiceObjective(_CONFIG), choice, {"labels": np.asarray([1, 0, 1], np.int32)}),
}


@pytest.fixture(params=_CASES)
def case(request):
    objective, reference, targets = _CASES[request.param]
    # The last question has two choices, the others three.
    lengths = [[9, 4, 5], [6, 6, 3], [4, 7, 0]] if request.param == "choice" else _LENGTHS
    batch = tokens(lengths, 10)
    if request.param == "tags":
        targets = {"labels": np.where(batch["segment_ids"] > 0, np.arange(10) % 4 - 1, -1).astype(np.int32)}
    params = jax.jit(objective.init)(jax.random.key(0))
    return objective, reference, params, {**batch, **targets}


def test_the_loss_against_numpy(case):
    objective, reference, params, batch = case
    losses, weights = reference(objective.outputs(params, batch)["logits"], batch)
    sums, statistics = objective.loss(params, batch, None)
    assert sums.keys() == objective.term_weights.keys() == objective.loss_weights(batch).keys()
    (term,) = sums
    np.testing.assert_allclose(sums[term], np.sum(losses * weights), rtol=1e-5)
    np.testing.assert_allclose(objective.loss_weights(batch)[term], np.sum(weights), rtol=1e-6)
    mean = np.sum(losses * weights) / np.sum(weights)
    np.testing.assert_allclose(objective.metrics(statistics)["loss"], mean, rtol=1e-5)
    assert float(statistics["tokens"]) == batch["segment_ids"].sum()


def test_padding_and_empty_rows_change_nothing(case):
    objective, _, params, batch = case
    by_token = [name for name, array in batch.items() if array.shape[-1:] == (10,) and array.ndim > 1]

    def widen(name, array):
        if name in by_token:
            fill = -1 if name == "labels" else 0
            array = np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, 4)], constant_values=fill)
        fill = -1 if name == "labels" and name in by_token else 0
        return np.pad(array, [(0, 2)] + [(0, 0)] * (array.ndim - 1), constant_values=fill)

    wider = {name: widen(name, array) for name, array in batch.items()}

    def loss(params, batch, keys):
        return sum(objective.loss(params, batch, keys)[0].values())

    np.testing.assert_allclose(loss(params, wider, None), loss(params, batch, None), rtol=2e-5)
    gradient = jax.grad(loss)(params, wider, row_keys(jax.random.key(1), jnp.arange(5)))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_a_choice_that_is_not_there_is_never_chosen(case):
    objective, _, params, batch = case
    if not isinstance(objective, ChoiceObjective):
        pytest.skip("for multiple choice")
    logits = np.asarray(objective.outputs(params, batch)["logits"])
    assert logits.shape == (3, 3) and logits[2, 2] < -1e8 and (logits[:2] > -1e3).all()
