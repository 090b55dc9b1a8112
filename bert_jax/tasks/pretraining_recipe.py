"""All the choices of a pre-training run, as plain values that are checked before JAX is imported."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from bert_jax.config import BertConfig
from bert_jax.data.masking_recipe import Masking
from bert_jax.errors import UserError
from bert_jax.models.execution import Execution
from bert_jax.training.recipe import MOST, Optimizer, Schedule, plan_learning_rate, require_count

# Fixed, so that runs with masks of their own can be compared: 15 % of the tokens, and all of them hidden.
YARDSTICK, YARDSTICK_SEED = Masking(masked_lm_prob=0.15, mask_share=1.0, keep_share=0.0), 0


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of a run with its own sequence length and batch.

    Attributes:
        seq_len: the phase reads the rows of this length.
        batch_size: rows per step over all devices.
        steps: length of the phase.
        learning_rate: peak of a schedule of its own; None for the run's.
        warmup_steps: warm-up of a schedule of its own; None for the run's.
        accumulation_steps: micro-batches that a step is cut into.
    """

    seq_len: int
    batch_size: int
    steps: int
    learning_rate: float | None = None
    warmup_steps: int | None = None
    accumulation_steps: int = 1

    def __post_init__(self):
        for name in ("seq_len", "batch_size", "steps", "accumulation_steps"):
            require_count(f"Phase.{name}", getattr(self, name))
        if self.batch_size % self.accumulation_steps:
            raise UserError(
                f"accumulation_steps ({self.accumulation_steps}) must divide batch_size ({self.batch_size})"
            )


@dataclasses.dataclass(frozen=True)
class Pretrain:
    """A pre-training run. Either `steps` and `batch_size` (one phase, its length that of the rows), or `phases`.

    Attributes:
        model: the architecture.
        steps: length of the one-phase run.
        batch_size: rows per step over all devices, of the one-phase run.
        accumulation_steps: micro-batches that a step is cut into, of the one-phase run; 1 if not given.
        phases: in order, instead of the three above.
        learning_rate: the peak.
        seed: of initial values, order, masks and dropout.
        next_sentence: whether the second task of the rows, if they have one, is learned; without it the model is a
            BertForMaskedLM, without pooler.
        log_every: steps between two lines of the log.
        eval_every: steps between two evaluations; there is one at the end in any case. 0 for none in between.
        eval_rows: at most this many rows of the validation split are used while training; None for all.
        checkpoint_every: steps between two checkpoints.
        keep_checkpoints: how many of the last are kept, beside the best.
        optimizer: how gradients become updates.
        schedule: the learning rate's course.
        masking: which tokens are predicted.
        execution: dtype, rematerialisation, unrolling.
    """

    model: BertConfig
    steps: int | None = None
    batch_size: int | None = None
    accumulation_steps: int | None = None
    phases: Sequence[Phase] | None = None
    learning_rate: float = 1e-4
    seed: int = 0
    next_sentence: bool = True
    log_every: int = 1
    eval_every: int = 1000
    eval_rows: int | None = None
    checkpoint_every: int = 1000
    keep_checkpoints: int = 2
    optimizer: Optimizer = Optimizer()  # noqa: RUF009 (frozen)
    schedule: Schedule = Schedule()  # noqa: RUF009 (frozen)
    masking: Masking = Masking()  # noqa: RUF009 (frozen)
    execution: Execution = Execution()  # noqa: RUF009 (frozen)

    def __post_init__(self):
        single = [name for name in ("steps", "batch_size", "accumulation_steps") if getattr(self, name) is not None]
        if self.phases is not None and single:
            raise UserError(f"pretrain.{single[0]} and pretrain.phases exclude each other: give one of them")
        if self.phases is None:
            for name in ("steps", "batch_size"):
                require_count(f"pretrain.{name}", getattr(self, name))
            if self.accumulation_steps is not None:
                require_count("pretrain.accumulation_steps", self.accumulation_steps)
        elif (
            not isinstance(self.phases, list | tuple)
            or not self.phases
            or not all(isinstance(phase, Phase) for phase in self.phases)
        ):
            raise UserError("pretrain.phases must be a list of phases, such as [@first/Phase(), @second/Phase()]")
        for name in ("log_every", "checkpoint_every", "keep_checkpoints"):
            require_count(f"pretrain.{name}", getattr(self, name))
        require_count("pretrain.eval_every", self.eval_every, 0)
        if self.execution.frozen_layers:
            raise UserError("Execution.frozen_layers is for fine-tuning: pre-training trains every layer")
        if self.model.pooling == "entities":
            raise UserError(
                "BertConfig.pooling='entities' is for fine-tuning on relations: text has no marked entities"
            )
        if self.eval_rows is not None:
            require_count("pretrain.eval_rows", self.eval_rows)
        require_count("pretrain.seed", self.seed, 0)
        if not isinstance(self.next_sentence, bool):
            raise UserError(f"pretrain.next_sentence must be True or False, not {self.next_sentence!r}")

    def plan(self, row_lengths: Sequence[int]) -> tuple[Phase, ...]:
        """Returns the run's phases, given the sequence lengths of its row directories; checks that they fit.

        Args:
            row_lengths: seq_len of each directory of rows.
        """
        longest = self.model.max_position_embeddings
        for length in row_lengths:
            if length > longest:
                raise UserError(
                    f"rows of {length} tokens are longer than the model's {longest} positions: prepare shorter rows"
                    " (--seq_len), or raise BertConfig.max_position_embeddings"
                )
        if len(set(row_lengths)) < len(row_lengths):
            raise UserError("two --data_dir hold rows of the same length: give one directory for each length")
        if self.phases is None:
            if len(row_lengths) > 1:
                raise UserError("several --data_dir need pretrain.phases, which say which length comes when")
            accumulation_steps = self.accumulation_steps or 1
            phases = (Phase(row_lengths[0], self.batch_size, self.steps, accumulation_steps=accumulation_steps),)
        else:
            phases = tuple(self.phases)
        for number, phase in enumerate(phases, start=1):
            if phase.seq_len not in row_lengths:
                raise UserError(
                    f"phase {number} wants rows of {phase.seq_len} tokens, and --data_dir has rows of"
                    f" {', '.join(map(str, row_lengths))}"
                )
        unused = set(row_lengths) - {phase.seq_len for phase in phases}
        if unused:
            raise UserError(f"no phase uses the rows of {min(unused)} tokens: drop that --data_dir, or add a phase")
        steps = sum(phase.steps for phase in phases)
        if steps > MOST:
            raise UserError(f"the phases have {steps:,} steps together, and a run has at most {MOST:,}")
        plan_learning_rate(self.schedule, self.learning_rate, phases)
        return phases

    def identity(self, phases: Sequence[Phase], data: dict[str, str]) -> dict[str, Any]:
        """What must stay the same for a run to go on, as flat JSON values under the names that users set.

        Args:
            phases: as `plan` returned them.
            data: the rows' fingerprints by sequence length, and the tokenizer's.
        """
        identity: dict[str, Any] = {f"BertConfig.{name}": value for name, value in self.model.to_json().items()}
        identity.update({f"data.{name}": value for name, value in data.items()})
        for name in ("learning_rate", "seed"):
            identity[f"pretrain.{name}"] = getattr(self, name)
        # Runs of before there was a choice do not say it.
        if not self.next_sentence:
            identity["pretrain.next_sentence"] = False
        for number, phase in enumerate(phases, start=1):
            prefix = "pretrain" if self.phases is None else f"phase {number}"
            for name in ("seq_len", "batch_size", "steps", "learning_rate", "warmup_steps"):
                identity.setdefault(f"{prefix}.{name}", getattr(phase, name))
        identity.update({f"Optimizer.{field}": value for field, value in self.optimizer.to_json().items()})
        for name, part in (("Schedule", self.schedule), ("Masking", self.masking)):
            identity.update({f"{name}.{field}": value for field, value in dataclasses.asdict(part).items()})
        identity["Execution.dtype"] = self.execution.dtype
        return identity


def masking_of_run(identity: Mapping[str, Any]) -> tuple[Masking, int] | None:
    """Returns the masking of a run, and its seed: with them come the masks of its own evaluations.

    Args:
        identity: of `Pretrain.identity`, as a checkpoint keeps it.

    Returns:
        None where nothing is said of them, as in what was not pre-trained here.

    Raises:
        UserError: the record is damaged, or of a newer version.
    """
    prefix = "Masking."
    fields = {name.removeprefix(prefix): value for name, value in identity.items() if name.startswith(prefix)}
    seed = identity.get("pretrain.seed")
    if not fields:
        return None
    unknown = sorted(set(fields) - {field.name for field in dataclasses.fields(Masking)})
    if unknown or not isinstance(seed, int):
        what = f"Masking.{unknown[0]} is not known here" if unknown else f"pretrain.seed is {seed!r}"
        raise UserError(f"the run's record of its masking cannot be used: {what}")
    return Masking(**fields), seed
