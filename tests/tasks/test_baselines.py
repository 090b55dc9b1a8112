"""The baselines: counted by hand on real batches, the copier by enumeration, and the table and lines that show them."""

import math

import numpy as np
import pytest

from bert_jax.data.masking_recipe import Masking
from bert_jax.tasks.baselines import CopierBaseline, PreTrainingBaselines
from bert_jax.tasks.neighbour_baseline import LEFT, RIGHT, NeighbourBaseline, nearest_visible
from bert_jax.tasks.pretraining_report import format_evaluation, shortfalls

COUNTS = np.array([0, 3, 10, 5, 0])
MASK = 0
CHARACTERS = np.array([1, 2, 3, 4, 5])
TEXT = np.array([1, 2, 2, 3, 2, 1, 2, 3, 2, 3, 2, 2, 2, 1, 2, 3, 2, 3])
NEIGHBOURS = NeighbourBaseline(TEXT, np.zeros(len(TEXT), int), COUNTS)


def batch(ids, weights, labels, label_weights, shown=()):
    """One row of which the first places are predicted; `shown` are those whose answer stands in the input."""
    row = [*(token if place in shown else MASK for place, token in enumerate(ids)), 3]
    return {
        "input_ids": np.array([row]),
        "segment_ids": np.ones((1, len(row)), int),
        "masked_positions": np.arange(len(ids))[None],
        "masked_ids": np.array([ids]),
        "masked_weights": np.array([weights], np.float32),
        "next_sentence_labels": np.array([labels]),
        "next_sentence_weights": np.array([label_weights], np.float32),
    }


def make_baselines(masking=Masking()):  # noqa: B008 (frozen)
    return PreTrainingBaselines(COUNTS, masking, MASK, NEIGHBOURS, CHARACTERS)


def test_baselines_by_hand():
    baselines = make_baselines()
    batches = [
        batch([2, 1, 2, 2], [1, 1, 1, 0], [1, 1], [1, 1], shown=[0]),
        batch([4, 2, 0, 0], [1, 0, 0, 0], [0, 1], [1, 0]),
    ]
    for one in batches:
        baselines.add(one)
    metrics = baselines.metrics(1.5)
    # Predicted are 2, 1, 2 and 4; the most frequent token is 2. Each count is one more than it was, of 23.
    assert metrics["mlm_accuracy_baseline"] == pytest.approx(2 / 4)
    # The first 2 can be read in the input, and does not count.
    assert metrics["mlm_hidden_accuracy_baseline"] == pytest.approx(1 / 3)
    expected = -(2 * np.log(11 / 23) + np.log(4 / 23) + np.log(1 / 23)) / 4
    assert metrics["mlm_loss_baseline"] == pytest.approx(expected)
    hidden = -(np.log(11 / 23) + np.log(4 / 23) + np.log(1 / 23)) / 3
    assert metrics["mlm_hidden_loss_baseline"] == pytest.approx(hidden)
    # The hidden words have 2, 3 and 5 characters.
    assert metrics["mlm_hidden_nats_per_character"] == pytest.approx(3 * 1.5 / 10)
    assert metrics["mlm_hidden_nats_per_character_baseline"] == pytest.approx(3 * hidden / 10)
    assert metrics["nsp_accuracy_baseline"] == pytest.approx(2 / 3)
    # The copier and the neighbours are asked about these words, places and neighbours.
    copier = CopierBaseline((COUNTS + 1) / 23, Masking(), MASK)
    losses, correct = copier.score(np.array([2, 1, 2, 4]), np.array([2, MASK, MASK, MASK]))
    assert metrics["mlm_loss_copier_baseline"] == pytest.approx(losses.mean())
    assert metrics["mlm_accuracy_copier_baseline"] == pytest.approx(correct.mean())
    scores = [
        NEIGHBOURS.score(one["masked_ids"][0, places], *(tuple(side[0, places] for side in sides) for sides in found))
        for one, places in zip(batches, ([1, 2], [0]), strict=True)
        for found in [[nearest_visible(one, side) for side in (LEFT, RIGHT)]]
    ]
    losses, correct = (np.concatenate(parts) for parts in zip(*scores, strict=True))
    assert metrics["mlm_hidden_loss_bigram_baseline"] == pytest.approx(losses.mean())
    assert metrics["mlm_hidden_accuracy_bigram_baseline"] == pytest.approx(correct.mean())


def test_without_pairs_there_is_no_baseline_of_them():
    baselines = make_baselines()
    baselines.add(batch([2], [1], [0], [0]))
    assert not any(name.startswith("nsp") for name in baselines.metrics(1.0))


def test_where_nothing_is_hidden_there_is_no_loss_in_it():
    baselines = make_baselines(Masking(mask_share=0.0, keep_share=1.0))
    baselines.add(batch([2, 1], [1, 1], [0], [0], shown=[0, 1]))
    metrics = baselines.metrics(0.0)
    assert all(value == 0 for name, value in metrics.items() if name.startswith("mlm_hidden"))
    assert metrics["mlm_loss_copier_baseline"] == pytest.approx(0) and metrics["mlm_accuracy_copier_baseline"] == 1
    assert shortfalls({**metrics, "mlm_loss": 0.1, "mlm_hidden_loss": 0.0, "mlm_hidden_accuracy": 0.0}) == []


@pytest.mark.parametrize("shares", [(0.8, 0.1), (1.0, 0.0), (0.5, 0.0), (0.7, 0.3), (0.0, 0.1)], ids=str)
def test_the_copier_is_the_best_answer_to_what_is_shown(shares):
    """Every word in a masked place, every token that may be shown for it: Bayes' rule by enumeration."""
    words = np.random.default_rng(0).dirichlet(np.ones(9))
    size, mask_id = len(words), 4
    mask_share, keep_share = shares
    joint = np.zeros((size, size))
    for word in range(size):
        joint[word, mask_id] += words[word] * mask_share
        joint[word, word] += words[word] * keep_share
        for replacement in range(size):
            joint[word, replacement] += words[word] * (1 - mask_share - keep_share) / size
    copier = CopierBaseline(words, Masking(mask_share=mask_share, keep_share=keep_share), mask_id)
    word, shown = np.nonzero(joint > 1e-12)
    losses, correct = copier.score(word, shown)
    posterior = joint / joint.sum(axis=0, keepdims=True).clip(1e-300)
    np.testing.assert_allclose(losses, -np.log(posterior[word, shown]), atol=1e-9)
    np.testing.assert_array_equal(correct, word == posterior.argmax(axis=0)[shown])
    if mask_share == 1:
        np.testing.assert_allclose(losses, -np.log(words[word]), atol=1e-12)


GOOD = {
    "mlm_accuracy": 0.3,
    "mlm_accuracy_copier_baseline": 0.14,
    "mlm_hidden_accuracy": 0.21,
    "mlm_hidden_accuracy_baseline": 0.04,
    "mlm_hidden_accuracy_bigram_baseline": 0.2,
    "mlm_loss": 4.0,
    "mlm_loss_copier_baseline": 5.9,
    "mlm_hidden_loss": 4.1,
    "mlm_hidden_loss_baseline": 6.5,
    "mlm_hidden_loss_bigram_baseline": 4.3,
    "mlm_hidden_nats_per_character": 0.99,
    "mlm_hidden_nats_per_character_baseline": 1.56,
    "mlm_hidden_nats_per_character_bigram_baseline": 1.04,
    "nsp_accuracy": 0.625,
    "nsp_accuracy_baseline": 0.5125,
    "nsp_loss": 0.5,
}


def test_the_table_shows_each_number_beside_its_baselines():
    lines = format_evaluation(GOOD).splitlines()
    rows = {line.strip().split("  ")[0]: (line, below) for line, below in zip(lines, [*lines[1:], ""], strict=True)}
    for name, metric, baseline in (
        ("masked-LM accuracy", "mlm_accuracy", "_copier_baseline"),
        ("where the answer is hidden", "mlm_hidden_accuracy", "_baseline"),
        ("masked-LM loss (nats)", "mlm_loss", "_copier_baseline"),
        ("of hidden words", "mlm_hidden_loss", "_baseline"),
        ("of these, per character", "mlm_hidden_nats_per_character", "_baseline"),
        ("next-sentence accuracy", "nsp_accuracy", "_baseline"),
    ):
        line, below = rows[name]
        assert f"{GOOD[metric]:.4f}" in line and f"{GOOD[metric + baseline]:.4f}" in line
        if f"{metric}_bigram_baseline" in GOOD:
            assert f"{GOOD[f'{metric}_bigram_baseline']:.4f}" in below and "neighbours" in below
    assert f"{math.exp(4):.4f}" in rows["masked-LM perplexity"][0]
    assert format_evaluation({**GOOD, "mlm_loss": 1e4})
    without = {name: value for name, value in GOOD.items() if not name.startswith("nsp")}
    assert "next-sentence" not in format_evaluation(without)


def test_a_metric_that_is_not_better_than_its_baseline_is_said():
    assert shortfalls(GOOD) == []
    (line,) = shortfalls({**GOOD, "mlm_loss": 5.9})
    assert line == (
        "the masked-word loss, 5.9, is not below that of a copier without context, 5.9: the model has learnt nothing"
        " from the context; train longer, or with another recipe"
    )
    # The weakest baseline that is not beaten, and it alone.
    (line,) = shortfalls({**GOOD, "mlm_hidden_loss": 7.0})
    assert "7, is not below that of their frequencies alone, 6.5: the model has learnt nothing" in line
    (line,) = shortfalls({**GOOD, "mlm_hidden_loss": 5.0})
    assert "5, is not below that of the nearest visible neighbours, by counting, 4.3: the model reads less" in line
    (line,) = shortfalls({**GOOD, "mlm_hidden_accuracy": 0.04})
    assert "0.04, is not above that of always the commonest word, 0.04" in line
    (line,) = shortfalls({**GOOD, "nsp_accuracy": 0.5})
    assert "the next-sentence accuracy, 0.5, is not above" in line
    assert len(shortfalls({**GOOD, "mlm_loss": math.nan})) == 1
    assert format_evaluation({**GOOD, "mlm_loss": 6.0}).endswith(shortfalls({**GOOD, "mlm_loss": 6.0})[0])
