"""The baselines, counted by hand on real batches, and the table that shows them."""

import numpy as np
import pytest

from bert_jax.tasks.baselines import PreTrainingBaselines
from bert_jax.tasks.pretraining_report import format_evaluation

COUNTS = np.array([0, 3, 10, 5, 0])


def batch(ids, weights, labels, label_weights):
    return {
        "masked_ids": np.array([ids]),
        "masked_weights": np.array([weights], np.float32),
        "next_sentence_labels": np.array([labels]),
        "next_sentence_weights": np.array([label_weights], np.float32),
    }


def test_baselines_by_hand():
    baselines = PreTrainingBaselines(COUNTS)
    baselines.add(batch([2, 1, 2, 2], [1, 1, 1, 0], [1, 1], [1, 1]))
    baselines.add(batch([4, 2, 0, 0], [1, 0, 0, 0], [0, 1], [1, 0]))
    metrics = baselines.metrics()
    # Predicted are 2, 1, 2 and 4; the most frequent token is 2. Each count is one more than it was, of 23.
    assert metrics["mlm_accuracy_baseline"] == pytest.approx(2 / 4)
    expected = -(2 * np.log(11 / 23) + np.log(4 / 23) + np.log(1 / 23)) / 4
    assert metrics["mlm_loss_baseline"] == pytest.approx(expected)
    assert metrics["nsp_accuracy_baseline"] == pytest.approx(2 / 3)


def test_without_pairs_there_is_no_baseline_of_them():
    baselines = PreTrainingBaselines(COUNTS)
    baselines.add(batch([2], [1], [0], [0]))
    assert baselines.metrics().keys() == {"mlm_accuracy_baseline", "mlm_loss_baseline"}


def test_the_table_shows_each_number_beside_its_baseline():
    metrics = {"mlm_accuracy": 0.3, "mlm_loss": 4.0, "nsp_accuracy": 0.625, "nsp_loss": 0.5}
    baselines = {"mlm_accuracy_baseline": 0.05, "mlm_loss_baseline": 6.5, "nsp_accuracy_baseline": 0.5125}
    table = format_evaluation({**metrics, **baselines})
    rows = {line.split("  ")[0]: line for line in table.splitlines()}
    assert "0.3000" in rows["masked-LM accuracy"] and "0.0500" in rows["masked-LM accuracy"]
    assert "54.5982" in rows["masked-LM perplexity"]
    assert "0.6250" in rows["next-sentence accuracy"] and "0.5125" in rows["next-sentence accuracy"]
    del baselines["nsp_accuracy_baseline"]
    assert "next-sentence" not in format_evaluation({**metrics, **baselines})
    assert format_evaluation({**metrics, **baselines, "mlm_loss": 1e4})
