"""How many rows a second the input pipeline makes, without training.

Example: python -m benchmarks.pipeline --data_dir=rows_128 --batch_size=32
"""

import argparse
import os
import statistics
import time

# As the launchers do, before TensorFlow is imported: no greeting, and no kernels that are of no use here.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

from bert_jax.data.masking_recipe import Masking
from bert_jax.data.rows import open_rows
from bert_jax.tasks.pretraining_batches import make_batch_maker
from bert_jax.text.tokenizers import load_tokenizer


def main() -> None:
    """Prints one line for each kind of masking."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--batches", type=int, default=100, help="per repeat")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    store = open_rows(arguments.data_dir)
    tokenizer = load_tokenizer(store.tokenizer_directory)
    recipe = store.recipe
    print(
        f"{store.num_rows('train')} rows of {recipe.seq_len}, up to {recipe.max_pairs_per_row} pair(s) a row,"
        f" batches of {arguments.batch_size}"
    )
    print(f"{'masking':<14}{'first batch s':>15}{'rows/s':>10}{'tokens/s':>12}")
    for name, masking in (
        ("dynamic", Masking()),
        ("static", Masking(static=True)),
        ("whole words", Masking(whole_word=True)),
    ):
        maker = make_batch_maker(store, tokenizer, masking, seed=0)
        began = time.perf_counter()
        batches = maker.train(arguments.batch_size, 0, 10 + arguments.batches * arguments.repeats)
        next(batches)
        first = time.perf_counter() - began
        for _ in range(9):
            next(batches)
        rates = []
        for _ in range(arguments.repeats):
            began = time.perf_counter()
            for _ in range(arguments.batches):
                next(batches)
            rates.append(arguments.batches * arguments.batch_size / (time.perf_counter() - began))
        rate = statistics.median(rates)
        print(f"{name:<14}{first:>15.2f}{rate:>10.0f}{rate * recipe.seq_len:>12.0f}", flush=True)


if __name__ == "__main__":
    main()
