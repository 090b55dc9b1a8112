"""The pre-training loss against numpy, and its independence of how pairs are packed and padded."""

import jax
import numpy as np
import pytest

from bert_jax.config import BertConfig
from bert_jax.models.parameters import restrict
from bert_jax.tasks.pretraining import PreTraining

VOCAB_SIZE = 50


@pytest.fixture(scope="module")
def task():
    return PreTraining(
        BertConfig(
            vocab_size=VOCAB_SIZE,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=24,
            max_position_embeddings=32,
            initializer_range=0.3,
        )
    )


@pytest.fixture(scope="module")
def params(task):
    return jax.jit(task.init)(jax.random.key(0))


def test_packing_and_padding_change_no_loss_and_no_gradient(task, params, random_pairs, lay_out):
    pairs = random_pairs(6, VOCAB_SIZE)
    layouts = [
        lay_out([[pair] for pair in pairs], length=12, predictions=3, max_pairs=1),
        lay_out([pairs[3:5], pairs[5:], pairs[:3], []], length=40, predictions=10, max_pairs=4),
    ]

    @jax.jit
    def compute(params, batch):
        def loss(params):
            sums, statistics = task.loss(params, batch, None)
            return sums["mlm"] + 3 * sums["nsp"], statistics

        return jax.value_and_grad(loss, has_aux=True)(params)

    (alone, statistics), gradients = compute(params, layouts[0])
    assert statistics["mlm_weight"] == sum(len(pair.masked) for pair in pairs) and statistics["nsp_weight"] == 6
    (packed, its_statistics), its_gradients = compute(params, layouts[1])
    np.testing.assert_allclose(packed, alone, rtol=1e-5)
    for name, value in statistics.items():
        np.testing.assert_allclose(its_statistics[name], value, rtol=1e-5, err_msg=name)
    for one, other in zip(jax.tree.leaves(its_gradients), jax.tree.leaves(gradients), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5 * float(np.abs(other).max()) + 2e-6)


def test_weights_depend_on_the_batch_alone(task, random_pairs, lay_out):
    batch = lay_out([random_pairs(2, VOCAB_SIZE), []], length=24, predictions=6, max_pairs=2)
    weights = task.loss_weights(batch)
    assert weights == {"mlm": batch["masked_weights"].sum(), "nsp": 2}
    assert weights.keys() == task.term_weights.keys()


def test_an_answer_that_the_input_shows_does_not_count_as_hidden(task, params, random_pairs, lay_out):
    batch = lay_out([random_pairs(3, VOCAB_SIZE)], length=40, predictions=10, max_pairs=3)
    rows = np.arange(len(batch["input_ids"]))[:, None]
    batch["input_ids"][rows, batch["masked_positions"]] = VOCAB_SIZE - 1
    batch["masked_ids"] = np.minimum(batch["masked_ids"], VOCAB_SIZE - 2)
    _, hidden = task.loss(params, batch, None)
    assert hidden["mlm_hidden_weight"] == hidden["mlm_weight"] > 2
    assert hidden["mlm_hidden_correct"] == hidden["mlm_correct"]
    used = np.flatnonzero(batch["masked_weights"][0])[:2]
    batch["input_ids"][0, batch["masked_positions"][0, used]] = batch["masked_ids"][0, used]
    _, shown = task.loss(params, batch, None)
    assert shown["mlm_hidden_weight"] == shown["mlm_weight"] - 2 == hidden["mlm_weight"] - 2


def test_the_hidden_loss_is_that_of_numpy(task, params, random_pairs, lay_out):
    batch = lay_out([random_pairs(3, VOCAB_SIZE), random_pairs(2, VOCAB_SIZE)], length=40, predictions=10, max_pairs=3)
    used = np.flatnonzero(batch["masked_weights"][0])
    # One of the answers is shown, and all others are hidden.
    for row in range(2):
        batch["input_ids"][row, batch["masked_positions"][row]] = VOCAB_SIZE - 1
    batch["input_ids"][0, batch["masked_positions"][0, used[0]]] = batch["masked_ids"][0, used[0]]
    logits = np.asarray(task.model.apply(params, batch, None)[0], np.float64)[..., :VOCAB_SIZE]
    losses = (
        np.log(np.exp(logits).sum(axis=-1)) - np.take_along_axis(logits, batch["masked_ids"][..., None], -1)[..., 0]
    )
    hidden = batch["masked_weights"] > 0
    hidden[0, used[0]] = False
    metrics = task.metrics({name: float(value) for name, value in task.loss(params, batch, None)[1].items()})
    assert metrics["mlm_hidden_loss"] == pytest.approx(losses[hidden].mean(), rel=1e-5)
    assert metrics["mlm_hidden_loss"] != pytest.approx(metrics["mlm_loss"], rel=1e-3)


def test_without_next_sentence_the_loss_is_that_of_the_masked_words_alone(task, params, random_pairs, lay_out):
    """On rows of labelled pairs, with the same parameters less pooler and head."""
    alone = PreTraining(task.config, next_sentence=False)
    batch = lay_out([random_pairs(3, VOCAB_SIZE)], length=40, predictions=10, max_pairs=3)
    own = restrict(params, alone.model.abstract())
    assert own.keys() == {"bert", "masked_lm"} and "pooler" not in own["bert"]
    sums, statistics = alone.loss(own, batch, None)
    both, with_pairs = task.loss(params, batch, None)
    assert sums.keys() == alone.term_weights.keys() == alone.loss_weights(batch).keys() == {"mlm"}
    np.testing.assert_allclose(sums["mlm"], both["mlm"], rtol=1e-6)
    metrics = alone.metrics(statistics)
    assert metrics["loss"] == metrics["mlm_loss"] and not any(name.startswith("nsp") for name in metrics)
    assert statistics.keys() == {name for name in with_pairs if not name.startswith("nsp")}


def test_metrics_of_sums_are_those_of_the_whole(task):
    random = np.random.default_rng(1)
    names = [f"{term}_{what}" for term in ("mlm", "nsp") for what in ("sum", "correct", "weight")]
    names += [f"mlm_hidden_{what}" for what in ("sum", "correct", "weight")]
    pieces = [{name: float(random.integers(1, 50)) for name in [*names, "tokens"]} for _ in range(3)]
    whole = {name: sum(piece[name] for piece in pieces) for name in pieces[0]}
    metrics = task.metrics(whole)
    assert metrics["mlm_loss"] == pytest.approx(whole["mlm_sum"] / whole["mlm_weight"])
    assert metrics["nsp_accuracy"] == pytest.approx(whole["nsp_correct"] / whole["nsp_weight"])
    hidden = whole["mlm_hidden_correct"] / whole["mlm_hidden_weight"]
    assert metrics["mlm_hidden_accuracy"] == pytest.approx(hidden)
    assert metrics["mlm_hidden_loss"] == pytest.approx(whole["mlm_hidden_sum"] / whole["mlm_hidden_weight"])
    assert metrics["loss"] == pytest.approx(metrics["mlm_loss"] + metrics["nsp_loss"])
    assert metrics["tokens"] == whole["tokens"]
    nothing = task.metrics(dict.fromkeys(whole, 0.0))
    assert all(value == 0 for value in nothing.values())
