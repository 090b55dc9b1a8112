"""A model learns what can only be learnt from the context: which word stands between two others.

Repeating a batch by heart, or the commonest word, would not show whether attention finds its way.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.config import BertConfig
from bert_jax.models.execution import Execution
from bert_jax.tasks.pretraining import PreTraining
from bert_jax.training.optimizers import build_optimizer
from bert_jax.training.recipe import Optimizer, Schedule
from bert_jax.training.schedules import build_schedule
from bert_jax.training.train_state import create_train_state
from bert_jax.training.train_step import make_eval_step, make_train_step

WORDS, LENGTH, BATCH, STEPS = 16, 12, 64, 400
MASK = WORDS


def _batch(random: np.random.Generator) -> dict[str, np.ndarray]:
    """Rows that count upwards from anywhere, modulo the number of words, with two words masked in each."""
    words = (random.integers(0, WORDS, (BATCH, 1)) + np.arange(LENGTH)) % WORDS
    positions = np.sort(np.argsort(random.random((BATCH, LENGTH)), axis=1)[:, :2], axis=1)
    input_ids = words.copy()
    np.put_along_axis(input_ids, positions, MASK, axis=1)
    integers = {
        "input_ids": input_ids,
        "token_type_ids": np.zeros_like(words),
        "position_ids": np.broadcast_to(np.arange(LENGTH), words.shape),
        "segment_ids": np.ones_like(words),
        "masked_positions": positions,
        "masked_ids": np.take_along_axis(words, positions, axis=1),
        "cls_positions": np.zeros((BATCH, 1)),
        "next_sentence_labels": np.zeros((BATCH, 1)),
    }
    batch = {name: np.asarray(array, np.int32) for name, array in integers.items()}
    batch["masked_weights"] = np.ones((BATCH, 2), np.float32)
    batch["next_sentence_weights"] = np.zeros((BATCH, 1), np.float32)
    return batch


@pytest.mark.parametrize(("kind", "peak"), [("bert_adamw", 2e-3), ("adamw", 5e-3), ("lamb", 3e-2), ("muon", 2e-3)])
def test_a_word_is_told_from_its_neighbours(kind, peak):
    config = BertConfig(
        vocab_size=WORDS + 1,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=LENGTH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.1,
    )
    task = PreTraining(config, execution=Execution(unroll=2))
    schedule = build_schedule(Schedule(kind="linear", warmup_fraction=0.1), peak, STEPS)
    optimizer = build_optimizer(Optimizer(kind=kind), schedule, logical_axes=task.logical_axes())
    state = jax.jit(lambda key: create_train_state(task.init(key), optimizer))(jax.random.key(0))
    step = jax.jit(make_train_step(task, optimizer, schedule, seed=0), donate_argnums=0)
    random = np.random.default_rng(0)
    for _ in range(STEPS):
        state, _ = step(state, _batch(random))
    statistics = jax.jit(make_eval_step(task))(state.params, jax.tree.map(jnp.asarray, _batch(random)))
    metrics = task.metrics(statistics)
    # Chance is one in sixteen.
    assert metrics["mlm_hidden_accuracy"] > 0.95
