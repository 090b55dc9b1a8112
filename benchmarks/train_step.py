"""How fast the train step is, on synthetic batches: no data, no TensorFlow, no gin.

Example: python -m benchmarks.train_step --preset=tiny,mini,base --batch_size=32,16,4 --seq_len=128 --dtype=float32
On fake devices of the CPU, layouts can be compared in what they do, not in how fast:
XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m benchmarks.train_step --mesh=data:2,fsdp:4
"""

import argparse
import statistics
import time

import jax
import numpy as np
from jax.sharding import Mesh

from bert_jax.config import BertConfig, preset
from bert_jax.errors import UserError
from bert_jax.models.execution import DTYPES, REMAT, Execution
from bert_jax.parallel.mesh import batch_sharding, check_batch, make_mesh
from bert_jax.parallel.mesh_spec import DEFAULT_MESH, check_heads, parse_mesh
from bert_jax.parallel.sharding import state_shardings
from bert_jax.tasks.pretraining import PreTraining
from bert_jax.training.compilation import compile_train_step
from bert_jax.training.flops import peak_flops, train_flops
from bert_jax.training.optimizers import build_optimizer
from bert_jax.training.recipe import OPTIMIZERS, Optimizer, Schedule
from bert_jax.training.schedules import build_schedule
from bert_jax.training.train_state import TrainState, create_train_state
from bert_jax.training.train_step import make_train_step
from launch.host_memory import keep_freed_memory


def synthetic_batch(config: BertConfig, batch_size: int, seq_len: int, num_predictions: int) -> dict[str, np.ndarray]:
    """Returns a batch of random tokens in full rows, of the shapes and dtypes of a real one."""
    generator = np.random.default_rng(0)

    def ids(*shape: int) -> np.ndarray:
        return generator.integers(0, config.vocab_size, shape, dtype=np.int32)

    positions = np.argsort(generator.random((batch_size, seq_len)), axis=1)[:, :num_predictions]
    return {
        "input_ids": ids(batch_size, seq_len),
        "token_type_ids": np.tile(np.arange(seq_len, dtype=np.int32) >= seq_len // 2, (batch_size, 1)).astype(np.int32),
        "position_ids": np.tile(np.arange(seq_len, dtype=np.int32), (batch_size, 1)),
        "segment_ids": np.ones((batch_size, seq_len), np.int32),
        "masked_positions": np.sort(positions, axis=1).astype(np.int32),
        "masked_ids": ids(batch_size, num_predictions),
        "masked_weights": np.ones((batch_size, num_predictions), np.float32),
        "cls_positions": np.zeros((batch_size, 1), np.int32),
        "next_sentence_labels": generator.integers(0, 2, (batch_size, 1), dtype=np.int32),
        "next_sentence_weights": np.ones((batch_size, 1), np.float32),
    }


def measure(config: BertConfig, mesh: Mesh, batch_size: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Compiles and times one setting; returns seconds to compile, median and fastest seconds a step, and FLOPs."""
    check_heads(mesh.shape["tensor"], config.num_attention_heads)
    check_batch(mesh, batch_size, arguments.accumulation_steps, "--batch_size")
    execution = Execution(dtype=arguments.dtype, remat=arguments.remat, unroll=arguments.unroll)
    task = PreTraining(config, execution=execution)
    schedule = build_schedule(Schedule(), 1e-4, 1_000_000)
    optimizer = build_optimizer(Optimizer(kind=arguments.optimizer), schedule, logical_axes=task.logical_axes())
    num_predictions = -(-arguments.seq_len * 15 // 100)
    batch = jax.device_put(
        synthetic_batch(config, batch_size, arguments.seq_len, num_predictions), batch_sharding(mesh)
    )

    def create(key: jax.Array) -> TrainState:
        return create_train_state(task.init(key), optimizer)

    key = jax.random.key(0)
    shardings = state_shardings(mesh, task.logical_axes(), jax.eval_shape(create, key))
    state = jax.jit(create, out_shardings=shardings)(key)
    train_step = make_train_step(task, optimizer, schedule, seed=0, accumulation_steps=arguments.accumulation_steps)

    def abstract(leaf: jax.Array) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)

    began = time.perf_counter()
    step, _ = compile_train_step(train_step, jax.tree.map(abstract, state), jax.tree.map(abstract, batch))
    compile_seconds = time.perf_counter() - began
    for _ in range(2):
        state, metrics = step(state, batch)
    jax.block_until_ready(metrics)
    seconds = []
    for _ in range(arguments.repeats):
        began = time.perf_counter()
        for _ in range(arguments.steps):
            state, metrics = step(state, batch)
        jax.block_until_ready(metrics)
        seconds.append((time.perf_counter() - began) / arguments.steps)
    return {
        "compile": compile_seconds,
        "median": statistics.median(seconds),
        "fastest": min(seconds),
        "flops": train_flops(config, batch_size, arguments.seq_len, num_predictions, 1),
    }


def main() -> None:
    """Prints one line for each preset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="tiny", help="one or several, separated by commas")
    parser.add_argument("--batch_size", default="32", help="one for all presets, or one for each")
    parser.add_argument("--seq_len", type=int, default=128)
    parser.add_argument("--vocab_size", type=int, default=30522)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--remat", choices=REMAT, default="none")
    parser.add_argument("--unroll", type=int, default=1, help="layers per iteration of the scan")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="bert_adamw")
    parser.add_argument("--accumulation_steps", type=int, default=1)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--mesh", default=str(DEFAULT_MESH), help="devices along each axis, as launch.pretrain has it")
    parser.add_argument("--steps", type=int, default=10, help="per repeat")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()

    presets = arguments.preset.split(",")
    batch_sizes = [int(size) for size in arguments.batch_size.split(",")]
    if len(batch_sizes) == 1:
        batch_sizes *= len(presets)
    if len(batch_sizes) != len(presets):
        parser.error("--batch_size needs one value, or one for each preset")
    # As launchers do.
    keep_freed_memory()
    try:
        mesh = make_mesh(parse_mesh(arguments.mesh))
    except UserError as error:
        parser.error(str(error))
    device = jax.devices()[0]
    peak = peak_flops(device.device_kind)
    count = jax.device_count()
    print(f"{count} x {device.device_kind}, jax {jax.__version__}, {arguments.dtype}, length {arguments.seq_len}")
    print(f"{'preset':<8}{'batch':>6}{'compile s':>11}{'steps/s':>9}{'sequences/s':>13}{'TFLOP/s':>9}{'MFU':>8}")
    for name, batch_size in zip(presets, batch_sizes, strict=True):
        config = preset(
            name,
            vocab_size=arguments.vocab_size,
            hidden_dropout_prob=arguments.dropout,
            attention_probs_dropout_prob=arguments.dropout,
            max_position_embeddings=max(512, arguments.seq_len),
        )
        try:
            measured = measure(config, mesh, batch_size, arguments)
        except UserError as error:
            parser.error(str(error))
        rate = 1 / measured["median"]
        flops = measured["flops"] * rate
        share = f"{flops / (peak * count):.1%}" if peak else "-"
        print(
            f"{name:<8}{batch_size:>6}{measured['compile']:>11.1f}{rate:>9.2f}{batch_size * rate:>13.1f}"
            f"{flops / 1e12:>9.3f}{share:>8}",
            flush=True,
        )
    print("medians over repeats; TFLOP/s counts matrix products by formula; MFU is against the chip's bfloat16 peak")


if __name__ == "__main__":
    main()
