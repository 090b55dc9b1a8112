"""Masked-language modelling and next-sentence prediction (Devlin et al. 2018, section 3.1)."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from bert_jax.config import BertConfig
from bert_jax.models.bert import BertForMaskedLM, BertForPreTraining
from bert_jax.models.execution import Execution
from bert_jax.models.parameters import Functional, Parameters
from bert_jax.tasks.cross_entropy import cross_entropy, means, weighted_sums
from bert_jax.training.task import Batch, Scalars


class PreTraining:
    """The mean masked-LM loss plus the mean next-sentence loss; or the first alone, as RoBERTa (Liu et al. 2019)."""

    def __init__(self, config: BertConfig, *, next_sentence: bool = True, execution: Execution | None = None):
        """Describes the model.

        Args:
            config: see `BertModel`.
            next_sentence: whether there is the second task. Without it the model is a BertForMaskedLM, which has no
                pooler, and labels of pairs are not used.
            execution: see `BertModel`.
        """
        execution = execution or Execution()
        self.config = config
        self.next_sentence = next_sentence
        self.term_weights: Mapping[str, float] = {"mlm": 1.0, "nsp": 1.0} if next_sentence else {"mlm": 1.0}
        model_class = BertForPreTraining if next_sentence else BertForMaskedLM
        self.model = Functional(lambda rngs: model_class(config, execution=execution, rngs=rngs))

    def init(self, key: jax.Array) -> Parameters:
        """Returns initial parameters."""
        return self.model.init(key)

    def logical_axes(self) -> Parameters:
        """Returns for each parameter the names of its axes."""
        return self.model.logical_axes()

    def loss_weights(self, batch: Batch) -> Scalars:
        """Counts the masked tokens and the labelled pairs of a batch."""
        weights = {"mlm": batch["masked_weights"], "nsp": batch["next_sentence_weights"]}
        return {term: weights[term].sum() for term in self.term_weights}

    def loss(self, parameters: Parameters, batch: Batch, keys: jax.Array | None) -> tuple[Scalars, Scalars]:
        """Sums the cross-entropies, in nats, of the masked tokens and of the pairs' labels.

        Args:
            parameters: as `init` returned them.
            batch: see `bert_jax.data.batches`; masked_positions, masked_ids, masked_weights `[batch, predictions]`,
                next_sentence_labels and next_sentence_weights `[batch, pairs]`.
            keys: `[batch]` dropout keys, or None for no dropout.

        Returns:
            The sums by term, and statistics: sums, counts of right answers, and weights.
        """
        outputs = self.model.apply(parameters, batch, keys)
        mlm_logits, nsp_logits = outputs if self.next_sentence else (outputs, None)
        labels, weights = batch["masked_ids"], batch["masked_weights"]
        losses, correct = cross_entropy(mlm_logits, labels)
        # Some masked tokens stay as they are, and to repeat them is right: what was learned of the context shows where
        # the answer cannot be read.
        shown = jnp.take_along_axis(batch["input_ids"], batch["masked_positions"], axis=1)
        statistics = {
            "tokens": jnp.sum(batch["segment_ids"] > 0).astype(jnp.float32),
            **weighted_sums("mlm", losses, correct, weights),
            **weighted_sums("mlm_hidden", losses, correct, weights * (shown != labels)),
        }
        if self.next_sentence:
            losses, correct = cross_entropy(nsp_logits, batch["next_sentence_labels"])
            statistics |= weighted_sums("nsp", losses, correct, batch["next_sentence_weights"])
        return {term: statistics[f"{term}_sum"] for term in self.term_weights}, statistics

    def metrics(self, statistics: Mapping[str, Any]) -> dict[str, Any]:
        """Returns loss, tokens (not counting padding), and the mean loss and accuracy of each term.

        mlm_hidden_loss and mlm_hidden_accuracy are those of the masked tokens which the input does not show: nine in
        ten as published.
        """
        metrics = {"loss": 0.0, "tokens": statistics["tokens"]}
        for term, weight in self.term_weights.items():
            metrics |= means(term, statistics)
            metrics["loss"] = metrics["loss"] + weight * metrics[f"{term}_loss"]
        return {**metrics, **means("mlm_hidden", statistics)}
