"""The losses of pre-training beside that of a task, on the task's own texts: masked words and second texts."""

from collections.abc import Mapping
from typing import Any

import jax

from bert_jax.config import BertConfig
from bert_jax.models.bert import BertModel, token_arrays
from bert_jax.models.dropout import fold_in_each
from bert_jax.models.embeddings import padded_vocab_size
from bert_jax.models.execution import Execution
from bert_jax.models.heads import MaskedLanguageModelHead, NextSentenceHead
from bert_jax.models.layers import first_positions, gather_positions
from bert_jax.models.parameters import Functional, Parameters, restrict
from bert_jax.tasks.cross_entropy import cross_entropy, means, weighted_sums
from bert_jax.tasks.objectives import Objective
from bert_jax.tasks.pretraining_view import PREFIX
from bert_jax.training.task import Batch, Scalars

_MLM, _NSP = "mlm", "nsp"
# The place of the pass over the view among those that a row's dropout key is folded with; beside those of `models` and
# of R-Drop.
_VIEW_PASS = 1 << 22


class PretrainingLosses:
    """An objective with masked-LM and next-sentence losses in its loss, see `tasks.objectives.Objective`.

    In training the encoder also reads the batch's `PretrainingView`. Its heads are those of `BertForPreTraining`, under
    the same names, the first tied to the word embeddings; the second reads the pooler, which is added to a model
    without. Without dropout keys, as in evaluations and predictions, all is as if they were not there.
    """

    def __init__(
        self,
        objective: Objective,
        config: BertConfig,
        *,
        mlm_weight: float | None = None,
        nsp_weight: float | None = None,
        execution: Execution | None = None,
    ):
        """Wraps an objective.

        Args:
            objective: of one task.
            config: the architecture.
            mlm_weight: how much the mean masked-LM loss counts; None for not at all.
            nsp_weight: how much the mean next-sentence loss counts; None for not at all.
            execution: how the encoder is computed.
        """
        execution = execution or Execution()
        dtype = execution.jax_dtype
        self._objective = objective
        self.model = objective.model
        weights = {_MLM: mlm_weight, _NSP: nsp_weight}
        self._weights = {term: weight for term, weight in weights.items() if weight is not None}
        self.term_weights: Mapping[str, float] = {**objective.term_weights, **self._weights}
        self._bert = Functional(
            lambda rngs: BertModel(config, with_pooler=_NSP in self._weights, execution=execution, rngs=rngs)
        )
        vocab_size = padded_vocab_size(config.vocab_size)
        heads = {
            _MLM: ("masked_lm", lambda rngs: MaskedLanguageModelHead(config, vocab_size, dtype=dtype, rngs=rngs)),
            _NSP: ("next_sentence", lambda rngs: NextSentenceHead(config, execution=execution, rngs=rngs)),
        }
        self._heads = {name: Functional(build) for term, (name, build) in heads.items() if term in self._weights}

    def init(self, key: jax.Array) -> Parameters:
        """Returns initial parameters: those of the objective, and the heads beside them."""
        bert_key, *keys = jax.random.split(jax.random.fold_in(key, _VIEW_PASS), len(self._heads) + 1)
        heads = {name: head.init(of) for (name, head), of in zip(self._heads.items(), keys, strict=True)}
        return self._beside(self._objective.init(key), self._bert.init(bert_key), heads)

    def logical_axes(self) -> Parameters:
        """Returns for each parameter the names of its axes."""
        heads = {name: head.logical_axes() for name, head in self._heads.items()}
        return self._beside(self._objective.logical_axes(), self._bert.logical_axes(), heads)

    @staticmethod
    def _beside(task: Parameters, bert: Parameters, heads: Parameters) -> Parameters:
        """The task's parameters, with a pooler if they have none and one is needed, and the heads."""
        return {**task, "bert": {**bert, **task["bert"]}, **heads}

    def _own(self, parameters: Parameters) -> Parameters:
        """The parameters of the objective."""
        return restrict(parameters, self._objective.logical_axes())

    def loss_weights(self, batch: Batch) -> Scalars:
        """Totals the weights of a batch."""
        by_term = {_MLM: "masked_weights", _NSP: "next_sentence_weights"}
        return {
            **self._objective.loss_weights(batch),
            **{term: batch[by_term[term]].sum() for term in self._weights},
        }

    def loss(self, parameters: Parameters, batch: Batch, keys: jax.Array | None) -> tuple[Scalars, Scalars]:
        """Sums the losses; see `Task.loss`."""
        sums, statistics = self._objective.loss(self._own(parameters), batch, keys)
        if keys is None:
            return sums, statistics
        for term, (logits, labels, weights) in self._logits(parameters, batch, keys).items():
            statistics = {**statistics, **weighted_sums(term, *cross_entropy(logits, labels), weights)}
            sums = {**sums, term: statistics[f"{term}_sum"]}
        return sums, statistics

    def _logits(
        self, parameters: Parameters, batch: Batch, keys: jax.Array
    ) -> dict[str, tuple[jax.Array, jax.Array, jax.Array]]:
        """Returns logits, labels and weights by term."""
        bert = restrict(parameters["bert"], self._bert.logical_axes())
        view = {name.removeprefix(PREFIX): array for name, array in batch.items() if name.startswith(PREFIX)}
        tokens, keys = token_arrays(view), fold_in_each(keys, _VIEW_PASS)
        found = {}
        if _NSP in self._weights:
            first = first_positions(view["input_ids"])
            hidden, pooled = self._bert.apply(bert, *tokens, first, keys, method="encode_and_pool")
            logits = self._heads["next_sentence"].apply(parameters["next_sentence"], pooled[:, 0])
            found[_NSP] = logits, batch["next_sentence_labels"], batch["next_sentence_weights"]
        else:
            hidden = self._bert.apply(bert, *tokens, keys)
        if _MLM in self._weights:
            words = bert["embeddings"]["word_embeddings"]["embedding"]
            masked = gather_positions(hidden, batch["masked_positions"])
            logits = self._heads["masked_lm"].apply(parameters["masked_lm"], masked, words)
            found[_MLM] = logits, batch["masked_ids"], batch["masked_weights"]
        return found

    def metrics(self, statistics: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the objective's metrics; of a training batch also task_loss and, by term, mean loss and accuracy.

        The loss is then the sum of all, each with its weight. The tokens are those of the task's rows.
        """
        metrics = self._objective.metrics(statistics)
        for term, weight in self._weights.items():
            if f"{term}_sum" in statistics:
                metrics.setdefault("task_loss", metrics["loss"])
                metrics |= means(term, statistics)
                metrics["loss"] = metrics["loss"] + weight * metrics[f"{term}_loss"]
        return metrics

    def outputs(self, parameters: Parameters, batch: Batch) -> dict[str, jax.Array]:
        """Returns what the objective does."""
        return self._objective.outputs(self._own(parameters), batch)
