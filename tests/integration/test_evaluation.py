"""The evaluation beside its baselines: counted again by other means, and without a trace in the training."""

import numpy as np
import tensorflow as tf

from bert_jax.data.rows import open_rows


def test_evaluation_does_not_change_training(tmp_path, pretrain, finished_run, read_log):
    assert pretrain(tmp_path, "pretrain.eval_every = 1", "pretrain.checkpoint_every = 5") == 0
    assert [line["step"] for line in read_log(tmp_path, "validation")] == list(range(1, 13))
    assert read_log(tmp_path, "train") == read_log(finished_run, "train")
    # And a step's evaluation does not depend on those before it.
    often = {line["step"]: line for line in read_log(tmp_path, "validation")}
    seldom = read_log(finished_run, "validation")
    assert [line["step"] for line in seldom] == [5, 10, 12] and all(often[line["step"]] == line for line in seldom)


def _int64s(example: tf.train.Example, name: str) -> np.ndarray:
    return np.array(example.features.feature[name].int64_list.value, np.int64)


def test_baselines_equal_a_count(tmp_path, small_data, pretrain, read_log):
    """Nearly all words are masked here, so that the rows themselves tell what is predicted."""
    masking = ("Masking.masked_lm_prob = 0.999", "Masking.max_predictions_per_pair = 32")
    assert pretrain(tmp_path, *masking, "pretrain.steps = 1", "pretrain.eval_rows = None") == 0
    (line,) = read_log(tmp_path, "validation")

    store = open_rows(small_data.rows_32)
    special = (2, 3)  # [CLS], [SEP]
    counts = np.zeros(store.vocab_size, np.int64)
    for row in store.read("train", range(store.num_rows("train"))):
        np.add.at(counts, _int64s(tf.train.Example.FromString(row), "input_ids"), 1)
    counts[list(special)] = 0
    held_out = [
        tf.train.Example.FromString(row) for row in store.read("validation", range(store.num_rows("validation")))
    ]
    ids = np.concatenate([_int64s(row, "input_ids") for row in held_out])
    ids = ids[~np.isin(ids, special)]
    labels = np.concatenate([_int64s(row, "next_sentence_labels") for row in held_out])
    share = labels.mean()
    probabilities = (counts + 1) / (counts + 1).sum()

    np.testing.assert_allclose(line["nsp_accuracy_baseline"], max(share, 1 - share), rtol=1e-6)
    np.testing.assert_allclose(line["mlm_accuracy_baseline"], (ids == counts.argmax()).mean(), atol=0.02)
    np.testing.assert_allclose(line["mlm_loss_baseline"], -np.log(probabilities[ids]).mean(), atol=0.05)
    # An untrained model knows nothing: about log(vocabulary), and no better than an even guess.
    assert abs(line["mlm_loss"] - np.log(store.vocab_size)) < 0.3 and abs(line["nsp_loss"] - np.log(2)) < 0.1
    assert line["loss"] == line["mlm_loss"] + line["nsp_loss"]
