"""Turns text into rows of token ids, ready for pre-training.

Example: python -m launch.prepare --input='corpus/*.txt' --tokenizer=tokenizer --seq_len=128 --output=rows_128 --packing
"""

import pathlib
import sys
from collections.abc import Sequence

from absl import flags

from bert_jax.data.rows import MAXIMUM_SEQ_LEN, MINIMUM_SEQ_LEN, PAIRS, Recipe
from bert_jax.data.workers import available_cores
from bert_jax.errors import UserError
from launch.command import run
from launch.flag_conditions import only_where

DEFAULT_MAX_PAIRS = 8
_MOST_PASSES, _MOST_WORKERS = 10_000, 1024


def define_flags(values: flags.FlagValues) -> None:
    """Adds the flags of this launcher."""
    text = {"flag_values": values}
    flags.DEFINE_string("input", None, "Text: a glob, `pydocs`, or `tfds:NAME[/CONFIG][:FEATURE]`.", **text)
    flags.DEFINE_string("tokenizer", None, "Directory of the tokenizer.", **text)
    flags.DEFINE_integer(
        "seq_len", None, "Most tokens in a row.", lower_bound=MINIMUM_SEQ_LEN, upper_bound=MAXIMUM_SEQ_LEN, **text
    )
    flags.DEFINE_string("output", None, "Directory that will hold the rows.", **text)
    flags.DEFINE_string("format", "auto", "auto, plain, sentences, jsonl or wikiextractor.", **text)
    flags.DEFINE_string("language", "en", "Language of the text (ISO 639), for splitting sentences.", **text)
    flags.DEFINE_enum(
        "pairs",
        "nsp",
        PAIRS,
        "Second task: next-sentence prediction, sentence-order prediction, or none.",
        **text,
    )
    flags.DEFINE_bool("packing", False, "Put several pairs into one row.", **text)
    flags.DEFINE_integer(
        "max_pairs_per_row",
        None,
        f"With --packing; {DEFAULT_MAX_PAIRS} by default.",
        lower_bound=1,
        upper_bound=MAXIMUM_SEQ_LEN,
        **text,
    )
    flags.DEFINE_integer(
        "dupe_factor",
        1,
        "Passes over the text, each with other pairs.",
        lower_bound=1,
        upper_bound=_MOST_PASSES,
        **text,
    )
    flags.DEFINE_float("short_seq_probability", 0.1, "Share of the documents with shorter pairs.", **text)
    flags.DEFINE_float(
        "validation_fraction", 0.01, "Share held out: of the documents or, of few long ones, of their text.", **text
    )
    flags.DEFINE_integer(
        "seed", 0, "Of all that is drawn at random.", lower_bound=-(2**63), upper_bound=2**63 - 1, **text
    )
    flags.DEFINE_integer(
        "workers",
        None,
        "Processes; all cores by default. The rows do not depend on it.",
        lower_bound=1,
        upper_bound=_MOST_WORKERS,
        **text,
    )
    only_where(
        values,
        ["max_pairs_per_row"],
        lambda given: given.packing,
        "is for --packing: a row has one pair without; add it",
    )
    only_where(
        values,
        ["language"],
        lambda given: given.format != "sentences",
        "says how sentences are split, and --format=sentences has them split already: leave it out",
    )


def execute(values: flags.FlagValues) -> int:
    """Prepares the rows and prints the report."""
    for name in ("input", "tokenizer", "seq_len", "output"):
        if values[name].value in (None, ""):
            raise UserError(f"--{name} is missing: {values[name].help}")
    default_max_pairs = DEFAULT_MAX_PAIRS if values.packing else 1
    recipe = Recipe(
        seq_len=values.seq_len,
        pairs=values.pairs,
        packing=values.packing,
        max_pairs_per_row=default_max_pairs if values.max_pairs_per_row is None else values.max_pairs_per_row,
        dupe_factor=values.dupe_factor,
        seed=values.seed,
        short_seq_probability=values.short_seq_probability,
        validation_fraction=values.validation_fraction,
    )
    if not pathlib.Path(values.tokenizer).is_dir():
        raise UserError(
            f"--tokenizer={values.tokenizer}: no such directory; make it with python -m launch.train_tokenizer"
        )
    from bert_jax.data.preparation import check_output, prepare
    from bert_jax.data.report import format_report
    from bert_jax.text.documents import check_inputs
    from bert_jax.text.sentences import check_language

    check_language(values.language)
    output = check_output(values.output)
    check_inputs(values.input, values.format)
    report = prepare(
        inputs=values.input,
        tokenizer_directory=values.tokenizer,
        output=output,
        recipe=recipe,
        text_format=values.format,
        language=values.language,
        workers=values.workers or available_cores(),
        show_progress=True,
    )
    if report is None:
        print(f"already prepared: {output}")
        return 0
    print(format_report(report), end="")
    print(f"rows are in {output}")
    return 0


def main(argv: Sequence[str]) -> int:
    """Runs the launcher; returns the exit code."""
    return run(argv, __doc__, define_flags, execute)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
