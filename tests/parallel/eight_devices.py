"""Trains, saves and restores on fake devices, and prints as JSON what came of it; run by test_meshes.py.

Usage: python eight_devices.py train BATCHES.npz FOLDER, on 8 devices; then with restore, on any number.
"""

import functools
import json
import pathlib
import re
import sys

import jax
import numpy as np
import optax

from bert_jax.config import BertConfig
from bert_jax.parallel import pmap
from bert_jax.parallel.mesh import abstract_batch, batch_sharding, make_mesh
from bert_jax.parallel.mesh_spec import parse_mesh
from bert_jax.parallel.sharding import bytes_per_device, state_shardings, with_shardings
from bert_jax.tasks.pretraining import PreTraining
from bert_jax.training.checkpoints import CheckpointStore
from bert_jax.training.checksums import tree_checksums
from bert_jax.training.compilation import CompiledEvaluation, compile_train_step
from bert_jax.training.optimizers import build_optimizer
from bert_jax.training.recipe import Optimizer
from bert_jax.training.train_state import create_train_state
from bert_jax.training.train_step import make_eval_step, make_train_step

VOCAB_SIZE, LAYERS, HIDDEN, MLP = 100, 3, 32, 64
TASK = PreTraining(
    BertConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        intermediate_size=MLP,
        max_position_embeddings=24,
        initializer_range=0.2,
    )
)
RATE = optax.constant_schedule(1e-3)
OPTIMIZER = build_optimizer(Optimizer(), RATE)
SAVED_AT = 3


class Run:
    """A train step on a mesh of the first devices, and the state that goes with it."""

    def __init__(self, mesh: str, batches, *, devices: int = 8, partitioner: str = "jit", accumulation_steps: int = 1):
        self.mesh = make_mesh(parse_mesh(mesh), devices=jax.devices()[:devices])
        self.sharding = batch_sharding(self.mesh)
        self.batches = batches
        shapes = jax.eval_shape(self._create, jax.random.key(0))
        self.shardings = state_shardings(self.mesh, TASK.logical_axes(), shapes)
        self.abstract_state = with_shardings(shapes, self.shardings)
        self.shapes = abstract_batch(self.mesh, {name: (a.shape, a.dtype) for name, a in batches[0].items()})
        step = make_train_step(
            TASK,
            OPTIMIZER,
            RATE,
            seed=5,
            accumulation_steps=accumulation_steps,
            axis_name=pmap.AXIS if partitioner == "pmap" else None,
        )
        if partitioner == "pmap":
            step = pmap.data_parallel(self.mesh, step)
        self._train_step = step

    @functools.cached_property
    def compiled(self):
        """The compiled step, and the names of its metrics."""
        return compile_train_step(self._train_step, self.abstract_state, self.shapes)

    @staticmethod
    def _create(key):
        return create_train_state(TASK.init(key), OPTIMIZER)

    def begin(self):
        return jax.jit(self._create, out_shardings=self.shardings)(jax.random.key(0))

    def train(self, state, first: int, last: int):
        """Returns the state after the steps, and their losses and gradient norms."""
        history = []
        step, names = self.compiled
        for batch in self.batches[first:last]:
            state, vector = step(state, jax.device_put(batch, self.sharding))
            metrics = dict(zip(names, np.asarray(vector).tolist(), strict=True))
            history.append([metrics["loss"], metrics["grad_norm"]])
        return state, history

    def evaluate(self, params):
        evaluation = CompiledEvaluation(TASK, make_eval_step(TASK), self.abstract_state.params, self.shapes)
        return evaluation(params, [jax.device_put(batch, self.sharding) for batch in self.batches[:2]])


def bytes_held(state) -> list[int]:
    """The bytes of the state that each device really holds."""
    held = dict.fromkeys(jax.devices(), 0)
    for leaf in jax.tree.leaves(state):
        for shard in leaf.addressable_shards:
            held[shard.device] += shard.data.nbytes
    return list(held.values())


def gathered_shapes(step: jax.stages.Compiled) -> list[list[int]]:
    """The shapes of what a compiled step gathers from all devices."""
    found = re.findall(r"= f32\[([\d,]+)\]\S* all-gather(?:-start)?\(", step.as_text())
    return [[int(size) for size in shape.split(",")] for shape in set(found)]


def float_shapes(step: jax.stages.Compiled) -> list[list[int]]:
    """The shapes of all floating-point arrays in a compiled step, as each device has them."""
    return [[int(size) for size in shape.split(",")] for shape in set(re.findall(r"f32\[([\d,]+)\]", step.as_text()))]


def train(batches, folder: pathlib.Path) -> dict:
    """Trains on each layout, and saves from fsdp:8 in the middle."""
    one = Run("data:1", batches, devices=1)
    state, history = one.train(one.begin(), 0, len(batches))
    result = {"losses": {"1 device": history}, "evaluation": {"1 device": one.evaluate(state.params)}}
    runs = {}
    for name, mesh, options in (
        ("data:8", "data:8", {}),
        ("fsdp:8", "fsdp:8", {}),
        ("data:2,tensor:4", "data:2,tensor:4", {}),
        # Micro-batches too: they are no part of what must be equal.
        ("data:2,fsdp:2,tensor:2", "data:2,fsdp:2,tensor:2", {"accumulation_steps": 2}),
        ("pmap", "data:8", {"partitioner": "pmap", "accumulation_steps": 2}),
    ):
        run = runs[name] = Run(mesh, batches, **options)
        state, before = run.train(run.begin(), 0, SAVED_AT)
        if name == "fsdp:8":
            result["bytes_held"] = bytes_held(state)
            result["bytes_expected"] = bytes_per_device(run.abstract_state)
            result["argument_bytes"] = run.compiled[0].memory_analysis().argument_size_in_bytes
            result["gathered_shapes"] = gathered_shapes(run.compiled[0])
            result["float_shapes"] = {name: float_shapes(run.compiled[0])}
            result["checksums"] = tree_checksums(state)[0]
            save(folder, state)
        if name == "pmap":
            # What one partitioner leaves, the other takes up, as it is; steps give their state's memory away.
            copy, _ = run.train(run.begin(), 0, SAVED_AT)
            result["jit_after_pmap"] = runs["data:8"].train(copy, SAVED_AT, len(batches))[1]
        state, after = run.train(state, SAVED_AT, len(batches))
        result["losses"][name] = before + after
        if name == "data:2,fsdp:2,tensor:2":
            result["evaluation"][name] = run.evaluate(state.params)
    # Where data is cut too, an array may be whole on fewer devices than all, and still hold the rows of several.
    result["float_shapes"]["data:2,fsdp:4"] = float_shapes(Run("data:2,fsdp:4", batches).compiled[0])
    return result


def save(folder: pathlib.Path, state) -> None:
    """Writes a checkpoint as a run does."""
    store = CheckpointStore(folder, keep=1)
    store.save(SAVED_AT, state, {}, {"tokenizer/x": b"x"}, None)
    store.close()


def restore(batches, folder: pathlib.Path) -> dict:
    """Restores on each mesh of these devices, and goes on where it says so."""
    result = {}
    meshes = {8: [("data:1", 1), ("fsdp:2", 2), ("fsdp:2,tensor:2", 4), ("data:2,tensor:4", 8)], 16: [("fsdp:16", 16)]}
    goes_on = "fsdp:2,tensor:2"
    for mesh, devices in meshes[jax.device_count()]:
        run = Run(mesh, batches, devices=devices)
        store = CheckpointStore(folder, keep=1)
        step, state = store.restore_latest(run.abstract_state)
        store.close()
        # Compared by the checksums of whole arrays, which do not depend on the layout.
        checksums = tree_checksums(state)[0]
        laid_out = all(
            leaf.sharding == wanted
            for leaf, wanted in zip(jax.tree.leaves(state), jax.tree.leaves(run.shardings), strict=True)
        )
        history = run.train(state, step, len(batches))[1] if mesh == goes_on else None
        result[mesh] = {"step": step, "checksums": checksums, "laid_out": laid_out, "losses": history}
    return result


def main() -> None:
    """Does what the command line says."""
    action, path, folder = sys.argv[1:]
    with np.load(path) as arrays:
        names = sorted({key.split("/")[1] for key in arrays})
        count = len(arrays.files) // len(names)
        batches = [{name: arrays[f"{number}/{name}"] for name in names} for number in range(count)]
    print(json.dumps({"train": train, "restore": restore}[action](batches, pathlib.Path(folder))))


if __name__ == "__main__":
    main()
