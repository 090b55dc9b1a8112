"""The baselines, counted by hand on real batches, and the table that shows them."""

import numpy as np
import pytest

from bert_jax.tasks.baselines import PreTrainingBaselines
from bert_jax.tasks.pretraining_report import format_evaluation

COUNTS = np.array([0, 3, 10, 5, 0])


def batch(ids, weights, labels, label_weights, shown=()):
    """One row of which the first places are predicted; `shown` are those whose answer stands in the input."""
    return {
        "input_ids": np.array([[token if place in shown else 9 for place, token in enumerate(ids)]]),
        "masked_positions": np.arange(len(ids))[None],
        "masked_ids": np.array([ids]),
        "masked_weights": np.array([weights], np.float32),
        "next_sentence_labels": np.array([labels]),
        "next_sentence_weights": np.array([label_weights], np.float32),
    }


def test_baselines_by_hand():
    baselines = PreTrainingBaselines(COUNTS)
    baselines.add(batch([2, 1, 2, 2], [1, 1, 1, 0], [1, 1], [1, 1], shown=[0]))
    baselines.add(batch([4, 2, 0, 0], [1, 0, 0, 0], [0, 1], [1, 0]))
    metrics = baselines.metrics()
    # Predicted are 2, 1, 2 and 4; the most frequent token is 2. Each count is one more than it was, of 23.
    assert metrics["mlm_accuracy_baseline"] == pytest.approx(2 / 4)
    # The first 2 can be read in the input, and does not count.
    assert metrics["mlm_hidden_accuracy_baseline"] == pytest.approx(1 / 3)
    expected = -(2 * np.log(11 / 23) + np.log(4 / 23) + np.log(1 / 23)) / 4
    assert metrics["mlm_loss_baseline"] == pytest.approx(expected)
    assert metrics["nsp_accuracy_baseline"] == pytest.approx(2 / 3)


def test_without_pairs_there_is_no_baseline_of_them():
    baselines = PreTrainingBaselines(COUNTS)
    baselines.add(batch([2], [1], [0], [0]))
    assert baselines.metrics().keys() == {"mlm_accuracy_baseline", "mlm_hidden_accuracy_baseline", "mlm_loss_baseline"}


def test_the_table_shows_each_number_beside_its_baseline():
    metrics = {"mlm_accuracy": 0.3, "mlm_hidden_accuracy": 0.21, "mlm_loss": 4.0}
    metrics |= {"nsp_accuracy": 0.625, "nsp_loss": 0.5}
    baselines = {"mlm_accuracy_baseline": 0.05, "mlm_hidden_accuracy_baseline": 0.04, "mlm_loss_baseline": 6.5}
    baselines["nsp_accuracy_baseline"] = 0.5125
    table = format_evaluation({**metrics, **baselines})
    rows = {line.strip().split("  ")[0]: line for line in table.splitlines()}
    assert "0.2100" in rows["where the answer is hidden"] and "0.0400" in rows["where the answer is hidden"]
    assert "0.3000" in rows["masked-LM accuracy"] and "0.0500" in rows["masked-LM accuracy"]
    assert "54.5982" in rows["masked-LM perplexity"]
    assert "0.6250" in rows["next-sentence accuracy"] and "0.5125" in rows["next-sentence accuracy"]
    del baselines["nsp_accuracy_baseline"]
    assert "next-sentence" not in format_evaluation({**metrics, **baselines})
    assert format_evaluation({**metrics, **baselines, "mlm_loss": 1e4})
