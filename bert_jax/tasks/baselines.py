"""What answers that know nothing would score: the numbers that a model's have to be read beside."""

import numpy as np


class PreTrainingBaselines:
    """Scores of constant answers on batches.

    For the masked tokens: always the most frequent token of the training rows (accuracy), and their unigram
    distribution (loss). For the pairs: always the more frequent label of the batches themselves.
    """

    def __init__(self, counts: np.ndarray):
        """Takes the training rows' token counts, int64 `[vocab_size]`."""
        self._most_frequent = int(np.argmax(counts))
        # Every token was seen once more than it was, so that none has probability zero.
        self._log_probabilities = np.log((counts + 1) / (counts + 1).sum())
        self._sums = np.zeros(7)

    def add(self, batch: dict[str, np.ndarray]) -> None:
        """Scores one more batch."""
        ids, weights = batch["masked_ids"], batch["masked_weights"]
        hidden = weights * (np.take_along_axis(batch["input_ids"], batch["masked_positions"], axis=1) != ids)
        labels, label_weights = batch["next_sentence_labels"], batch["next_sentence_weights"]
        self._sums += (
            (weights * (ids == self._most_frequent)).sum(),
            -(weights * self._log_probabilities[ids]).sum(),
            weights.sum(),
            (hidden * (ids == self._most_frequent)).sum(),
            hidden.sum(),
            (label_weights * labels).sum(),
            label_weights.sum(),
        )

    def metrics(self) -> dict[str, float]:
        """Returns the baselines by the name of the metric with `_baseline` after it.

        They are those of mlm_accuracy, mlm_hidden_accuracy, mlm_loss (nats) and, if pairs are labelled, nsp_accuracy.
        """
        correct, loss, tokens, hidden_correct, hidden, random_next, pairs = self._sums
        metrics = {
            "mlm_accuracy_baseline": correct / max(tokens, 1),
            "mlm_hidden_accuracy_baseline": hidden_correct / max(hidden, 1),
            "mlm_loss_baseline": loss / max(tokens, 1),
        }
        if pairs:
            metrics["nsp_accuracy_baseline"] = max(random_next, pairs - random_next) / pairs
        return metrics
