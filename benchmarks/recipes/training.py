"""Trains a recipe for so many CPU-minutes, and scores it by the yardstick that all recipes share.

The yardstick is the loss over hidden words of held-out documents less that of the unigram distribution, in nats:
15 % of the words, all of them [MASK], the same rows and the same masks whatever the recipe.
"""

import dataclasses
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.recipes.corpus import HELD_OUT
from bert_jax.config import preset
from bert_jax.data.masking_recipe import Masking
from bert_jax.data.rows import TRAIN, open_rows
from bert_jax.models.execution import Execution
from bert_jax.tasks.pretraining import PreTraining
from bert_jax.tasks.pretraining_batches import make_batch_maker
from bert_jax.text.tokenizers import load_tokenizer
from bert_jax.training.optimizers import build_optimizer
from bert_jax.training.recipe import Optimizer, PhaseRates, Schedule
from bert_jax.training.schedules import build_phased_schedule
from bert_jax.training.train_state import create_train_state
from bert_jax.training.train_step import make_eval_step, make_train_step

YARDSTICK = Masking(masked_lm_prob=0.15, mask_share=1.0, keep_share=0.0)
_EVALUATION_ROWS, _EVALUATION_BATCH = 1024, 64
_WARM_STEPS, _TIMED_STEPS = 5, 25
_MOST_STEPS = 1_000_000


@dataclasses.dataclass(frozen=True)
class Trial:
    """A recipe that is trained.

    Attributes:
        rows: name of the directory of rows, see `corpus.ROWS`.
        preset: the published sizes that the architecture begins with.
        model: fields of BertConfig that differ.
        batch_size: rows of a step.
        learning_rate: its peak.
        optimizer: how gradients become updates.
        schedule: the learning rate's course.
        masking: which words are predicted in training.
    """

    rows: str = "packed"
    preset: str = "tiny"
    model: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    batch_size: int = 32
    learning_rate: float = 1e-3
    optimizer: Optimizer = Optimizer()  # noqa: RUF009 (frozen)
    schedule: Schedule = Schedule()  # noqa: RUF009 (frozen)
    masking: Masking = Masking()  # noqa: RUF009 (frozen)


class Yardstick:
    """The held-out rows of a corpus, and what the unigram distribution of its training rows scores on them."""

    def __init__(self, data: pathlib.Path):
        """Reads the rows of a directory that `corpus` made."""
        store, tokenizer = open_rows(data / HELD_OUT), load_tokenizer(data / "tokenizer")
        maker = make_batch_maker(store, tokenizer, YARDSTICK, seed=0)
        self._batches = list(maker.evaluation(TRAIN, _EVALUATION_BATCH, _EVALUATION_ROWS // _EVALUATION_BATCH))
        counts = open_rows(data / "packed").token_counts + 1.0
        chosen = np.concatenate([batch["masked_ids"][batch["masked_weights"] > 0] for batch in self._batches])
        self.unigram = float(-np.log(counts / counts.sum())[chosen].mean())
        self.commonest = float((chosen == counts.argmax()).mean())

    def score(self, evaluate: Any, parameters: Any) -> tuple[float, float]:
        """Returns loss less the unigram's, in nats, and accuracy.

        Args:
            evaluate: parameters and a batch to statistics, compiled.
            parameters: of the task.
        """
        totals = [evaluate(parameters, batch) for batch in self._batches]
        sums = {name: sum(float(one[name]) for one in totals) for name in ("mlm_sum", "mlm_correct", "mlm_weight")}
        return sums["mlm_sum"] / sums["mlm_weight"] - self.unigram, sums["mlm_correct"] / sums["mlm_weight"]


class SetUp:
    """A trial on the rows of a corpus, before its first step.

    Attributes:
        maker: of the training batches.
        tokenizer: of the rows.
        config: the architecture.
        task: the model and its loss.
        initial: its parameters, arrays of NumPy.
    """

    def __init__(self, trial: Trial, data: pathlib.Path, seed: int):
        """Opens the rows and makes the parameters.

        Args:
            trial: the recipe.
            data: a directory that `corpus` made.
            seed: of initial values, order, masks and dropout.
        """
        self._trial, self._seed = trial, seed
        store, self.tokenizer = open_rows(data / trial.rows), load_tokenizer(data / "tokenizer")
        self.maker = make_batch_maker(store, self.tokenizer, trial.masking, seed)
        self.config = preset(trial.preset, vocab_size=self.tokenizer.vocab_size, **trial.model)
        self.task = PreTraining(self.config, execution=Execution(unroll=self.config.num_hidden_layers))
        self.initial = jax.tree.map(np.array, jax.jit(self.task.init)(jax.random.key(seed)))

    def begin(self, steps: int) -> tuple[Any, Any]:
        """Returns the state before the first of so many steps, and the step, which takes the state it is given."""
        trial, task = self._trial, self.task
        rate = build_phased_schedule(trial.schedule, trial.learning_rate, [PhaseRates(steps)])
        optimizer = build_optimizer(trial.optimizer, rate, logical_axes=task.logical_axes())
        step = jax.jit(make_train_step(task, optimizer, rate, seed=self._seed), donate_argnums=0)
        return create_train_state(jax.tree.map(jnp.array, self.initial), optimizer), step


def train(
    trial: Trial, data: pathlib.Path, yardstick: Yardstick, cpu_minutes: float, seed: int, shares: Sequence[float]
) -> dict:
    """Trains; the schedule ends where the CPU-minutes do.

    Args:
        trial: the recipe.
        data: a directory that `corpus` made.
        yardstick: of the same directory.
        cpu_minutes: of the steps alone: neither compiling nor scoring counts.
        seed: of initial values, order, masks and dropout.
        shares: of the steps, after which it is scored; the last is 1.

    Returns:
        steps, seconds of the CPU a step, and of each point the share of the steps, the loss less the unigram's and the
        accuracy.
    """
    set_up = SetUp(trial, data, seed)
    state, step = set_up.begin(_MOST_STEPS)
    batches = iter(set_up.maker.train(trial.batch_size, 0, _WARM_STEPS + _TIMED_STEPS))
    for number, batch in enumerate(batches):
        if number == _WARM_STEPS:
            jax.block_until_ready(state)
            began = time.process_time()
        state, _ = step(state, batch)
    jax.block_until_ready(state)
    cost = (time.process_time() - began) / _TIMED_STEPS

    steps = max(len(shares), round(cpu_minutes * 60 / cost))
    state, step = set_up.begin(steps)
    evaluate = jax.jit(make_eval_step(set_up.task))
    marks = [max(1, round(steps * share)) for share in shares]
    found, spent, resumed = [], 0.0, None
    for number, batch in enumerate(set_up.maker.train(trial.batch_size, 0, steps), start=1):
        state, _ = step(state, batch)
        if resumed is None:
            # The first step is compiled as it is called.
            jax.block_until_ready(state)
            resumed = time.process_time()
        if number in marks:
            jax.block_until_ready(state)
            spent += time.process_time() - resumed
            loss, accuracy = yardstick.score(evaluate, state.params)
            found.append({"share": number / steps, "cpu_seconds": spent, "loss": loss, "accuracy": accuracy})
            resumed = time.process_time()
    return {"steps": steps, "cpu_seconds_a_step": cost, "points": found}
