"""R-Drop: the loss against numpy, and that it trains."""

import jax
import numpy as np
import pytest

from bert_jax.config import BertConfig
from bert_jax.models.dropout import fold_in_each, row_keys
from bert_jax.tasks.objectives import TextObjective
from bert_jax.tasks.r_drop import _SECOND_PASS, RDrop

_CONFIG = BertConfig(
    vocab_size=40,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=12,
    initializer_range=0.2,
    hidden_dropout_prob=0.3,
)
_PLAIN = TextObjective(_CONFIG, "classes", 3)


@pytest.fixture(scope="module")
def params():
    return jax.jit(_PLAIN.init)(jax.random.key(0))


@pytest.fixture(scope="module")
def batch():
    draw = np.random.default_rng(0)
    return {
        "input_ids": draw.integers(5, 40, (4, 10)).astype(np.int32),
        "token_type_ids": np.zeros((4, 10), np.int32),
        "position_ids": np.tile(np.arange(10, dtype=np.int32), (4, 1)),
        "segment_ids": np.ones((4, 10), np.int32),
        "labels": np.asarray([0, 2, 1, 0], np.int32),
        "row_weights": np.asarray([1, 0.5, 2, 0], np.float32),
    }


def test_the_loss_is_half_of_the_papers(params, batch):
    keys = row_keys(jax.random.key(1), np.arange(4))
    logs = []
    for pass_keys in (keys, fold_in_each(keys, _SECOND_PASS)):
        logits = np.asarray(jax.jit(_PLAIN.model.apply)(params, batch, pass_keys), np.float64)
        logs.append(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    likelihoods = -sum(log[np.arange(4), batch["labels"]] for log in logs)
    divergences = [(np.exp(p) * (p - q)).sum(axis=1) for p, q in (logs, logs[::-1])]
    papers = likelihoods + 4.0 * (divergences[0] + divergences[1]) / 2
    weights = batch["row_weights"]
    objective = RDrop(_PLAIN, 4.0)
    sums, statistics = jax.jit(objective.loss)(params, batch, keys)
    np.testing.assert_allclose(sums["task"], (papers / 2 * weights).sum(), rtol=1e-5)
    metrics = objective.metrics(statistics)
    np.testing.assert_allclose(metrics["loss"], (papers / 2 * weights).sum() / weights.sum(), rtol=1e-5)
    wanted = (sum(divergences) / 2 * weights).sum() / weights.sum()
    assert wanted > 1e-3
    np.testing.assert_allclose(metrics["divergence"], wanted, rtol=1e-4)


def test_without_dropout_it_is_the_objective_itself(params, batch):
    def evaluate(objective):
        # As the launchers do: one program for both.
        return jax.jit(lambda batch: (objective.loss(params, batch, None), objective.outputs(params, batch)))(batch)

    jax.tree.map(np.testing.assert_array_equal, evaluate(_PLAIN), evaluate(RDrop(_PLAIN, 4.0)))


def test_the_loss_is_the_same_however_the_batch_is_cut(params, batch):
    loss = jax.jit(lambda *arguments: RDrop(_PLAIN, 2.0).loss(params, *arguments)[0]["task"])
    keys = row_keys(jax.random.key(1), np.arange(4))

    def total(*pieces):
        return sum(loss({name: array[rows] for name, array in batch.items()}, keys[rows]) for rows in pieces)

    halves, others = np.asarray([[0, 1], [2, 3]]), np.asarray([[0, 2], [3, 1]])
    np.testing.assert_allclose(total(*halves), total(*others), rtol=1e-5)


def test_other_answers_have_no_divergence():
    with pytest.raises(ValueError, match="labels"):
        RDrop(TextObjective(_CONFIG, "labels", 3), 1.0)
