"""Takes steps of Muon on one and on eight fake devices of the CPU, and prints as JSON how far they differ.

Run by test_muon.py, which sets the number of devices.
"""

import json

import jax
import numpy as np
import optax

from bert_jax.config import BertConfig
from bert_jax.parallel.mesh import abstract_batch, batch_sharding, make_mesh
from bert_jax.parallel.mesh_spec import parse_mesh
from bert_jax.parallel.sharding import state_shardings, with_shardings
from bert_jax.tasks.objectives import TextObjective
from bert_jax.training.compilation import compile_train_step
from bert_jax.training.optimizers import build_optimizer
from bert_jax.training.recipe import Optimizer
from bert_jax.training.train_state import create_train_state
from bert_jax.training.train_step import make_train_step

ROWS, LENGTH, LABELS, STEPS = 8, 12, 3, 3
TASK = TextObjective(
    BertConfig(
        vocab_size=40,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=LENGTH,
        initializer_range=0.2,
    ),
    "classes",
    LABELS,
)
RATE = optax.constant_schedule(1e-3)
OPTIMIZER = build_optimizer(Optimizer(kind="muon"), RATE, logical_axes=TASK.logical_axes())


def make_batch() -> dict[str, np.ndarray]:
    """Random texts and labels."""
    draw = np.random.default_rng(0)
    return {
        "input_ids": draw.integers(5, 40, (ROWS, LENGTH)).astype(np.int32),
        "token_type_ids": np.zeros((ROWS, LENGTH), np.int32),
        "position_ids": np.tile(np.arange(LENGTH, dtype=np.int32), (ROWS, 1)),
        "segment_ids": np.ones((ROWS, LENGTH), np.int32),
        "labels": draw.integers(0, LABELS, ROWS).astype(np.int32),
        "row_weights": np.ones(ROWS, np.float32),
    }


def train(layout: str, devices: int) -> tuple[list[float], dict[str, np.ndarray], bool]:
    """Returns the losses, the last parameters by name, and whether all lies where the rules put it."""
    mesh = make_mesh(parse_mesh(layout), devices=jax.devices()[:devices])
    batch = make_batch()

    def create(key):
        return create_train_state(TASK.init(key), OPTIMIZER)

    shapes = jax.eval_shape(create, jax.random.key(0))
    shardings = state_shardings(mesh, TASK.logical_axes(), shapes)
    state = jax.jit(create, out_shardings=shardings)(jax.random.key(0))
    abstract = abstract_batch(mesh, {name: (array.shape, array.dtype) for name, array in batch.items()})
    step, names = compile_train_step(
        make_train_step(TASK, OPTIMIZER, RATE, seed=5), with_shardings(shapes, shardings), abstract
    )
    losses = []
    for _ in range(STEPS):
        state, vector = step(state, jax.device_put(batch, batch_sharding(mesh)))
        losses.append(float(vector[names.index("loss")]))
    laid_out = jax.tree.map(lambda leaf, wanted: leaf.sharding == wanted, state, shardings)
    params = {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf, np.float64)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.params)
    }
    return losses, params, all(jax.tree.leaves(laid_out))


def main() -> None:
    """Compares a mesh of all axes with one device."""
    reference, params, _ = train("data:1", 1)
    losses, others, laid_out = train("data:2,fsdp:2,tensor:2", 8)
    differences = {name: np.linalg.norm(others[name] - leaf) / np.linalg.norm(leaf) for name, leaf in params.items()}
    print(json.dumps({"reference": reference, "losses": losses, "differences": differences, "laid_out": laid_out}))


if __name__ == "__main__":
    main()
