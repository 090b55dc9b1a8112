"""Trains the best recipe, and writes all that `in_pytorch` needs to train on the same batches from the same weights.

    python -m benchmarks.recipes.for_pytorch --data=/tmp/wiki18 --steps=400 --output=/tmp/wiki18_400
    python -m benchmarks.recipes.in_pytorch --run=/tmp/wiki18_400

The second command runs in an environment of its own, with torch, transformers and numpy. A step of 32 rows of 128
tokens takes 33 KB.
"""

import argparse
import dataclasses
import json
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from benchmarks.recipes.training import SetUp, Trial, Yardstick
from benchmarks.recipes.trials import BEST
from bert_jax.durable_files import publish, unfinished_folder
from bert_jax.interop.huggingface import write_directory
from bert_jax.training.train_step import make_eval_step
from launch.host_memory import keep_freed_memory

# The part of a batch that a masked-LM model without token types reads.
_ARRAYS = ("input_ids", "segment_ids", "position_ids", "masked_positions", "masked_ids", "masked_weights")


def write_batches(
    folder: pathlib.Path, batches: Iterable[dict[str, np.ndarray]], number: int, dtype: np.dtype
) -> Iterator[dict[str, np.ndarray]]:
    """Passes batches on, and writes each of their arrays into a file of its own, `[number, batch, ...]`.

    Args:
        folder: does not exist yet.
        batches: all of the same shapes.
        number: of the batches.
        dtype: holds every id of the vocabulary, and so every position and segment.
    """
    folder.mkdir()
    files: dict[str, np.memmap] = {}
    for place, batch in enumerate(batches):
        for name in _ARRAYS:
            if place == 0:
                shape = (number, *batch[name].shape)
                files[name] = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, shape)
            files[name][place] = batch[name]
        yield batch


def train(
    trial: Trial, data: pathlib.Path, yardstick: Yardstick, steps: int, seed: int, points: int, folder: pathlib.Path
) -> dict[str, Any]:
    """Trains as `training.train` does, and writes initial weights, batches and the yardstick's batches.

    Args:
        trial: a recipe without dropout, of an architecture that transformers has.
        data: a directory that `corpus` made.
        yardstick: of the same directory.
        steps: of the run.
        seed: of initial values, order and masks.
        points: how often it is scored, evenly over the steps, beside once before the first.
        folder: for the files; exists and is empty.

    Returns:
        The optimizer's settings, learning rate and training loss of every step, the unigram's loss on the yardstick,
        and by step the yardstick.

    Raises:
        ValueError: `in_pytorch` cannot do the same.
    """
    set_up = SetUp(trial, data, seed)
    config, tokenizer = set_up.config, set_up.tokenizer
    if trial.optimizer.kind != "muon" or config.hidden_dropout_prob or config.attention_probs_dropout_prob:
        raise ValueError("in_pytorch has Muon and no dropout, which would be drawn otherwise there")
    (folder / "model").mkdir()
    # Its tensors are taken out of the dict as they are written.
    parameters = jax.tree.map(lambda leaf: leaf, set_up.initial)
    write_directory(folder / "model", config, "BertForPreTraining", None, parameters, tokenizer)
    state, step = set_up.begin(steps)
    evaluate = jax.jit(make_eval_step(set_up.task))

    scored: list[dict[str, np.ndarray]] = []

    def evaluate_and_keep(parameters: Any, batch: dict[str, np.ndarray]) -> Any:
        scored.append(batch)
        return evaluate(parameters, batch)

    dtype = np.min_scalar_type(tokenizer.vocab_size)
    scores = {0: yardstick.score(evaluate_and_keep, state.params)[0]}
    for _ in write_batches(folder / "yardstick", scored, len(scored), dtype):
        pass
    marks = [round(steps * (point + 1) / points) for point in range(points)]
    metrics = []
    batches = write_batches(folder / "training", set_up.maker.train(trial.batch_size, 0, steps), steps, dtype)
    for number, batch in enumerate(batches, start=1):
        state, own = step(state, batch)
        metrics.append({name: float(own[name]) for name in ("mlm_loss", "learning_rate")})
        if number in marks:
            scores[number] = yardstick.score(evaluate, state.params)[0]
            print(f"step {number}: yardstick {scores[number]:+.4f}", flush=True)
    return {
        "optimizer": trial.optimizer.to_json(),
        "learning_rates": [own["learning_rate"] for own in metrics],
        "losses": [own["mlm_loss"] for own in metrics],
        "unigram": yardstick.unigram,
        "scores": scores,
    }


def main() -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=pathlib.Path, required=True, help="directory that benchmarks.recipes.corpus made"
    )
    parser.add_argument("--output", type=pathlib.Path, required=True, help="directory that does not exist yet")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--points", type=int, default=4, help="how often the yardstick is scored")
    parser.add_argument("--batch_size", type=int, default=BEST.batch_size)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.output.exists():
        parser.error(f"--output: {arguments.output} exists: choose another")
    keep_freed_memory()
    trial = dataclasses.replace(BEST, batch_size=arguments.batch_size)
    yardstick = Yardstick(arguments.data)
    with unfinished_folder(arguments.output) as folder:
        result = train(trial, arguments.data, yardstick, arguments.steps, arguments.seed, arguments.points, folder)
        (folder / "run.json").write_text(json.dumps(result))
        publish(folder, arguments.output)


if __name__ == "__main__":
    main()
