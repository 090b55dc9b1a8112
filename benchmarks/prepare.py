"""How fast text becomes rows, beside the speed of the tokenizer alone and of sentence splitting alone.

Example: python -m benchmarks.prepare --input='corpus/*.txt' --tokenizer=tokenizer --seq_len=128 --workers=2
"""

import pathlib
import sys
import tempfile
import time
from collections.abc import Sequence

from absl import flags

from bert_jax.data.rows import Recipe
from bert_jax.data.workers import available_cores
from bert_jax.errors import UserError
from launch.command import run

# The parts are measured on the beginning of the text, held in memory.
SAMPLE_CHARACTERS = 8_000_000
# As many sentences as a block of the preparation has.
BATCH_CHARACTERS = 1_000_000


def define_flags(values: flags.FlagValues) -> None:
    """Adds the flags of this benchmark."""
    flags.DEFINE_string("input", None, "Text, as for launch.prepare.", flag_values=values)
    flags.DEFINE_string("tokenizer", None, "Directory of the tokenizer.", flag_values=values)
    flags.DEFINE_integer("seq_len", 128, "Most tokens in a row.", flag_values=values)
    flags.DEFINE_bool("packing", False, "Put several pairs into one row.", flag_values=values)
    flags.DEFINE_string("format", "auto", "Format of the text.", flag_values=values)
    flags.DEFINE_string("language", "en", "Language of the text.", flag_values=values)
    flags.DEFINE_integer("workers", None, "Processes; all cores by default.", flag_values=values)


def execute(values: flags.FlagValues) -> None:
    """Measures and prints the table."""
    for name in ("input", "tokenizer"):
        if not values[name].value:
            raise UserError(f"--{name} is missing: {values[name].help}")
    from bert_jax.data.preparation import prepare
    from bert_jax.text.documents import check_inputs

    check_inputs(values.input, values.format)
    workers = values.workers or available_cores()
    splitting, tokenizing = _measure_parts(values)
    with tempfile.TemporaryDirectory() as directory:
        report = prepare(
            inputs=values.input,
            tokenizer_directory=values.tokenizer,
            output=pathlib.Path(directory) / "rows",
            recipe=Recipe(values.seq_len, packing=values.packing, max_pairs_per_row=8 if values.packing else 1),
            text_format=values.format,
            language=values.language,
            workers=workers,
        )
    timing = report["timing"]
    whole = timing["megabytes_per_second_per_worker"]
    print(f"{report['corpus']['text_bytes'] / 1e6:.1f} MB of text, {workers} workers, rows of {values.seq_len} tokens")
    print(f"{'':28}{'MB/s per core':>14}{'share of the time':>20}")
    for name, speed in (("sentence splitting alone", splitting), ("tokenizer alone", tokenizing)):
        print(f"{name:28}{speed:14.2f}{whole / speed:20.1%}")
    print(f"{'whole preparation':28}{whole:14.2f}{1:20.1%}")
    rows_seconds = timing["seconds"]["rows"] / timing["seconds"]["total"]
    print(f"{'of it, building rows':28}{'':14}{rows_seconds:20.1%}")


def _measure_parts(values: flags.FlagValues) -> tuple[float, float]:
    """Returns the speed of sentence splitting and of tokenization, each alone, in MB of text/s on one core."""
    from bert_jax.text.documents import read_passages
    from bert_jax.text.sentences import split_sentences
    from bert_jax.text.tokenizers import load_tokenizer

    tokenizer = load_tokenizer(values.tokenizer)
    texts, size = [], 0
    for passage in read_passages(values.input, values.format):
        texts.append(passage.text)
        size += len(passage.text)
        if size >= SAMPLE_CHARACTERS:
            break
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    started = time.perf_counter()
    sentences = [sentence for text in texts for sentence in split_sentences(text, values.language)]
    split = time.perf_counter()
    batch_size = max(1, len(sentences) * BATCH_CHARACTERS // max(size, 1))
    for first in range(0, len(sentences), batch_size):
        tokenizer.encode_batch(sentences[first : first + batch_size])
    tokenized = time.perf_counter()
    return megabytes / (split - started), megabytes / (tokenized - split)


def main(argv: Sequence[str]) -> int:
    """Runs the benchmark; returns the exit code."""
    return run(argv, __doc__, define_flags, execute)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
