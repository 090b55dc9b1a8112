"""Masked-language modelling and next-sentence prediction (Devlin et al. 2018, section 3.1)."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from bert_jax.config import BertConfig
from bert_jax.models.bert import BertForPreTraining
from bert_jax.models.execution import Execution
from bert_jax.models.parameters import Functional, Parameters
from bert_jax.tasks.cross_entropy import cross_entropy, means, weighted_sums
from bert_jax.training.task import Batch, Scalars


class PreTraining:
    """The two pre-training tasks as one: the mean masked-LM loss plus the mean next-sentence loss."""

    term_weights: Mapping[str, float] = {"mlm": 1.0, "nsp": 1.0}

    def __init__(self, config: BertConfig, *, execution: Execution | None = None):
        """Describes the model; see `BertModel` for the arguments."""
        execution = execution or Execution()
        self.config = config
        self.model = Functional(lambda rngs: BertForPreTraining(config, execution=execution, rngs=rngs))

    def init(self, key: jax.Array) -> Parameters:
        """Returns initial parameters."""
        return self.model.init(key)

    def logical_axes(self) -> Parameters:
        """Returns for each parameter the names of its axes."""
        return self.model.logical_axes()

    def with_heads(self, parameters: Parameters) -> tuple[Parameters, Sequence[str]]:
        """Fits the parameters of a model of another class to this task.

        Heads of other tasks are left out; those that are missing here become zeros.

        Returns:
            The parameters, and which heads were missing: "masked_lm", "next_sentence" (also without a pooler).
        """
        wanted = self.model.abstract()
        missing = [name for name in wanted if name not in parameters]
        if "pooler" not in parameters["bert"] and "next_sentence" not in missing:
            missing.append("next_sentence")

        def zeros(tree: Any) -> Any:
            return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), tree)

        filled = {name: parameters[name] if name in parameters else zeros(tree) for name, tree in wanted.items()}
        filled["bert"] = {"pooler": zeros(wanted["bert"]["pooler"]), **parameters["bert"]}
        return filled, missing

    def loss_weights(self, batch: Batch) -> Scalars:
        """Counts the masked tokens and the labelled pairs of a batch."""
        return {"mlm": batch["masked_weights"].sum(), "nsp": batch["next_sentence_weights"].sum()}

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
        mlm_logits, nsp_logits = self.model.apply(parameters, batch, keys)
        statistics = {"tokens": jnp.sum(batch["segment_ids"] > 0).astype(jnp.float32)}
        for term, logits, labels, weights in (
            ("mlm", mlm_logits, batch["masked_ids"], batch["masked_weights"]),
            ("nsp", nsp_logits, batch["next_sentence_labels"], batch["next_sentence_weights"]),
        ):
            losses, correct = cross_entropy(logits, labels)
            statistics |= weighted_sums(term, losses, correct, weights)
            if term == "mlm":
                # One masked token in ten stays as it is, and to repeat it is right: what was learned of the context
                # shows where the answer cannot be read.
                shown = jnp.take_along_axis(batch["input_ids"], batch["masked_positions"], axis=1)
                hidden = weights * (shown != labels)
                statistics["mlm_hidden_correct"] = jnp.sum(correct * hidden)
                statistics["mlm_hidden_weight"] = jnp.sum(hidden)
        return {term: statistics[f"{term}_sum"] for term in self.term_weights}, statistics

    def metrics(self, statistics: Mapping[str, Any]) -> dict[str, Any]:
        """Returns loss, tokens (not counting padding), and the mean loss and accuracy of each term.

        mlm_hidden_accuracy is that of the masked tokens which the input does not show (nine in ten).
        """
        metrics = {"loss": 0.0, "tokens": statistics["tokens"]}
        for term, weight in self.term_weights.items():
            metrics |= means(term, statistics)
            metrics["loss"] = metrics["loss"] + weight * metrics[f"{term}_loss"]
        hidden = statistics["mlm_hidden_weight"] + (statistics["mlm_hidden_weight"] == 0)
        metrics["mlm_hidden_accuracy"] = statistics["mlm_hidden_correct"] / hidden
        return metrics
