"""What answers that know nothing of the context would score: the numbers that a model's have to be read beside."""

import collections

import numpy as np

from bert_jax.data.masking_recipe import Masking
from bert_jax.tasks.neighbour_baseline import LEFT, RIGHT, NeighbourBaseline, nearest_visible, unigram

# Follow the name of a metric: the commonest word and the unigram distribution; the copier; the bigrams.
BASELINE, COPIER, BIGRAM = "_baseline", "_copier_baseline", "_bigram_baseline"


class CopierBaseline:
    """The best predictor that sees of a row the masked position alone, and knows the words' frequencies.

    The token shown at a position whose word is w is [MASK], w itself, or any of the vocabulary, with the probabilities
    m, k and r of the masking (Devlin et al. 2018, section 3.1). So, by Bayes' rule, where t is shown,

        P(w | t)  is proportional to  P(w) (m [t is [MASK]] + k [t is w] + r / vocabulary).

    Where all masked words become [MASK], that is the unigram distribution.
    """

    def __init__(self, distribution: np.ndarray, masking: Masking, mask_id: int):
        """Takes the words' distribution float64 `[vocab_size]`, the masking, and the id of [MASK]."""
        self._distribution = distribution
        self._masking = masking
        self._mask_id = mask_id
        self._commonest = int(distribution.argmax())
        self._by_chance = max(1 - masking.mask_share - masking.keep_share, 0.0) / len(distribution)

    def score(self, words: np.ndarray, shown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores the prediction of each word.

        Args:
            words: int `[words]`, the right answers.
            shown: int `[words]`, the tokens in their places.

        Returns:
            Losses in nats, float64 `[words]`, and booleans `[words]`, whether it is the likeliest.
        """
        by_mask = self._masking.mask_share * (shown == self._mask_id) + self._by_chance
        of_shown = self._distribution[shown] * self._masking.keep_share
        likelihoods = by_mask + self._masking.keep_share * (shown == words)
        losses = np.log(by_mask + of_shown) - np.log(self._distribution[words]) - np.log(likelihoods)
        copies = of_shown + self._distribution[shown] * by_mask >= self._distribution[self._commonest] * by_mask
        return losses, words == np.where(copies, shown, self._commonest)


class PreTrainingBaselines:
    """Scores of answers without a model, on batches.

    For the masked words: the most frequent word of the training rows (accuracy) and their unigram distribution (loss);
    a copier; for those that the input does not show, their nearest visible neighbours. For the pairs: the more frequent
    label of the batches themselves.
    """

    def __init__(
        self,
        counts: np.ndarray,
        masking: Masking,
        mask_id: int,
        neighbours: NeighbourBaseline,
        characters: np.ndarray,
    ):
        """Prepares for batches.

        Args:
            counts: of the training rows' words, int64 `[vocab_size]`.
            masking: of the batches.
            mask_id: of [MASK].
            neighbours: that has counted the training rows.
            characters: of each piece, `[vocab_size]`.
        """
        self._most_frequent = int(np.argmax(counts))
        distribution = unigram(counts)
        self._log_probabilities = np.log(distribution)
        self._copier = CopierBaseline(distribution, masking, mask_id)
        self._neighbours = neighbours
        self._characters = characters
        self._sums: collections.Counter[tuple[str, str, str]] = collections.Counter()
        self._numbers: collections.Counter[str] = collections.Counter()

    def add(self, batch: dict[str, np.ndarray]) -> None:
        """Scores one more batch."""
        is_masked = batch["masked_weights"] > 0
        words = batch["masked_ids"][is_masked]
        shown = np.take_along_axis(batch["input_ids"], batch["masked_positions"], axis=1)[is_masked]
        is_hidden = shown != words
        left, right = (
            tuple(array[is_masked][is_hidden] for array in nearest_visible(batch, side)) for side in (LEFT, RIGHT)
        )
        hidden = words[is_hidden]
        labels, label_weights = batch["next_sentence_labels"], batch["next_sentence_weights"]
        self._sums.update(
            {
                **_sums("mlm", BASELINE, -self._log_probabilities[words], words == self._most_frequent),
                **_sums("mlm", COPIER, *self._copier.score(words, shown)),
                **_sums("mlm_hidden", BASELINE, -self._log_probabilities[hidden], hidden == self._most_frequent),
                **_sums("mlm_hidden", BIGRAM, *self._neighbours.score(hidden, left, right)),
            }
        )
        self._numbers.update(
            {
                "mlm": len(words),
                "mlm_hidden": len(hidden),
                "characters": self._characters[hidden].sum(),
                "random_next": (label_weights * labels).sum(),
                "pairs": label_weights.sum(),
            }
        )

    def metrics(self, mlm_hidden_loss: float) -> dict[str, float]:
        """Returns the baselines, and the loss of the hidden words by their characters.

        Losses are in nats. Behind a metric's name, `_baseline` is what the words' frequencies tell (of nsp_accuracy, if
        pairs are labelled: those of the labels), `_copier_baseline` and `_bigram_baseline` what the stronger ones do.
        mlm_hidden_nats_per_character compares models with different tokenizers.

        Args:
            mlm_hidden_loss: of a model, on the same batches.
        """
        numbers = self._numbers
        metrics = {
            f"{term}_{what}{kind}": total / max(numbers[term], 1) for (term, what, kind), total in self._sums.items()
        }
        by_character = numbers["mlm_hidden"] / max(numbers["characters"], 1)
        losses = {"": mlm_hidden_loss, **{kind: metrics[f"mlm_hidden_loss{kind}"] for kind in (BASELINE, BIGRAM)}}
        metrics |= {f"mlm_hidden_nats_per_character{kind}": loss * by_character for kind, loss in losses.items()}
        if numbers["pairs"]:
            random_next = numbers["random_next"] / numbers["pairs"]
            metrics[f"nsp_accuracy{BASELINE}"] = max(random_next, 1 - random_next)
        return {name: float(value) for name, value in metrics.items()}


def _sums(term: str, kind: str, losses: np.ndarray, correct: np.ndarray) -> dict[tuple[str, str, str], float]:
    return {(term, "loss", kind): losses.sum(), (term, "accuracy", kind): correct.sum()}
