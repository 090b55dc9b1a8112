"""A tiny corpus, its tokenizer and its rows, prepared once by the launchers themselves, and runs on them.

tests/integration shares these fixtures.
"""

import json
import pathlib
import random
import types
from collections.abc import Callable

import pytest

from benchmarks.faults.verbs import write_corpus

CONFIGURATION = """
BertConfig.vocab_size = None
BertConfig.hidden_size = 16
BertConfig.num_hidden_layers = 2
BertConfig.num_attention_heads = 2
BertConfig.intermediate_size = 32
BertConfig.max_position_embeddings = 64
pretrain.steps = 12
pretrain.batch_size = 4
pretrain.learning_rate = 1e-3
pretrain.eval_every = 5
pretrain.eval_rows = 8
pretrain.checkpoint_every = 4
pretrain.keep_checkpoints = 2
"""
TWO_PHASES = """
pretrain.phases = [@short/Phase(), @long/Phase()]
short/Phase.seq_len = 32
short/Phase.batch_size = 4
short/Phase.steps = 6
long/Phase.seq_len = 64
long/Phase.batch_size = 2
long/Phase.steps = 6
"""


@pytest.fixture(scope="session")
def small_data(tmp_path_factory) -> types.SimpleNamespace:
    """Paths as strings: rows_32, rows_64, other_rows_32 (of another tokenizer), config, phases_config."""
    from launch import prepare, train_tokenizer

    root = tmp_path_factory.mktemp("small_data")
    for name, seed in (("", 0), ("other_", 1)):
        corpus, tokenizer = root / f"{name}corpus.txt", root / f"{name}tokenizer"
        write_corpus(corpus, random.Random(seed))
        text = [f"--input={corpus}", "--format=sentences"]
        vocab_size = 150 if name else 140
        assert (
            train_tokenizer.main(["train_tokenizer", *text, f"--vocab_size={vocab_size}", f"--output={tokenizer}"]) == 0
        )
        for length in (32, 64):
            rows = ["--workers=1", "--validation_fraction=0.1", f"--seq_len={length}", f"--tokenizer={tokenizer}"]
            assert prepare.main(["prepare", *text, *rows, f"--output={root / f'{name}rows_{length}'}"]) == 0
    (root / "small.gin").write_text(CONFIGURATION)
    one_phase = ("pretrain.steps", "pretrain.batch_size")
    lines = [line for line in CONFIGURATION.splitlines() if not line.startswith(one_phase)]
    (root / "phases.gin").write_text("\n".join(lines) + TWO_PHASES)
    return types.SimpleNamespace(
        rows_32=str(root / "rows_32"),
        rows_64=str(root / "rows_64"),
        other_rows_32=str(root / "other_rows_32"),
        config=str(root / "small.gin"),
        phases_config=str(root / "phases.gin"),
    )


@pytest.fixture(scope="session")
def pretrain_arguments(small_data) -> Callable[..., list[str]]:
    """Makes the launcher's argv: the small run in a workdir, with bindings, flags replaced or (None) left out."""

    def make(workdir, /, *bindings: str, **replaced) -> list[str]:
        flags = {"gin_file": small_data.config, "data_dir": small_data.rows_32, "workdir": str(workdir), **replaced}
        arguments = ["pretrain"]
        for name, value in flags.items():
            values = value if isinstance(value, list) else [value]
            arguments += [f"--{name}={one}" for one in values if one is not None]
        return arguments + [f"--gin_param={binding}" for binding in bindings]

    return make


@pytest.fixture(scope="session")
def pretrain(pretrain_arguments) -> Callable[..., int]:
    """Runs the launcher in this process; returns the exit code."""

    def call(workdir, /, *bindings: str, **replaced) -> int:
        from launch.pretrain import main

        return main(pretrain_arguments(workdir, *bindings, **replaced))

    return call


@pytest.fixture(scope="session")
def finetuning() -> Callable[..., Callable[..., int]]:
    """Makes functions that run launch.finetune in this process, logging every step.

    Both take bindings and flags; those of a call replace those of its function, and a flag that is None is left out.
    """
    from launch.finetune import main

    def make(*default_bindings: str, **defaults) -> Callable[..., int]:
        def call(workdir, *bindings: str, **replaced) -> int:
            flags = {**defaults, "workdir": workdir, **replaced}
            arguments = [f"--{name}={value}" for name, value in flags.items() if value is not None]
            bound = ("finetune.log_every=1", *default_bindings, *bindings)
            return main(["finetune", *arguments, *(f"--gin_param={binding}" for binding in bound)])

        return call

    return make


@pytest.fixture(scope="session")
def read_log() -> Callable[..., list[dict]]:
    """Reads a run's log without what the clock decides; each line of a split, in order."""
    from bert_jax.training.goodput import CLOCK_METRICS

    def read(workdir, split: str | None = None) -> list[dict]:
        lines = [json.loads(line) for line in (pathlib.Path(workdir) / "metrics.jsonl").read_text().splitlines()]
        lines = [{name: value for name, value in line.items() if name not in CLOCK_METRICS} for line in lines]
        # Lines that say nothing but where the time went are written at every checkpoint, also at that of a stop.
        lines = [line for line in lines if len(line) > 2]
        return [line for line in lines if split in (None, line["split"])]

    return read


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, pretrain) -> pathlib.Path:
    """The small run, run through; not to be changed."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    assert pretrain(workdir) == 0
    return workdir
