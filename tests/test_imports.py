"""The rooms are stacked: what lies below works where the libraries of what lies above are not installed."""

import ast
import os
import subprocess
import sys

import pytest

_BLOCK = """
import importlib.abc
import sys

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names!r}:
            raise ModuleNotFoundError("blocked by the test: " + name, name=name)
        return None

sys.meta_path.insert(0, Block())
"""


def run_without(names, code, root):
    """Runs `code` in a new interpreter where the libraries `names` cannot be imported."""
    done = subprocess.run(
        [sys.executable, "-c", _BLOCK.format(names=set(names)) + code],
        cwd=root,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_block_blocks(repository_root):
    code = "try:\n    import tensorflow\nexcept ModuleNotFoundError:\n    print('blocked')"
    assert run_without({"tensorflow"}, code, repository_root).strip() == "blocked"


_TRAIN_STEP = """
import jax, jax.numpy as jnp, numpy as np, optax
import bert_jax
from bert_jax.config import BertConfig
from bert_jax.tasks.pretraining import PreTraining
from bert_jax.training.optimizers import build_optimizer
from bert_jax.training.recipe import Optimizer
from bert_jax.training.train_state import create_train_state
from bert_jax.training.train_step import make_train_step

config = BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
                    max_position_embeddings=8, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
task = PreTraining(config)
optimizer = build_optimizer(Optimizer(), optax.constant_schedule(1e-3))
state = jax.jit(lambda key: create_train_state(task.init(key), optimizer))(jax.random.key(0))
tokens = ("input_ids", "token_type_ids", "position_ids", "segment_ids")
batch = {name: np.ones((2, 4), np.int32) for name in tokens}
batch |= {name: np.ones((2, 1), np.int32) for name in ("masked_positions", "masked_ids", "next_sentence_labels")}
batch |= {name: np.ones((2, 1), np.float32) for name in ("masked_weights", "next_sentence_weights")}
batch["cls_positions"] = np.zeros((2, 1), np.int32)
state, metrics = jax.jit(make_train_step(task, optimizer, optax.constant_schedule(1e-3), seed=0))(state, batch)
assert np.isfinite(float(metrics["loss"]))
print(int(state.step))
"""


def test_a_train_step_needs_no_tensorflow_tfds_or_gin(repository_root):
    blocked = {"tensorflow", "tensorflow_datasets", "gin", "array_record", "tokenizers", "sentencepiece", "sentencex"}
    assert run_without(blocked, _TRAIN_STEP, repository_root).strip() == "1"


def test_text_needs_no_jax_and_no_tensorflow(repository_root):
    modules = [f"bert_jax.text.{path.stem}" for path in (repository_root / "bert_jax" / "text").glob("[a-z]*.py")]
    code = f"import importlib\nfor name in {sorted(modules)}:\n    importlib.import_module(name)\n    print(name)"
    imported = run_without({"jax", "jaxlib", "flax", "tensorflow", "tensorflow_datasets"}, code, repository_root)
    assert len(imported.split()) == len(modules) > 5


# The modules that lie under all rooms.
_FOUNDATIONS = {"config", "errors", "durable_files", "numerics", "parent_process"}
# Each room may import those to its right; `launch` may import all of them.
_ROOMS = {
    "text": set(),
    "data": {"text"},
    "models": set(),
    "parallel": {"models", "data", "text"},
    "training": {"parallel", "models", "data", "text"},
    "interop": {"training", "models", "data", "text"},
    "tasks": {"training", "parallel", "models", "data", "text"},
}


def rooms_imported(path):
    """The parts of bert_jax that a file imports anywhere, and whether it imports launch."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            separate = node.module == "bert_jax"
            names = [f"{node.module}.{alias.name}" for alias in node.names] if separate else [node.module]
        for name in names:
            parts = name.split(".")
            if parts[0] == "launch":
                yield "launch"
            elif parts[0] == "bert_jax" and len(parts) > 1:
                yield parts[1]


@pytest.mark.parametrize("room", _ROOMS)
def test_imports_go_down_only(room, repository_root):
    for path in sorted((repository_root / "bert_jax" / room).glob("**/*.py")):
        assert set(rooms_imported(path)) <= _ROOMS[room] | _FOUNDATIONS | {room}, path
