"""All the choices of a fine-tuning run, as plain values that are checked before JAX is imported."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from bert_jax.data.task_mixture import MIXINGS
from bert_jax.errors import UserError
from bert_jax.models.execution import Execution
from bert_jax.tasks.class_weights import BALANCED
from bert_jax.tasks.encoding.texts import HEAD, LONG_TEXTS
from bert_jax.training.recipe import MOST, Optimizer, PhaseRates, Schedule, plan_learning_rate, require_count


@dataclasses.dataclass(frozen=True)
class FineTune:
    """A fine-tuning run. The defaults are those of Devlin et al. 2018, appendix A.3, where it gives one.

    Attributes:
        epochs: how many times each training example is seen; may be a fraction.
        batch_size: examples a step over all devices.
        accumulation_steps: micro-batches that a step is cut into.
        learning_rate: the peak; None for one that suits the model's width. What is None here and in the next two is
            decided by `finetuning_defaults.settle`.
        max_seq_len: tokens of a row at most.
        seed: of the head's initial values, of order and dropout.
        evaluations_per_epoch: how often the dev set is looked at; 0 for at the end alone.
        log_every: steps between two lines of the log.
        keep_checkpoints: how many of the last are kept, beside the best.
        padded_lengths: how many lengths of batches there are at most, each a program to compile; half as many for the
            dev set.
        long_texts: what becomes of texts over the limit: head, tail, head_and_tail or windows.
        hidden_dropout_prob: instead of the model's; 0.1 if None, or with random weights the architecture's.
        attention_probs_dropout_prob: likewise.
        frozen_layers: so many layers from the bottom, and the embeddings, are not trained.
        frozen: patterns of parameters that are not trained, such as "*/layer_norm/*"; see `update_factors`.
        layer_decay: the learning rate's factor from a layer to the one below it; None for the same rate everywhere.
        patience: evaluations without a better metric after which the run stops; None for never.
        min_delta: what counts as better, for `patience`.
        few_shot: train on so many examples of each label alone, or of each set of labels; None for all there are.
        class_weights: how much a class counts in the loss: one number for each, in the order of the labels; or
            "balanced", so that all classes count the same; None for 1 each.
        mask_probability: each ordinary token of a training batch becomes [MASK] with this probability; None for never.
        pooling: instead of the model's, see `BertConfig`; parameters that it needs anew keep their initial values.
        encoder_output: as pooling.
        ema_decay: evaluate, and predict, with the exponential moving average of the parameters; the weight of the
            average from step to step, such as 0.999. None for the parameters themselves.
        r_drop: weight of the divergence of two predictions under different dropout, see `tasks.r_drop`; None for off.
        mlm_weight: how much the loss of masked words in the training texts counts beside that of the task, as in
            pre-training, see `tasks.pretraining_losses`; None for off.
        nsp_weight: the same of next-sentence prediction, for pairs.
        auxiliary_layers: layers, 1 for the lowest, with a head of the task on each, whose loss is a part of the whole;
            see `tasks.layer_heads`.
        auxiliary_weight: how much each of these counts; 0.3 as for the auxiliary classifiers of Szegedy et al. 2015,
            section 5.
        stop_below_loss: end the run after the evaluation in which the loss of every task's dev set is below this; None
            for never.
        mixing: of several tasks, "sum" for a batch of each at every step, or "proportional" for one of one task; see
            `data.task_mixture`. None for a run of one task; of several, "sum".
        optimizer: how gradients become updates.
        schedule: the learning rate's course.
        execution: dtype, rematerialisation, unrolling.
    """

    epochs: float = 3.0
    batch_size: int = 32
    accumulation_steps: int = 1
    learning_rate: float | None = None
    max_seq_len: int = 128
    seed: int = 0
    evaluations_per_epoch: int = 1
    log_every: int = 10
    keep_checkpoints: int = 1
    padded_lengths: int = 8
    long_texts: str = HEAD
    hidden_dropout_prob: float | None = None
    attention_probs_dropout_prob: float | None = None
    frozen_layers: int = 0
    frozen: Sequence[str] = ()
    layer_decay: float | None = None
    patience: int | None = None
    min_delta: float = 0.0
    few_shot: int | None = None
    class_weights: Sequence[float] | str | None = None
    mask_probability: float | None = None
    pooling: str | None = None
    encoder_output: int | str | None = None
    ema_decay: float | None = None
    r_drop: float | None = None
    mlm_weight: float | None = None
    nsp_weight: float | None = None
    auxiliary_layers: Sequence[int] = ()
    auxiliary_weight: float = 0.3
    stop_below_loss: float | None = None
    mixing: str | None = None
    optimizer: Optimizer = Optimizer()  # noqa: RUF009 (frozen)
    schedule: Schedule = Schedule(warmup_fraction=0.1)  # noqa: RUF009 (frozen)
    execution: Execution = Execution()  # noqa: RUF009 (frozen)

    def __post_init__(self):
        for name in ("batch_size", "accumulation_steps", "log_every", "keep_checkpoints", "padded_lengths"):
            require_count(name, getattr(self, name), 1)
        require_count("max_seq_len", self.max_seq_len, 8)
        require_count("evaluations_per_epoch", self.evaluations_per_epoch, 0)
        require_count("frozen_layers", self.frozen_layers, 0)
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise UserError(f"layer_decay must be above 0 and at most 1, not {self.layer_decay!r}")
        if self.execution.frozen_layers:
            raise UserError("Execution.frozen_layers follows from finetune.frozen_layers: set that one")
        if self.patience is not None:
            require_count("patience", self.patience, 1)
        if not self.epochs > 0 or math.isinf(self.epochs):
            raise UserError(f"epochs must be above 0, not {self.epochs!r}")
        if self.batch_size % self.accumulation_steps:
            raise UserError(
                f"accumulation_steps ({self.accumulation_steps}) must divide batch_size ({self.batch_size})"
            )
        if self.long_texts not in LONG_TEXTS:
            raise UserError(f"long_texts must be one of {', '.join(LONG_TEXTS)}, not {self.long_texts!r}")
        require_count("seed", self.seed, 0)
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise UserError(f"{name} must be at least 0 and below 1, not {value!r}")
        if not self.min_delta >= 0:
            raise UserError(f"min_delta must be at least 0, not {self.min_delta!r}")
        if self.few_shot is not None:
            require_count("few_shot", self.few_shot, 1)
        if isinstance(self.class_weights, str) and self.class_weights != BALANCED:
            raise UserError(f"class_weights must be {BALANCED!r} or a list of numbers, not {self.class_weights!r}")
        for name in ("mask_probability", "ema_decay"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise UserError(f"{name} must be above 0 and below 1, or None for off, not {value!r}")
        if self.mixing not in (None, *MIXINGS):
            raise UserError(f"mixing must be one of {', '.join(MIXINGS)}, not {self.mixing!r}")
        for name in ("r_drop", "mlm_weight", "nsp_weight", "stop_below_loss"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"{name} must be above 0, or None for off, not {value!r}")
        if len(set(self.auxiliary_layers)) < len(self.auxiliary_layers):
            raise UserError(f"auxiliary_layers names a layer twice: {list(self.auxiliary_layers)!r}")
        if not 0 < self.auxiliary_weight < math.inf:
            raise UserError(f"auxiliary_weight must be above 0, not {self.auxiliary_weight!r}")
        if self.auxiliary_layers and self.r_drop is not None:
            raise UserError("auxiliary_layers and r_drop do not go together: leave one of them out")

    def total_steps(self, steps_per_epoch: int) -> int:
        """Returns the steps of the run; checks that the learning rate's course fits into them."""
        steps = max(1, round(self.epochs * steps_per_epoch))
        if steps > MOST:
            raise UserError(f"epochs={self.epochs:g} are {steps:,} steps, and a run has at most {MOST:,}")
        plan_learning_rate(self.schedule, self.learning_rate, [PhaseRates(steps)])
        return steps

    def eval_every(self, steps_per_epoch: int) -> int:
        """Returns the steps between two evaluations; 0 for none but at the end.

        Rounded up: rounded down, another evaluation would come a few steps before that at the end.
        """
        return math.ceil(steps_per_epoch / self.evaluations_per_epoch) if self.evaluations_per_epoch else 0

    def identity(self) -> dict[str, Any]:
        """What must stay the same for a run to go on, as flat JSON values under the names that users set."""
        identity: dict[str, Any] = {}
        # How often something is looked at or kept, and how the same numbers are computed, may change.
        free = ("log_every", "keep_checkpoints", "optimizer", "schedule", "execution", "accumulation_steps")
        # Without heads on layers, nothing is said of them, as in runs of before there were any.
        off = () if self.auxiliary_layers else ("auxiliary_layers", "auxiliary_weight")
        for field in dataclasses.fields(self):
            if field.name not in (*free, *off):
                identity[f"finetune.{field.name}"] = getattr(self, field.name)
        identity.update({f"Optimizer.{field}": value for field, value in self.optimizer.to_json().items()})
        identity.update({f"Schedule.{field}": value for field, value in dataclasses.asdict(self.schedule).items()})
        identity["Execution.dtype"] = self.execution.dtype
        return identity
