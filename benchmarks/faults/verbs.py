"""The verbs that must lose nothing when they are killed or the power fails: what to run, and what must hold then.

A verb is added by one entry of VERBS.
"""

import csv
import dataclasses
import hashlib
import json
import os
import pathlib
import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from bert_jax.training.goodput import CLOCK_METRICS
from bert_jax.training.saved_models import finished_steps, is_complete, read_run

ROOT = pathlib.Path(__file__).resolve().parents[2]
_WORDS = [a + b + c for a in ("ba", "ke", "lo", "mi", "tu") for b in "nrstl" for c in ("a", "ing", "ed", "or", "is")]
_CONFIGURATION = """
BertConfig.vocab_size = None
BertConfig.hidden_size = 16
BertConfig.num_hidden_layers = 1
BertConfig.num_attention_heads = 2
BertConfig.intermediate_size = 32
BertConfig.max_position_embeddings = 32
pretrain.steps = 16
pretrain.batch_size = 4
pretrain.learning_rate = 1e-3
pretrain.log_every = 1
pretrain.eval_every = 5
pretrain.eval_rows = 8
pretrain.checkpoint_every = 3
pretrain.keep_checkpoints = 2
"""


@dataclasses.dataclass(frozen=True)
class Verb:
    """A launcher's work, and the signs that nothing of it was lost.

    Attributes:
        module: the launcher's.
        arguments: from the folder of inputs and the output, to its flags.
        result: of a finished output, all that must be the same after any interruption.
        check: of an output at any moment, what it holds that may not be lost; raises an AssertionError if it is not
            whole.
        is_made_once: whether it refuses to write an output that is there already.
    """

    module: str
    arguments: Callable[[pathlib.Path, pathlib.Path], list[str]]
    result: Callable[[pathlib.Path], Any]
    check: Callable[[pathlib.Path], Any]
    is_made_once: bool = False

    def command(self, inputs: pathlib.Path, output: pathlib.Path) -> list[str]:
        """Returns the command that makes the output."""
        return [sys.executable, "-m", self.module, *self.arguments(inputs, output)]


# ---- What is looked at.


def _files(folder: pathlib.Path) -> dict[str, str]:
    """The digest of each file below a folder, without what says how long it took."""
    digests = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digests[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digests


def _rows(folder: pathlib.Path) -> dict[str, str]:
    return {name: digest for name, digest in _files(folder).items() if not name.startswith("report")}


def _checkpoints(workdir: pathlib.Path) -> int:
    """The newest finished checkpoint, 0 for none; all that have a name must be whole."""
    steps = finished_steps(workdir)
    for step in steps:
        assert is_complete(workdir / "checkpoints" / str(step)), f"checkpoint {step} is not complete"
    return max(steps, default=0)


def _run(workdir: pathlib.Path) -> dict[str, Any]:
    """The log without the clock, the checkpoints with the sums of all their arrays, and the names of all files."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    lines = [{name: value for name, value in line.items() if name not in CLOCK_METRICS} for line in lines]
    checkpoints = {step: read_run(workdir / "checkpoints" / str(step)) for step in finished_steps(workdir)}
    return {
        "log": [line for line in lines if len(line) > 2],
        "checkpoints": {
            step: {name: record[name] for name in ("checksums", "validation", "identity")}
            for step, record in checkpoints.items()
        },
        "names": sorted([*os.listdir(workdir), *os.listdir(workdir / "checkpoints")]),
        "run": json.loads((workdir / "run.json").read_text()),
    }


def _sweep_check(workdir: pathlib.Path) -> int:
    return sum(_checkpoints(run) for run in workdir.glob("*/") if (run / "checkpoints").is_dir())


def _sweep(workdir: pathlib.Path) -> dict[str, Any]:
    results = json.loads((workdir / "results.json").read_text())
    for one in (*results["runs"], *results["settings"]):
        for clock in ("seconds", "minutes_per_run"):
            one.pop(clock, None)
    return {"results": results, **{run.name: _run(run) for run in sorted(workdir.glob("*/"))}}


def _all_or_nothing(result: Callable[[pathlib.Path], Any]) -> Callable[[pathlib.Path], int]:
    """Returns the check of an output that has its name only once it is whole."""

    def check(output: pathlib.Path) -> int:
        return int(output.exists() and bool(result(output)))

    return check


# ---- The verbs.


def _tuning(inputs: pathlib.Path, output: pathlib.Path) -> list[str]:
    recipe = {"evaluations_per_epoch": 3, "keep_checkpoints": 2, "log_every": 1, "padded_lengths": 1}
    return [
        f"--train={inputs}/train.csv",
        f"--dev={inputs}/dev.csv",
        f"--init_from={inputs}/base/checkpoints/16",
        f"--workdir={output}",
        "--epochs=2",
        "--batch_size=8",
        "--max_seq_len=16",
        "--learning_rate=1e-3",
        *(f"--gin_param=finetune.{name}={value}" for name, value in recipe.items()),
    ]


def _pretraining(inputs: pathlib.Path, output: pathlib.Path) -> list[str]:
    return [f"--gin_file={inputs}/small.gin", f"--data_dir={inputs}/rows", f"--workdir={output}"]


def _preparation(inputs: pathlib.Path, output: pathlib.Path) -> list[str]:
    text = [f"--input={inputs}/corpus.txt", "--format=sentences", f"--tokenizer={inputs}/tokenizer"]
    return [*text, "--seq_len=32", "--validation_fraction=0.1", "--workers=1", f"--output={output}"]


def _tokenizer(inputs: pathlib.Path, output: pathlib.Path) -> list[str]:
    return [f"--input={inputs}/corpus.txt", "--format=sentences", "--vocab_size=140", f"--output={output}"]


def _conversion(inputs: pathlib.Path, output: pathlib.Path) -> list[str]:
    return [f"--from={inputs}/base", f"--to={output}", "--format=huggingface"]


VERBS: Mapping[str, Verb] = {
    "pretrain": Verb("launch.pretrain", _pretraining, _run, _checkpoints),
    "finetune": Verb("launch.finetune", _tuning, _run, _checkpoints),
    "sweep": Verb(
        "launch.finetune", lambda inputs, output: [*_tuning(inputs, output), "--seeds=2"], _sweep, _sweep_check
    ),
    "prepare": Verb("launch.prepare", _preparation, _rows, _all_or_nothing(_rows)),
    "convert": Verb("launch.convert", _conversion, _files, _all_or_nothing(_files), is_made_once=True),
    "train_tokenizer": Verb("launch.train_tokenizer", _tokenizer, _files, _all_or_nothing(_files)),
}


def environment(inputs: pathlib.Path, **added: str) -> dict[str, str]:
    """Returns the variables of a launcher's process that compiles quickly, or finds what was compiled before.

    Args:
        inputs: the folder of `make_inputs`, where compiled programs are kept.
        added: more variables.
    """
    quick = {
        "XLA_FLAGS": "--xla_backend_optimization_level=1",
        "JAX_COMPILATION_CACHE_DIR": str(inputs / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    return {**quick, **os.environ, "JAX_PLATFORMS": "cpu", **added}


def make_inputs(folder: pathlib.Path) -> None:
    """Makes what the verbs read: a corpus, its tokenizer and rows, a model, and labelled texts."""
    write_texts(folder)
    for verb, output in (("train_tokenizer", "tokenizer"), ("prepare", "rows"), ("pretrain", "base")):
        subprocess.run(
            VERBS[verb].command(folder, folder / output),
            cwd=ROOT,
            env=environment(folder),
            check=True,
            capture_output=True,
        )


def write_corpus(path: pathlib.Path, draw: random.Random, documents: int = 40) -> None:
    """Writes documents that each use words of their own, one sentence a line."""
    texts = []
    for _ in range(documents):
        own = draw.sample(_WORDS, 25)
        lines = [" ".join(draw.choices(own, k=draw.randint(4, 9))) + "." for _ in range(draw.randint(8, 16))]
        texts.append("\n".join(lines))
    path.write_text("\n\n".join(texts) + "\n")


def write_texts(folder: pathlib.Path) -> None:
    """Writes a corpus, corpus.txt, labelled texts, train.csv and dev.csv, and small.gin, a small pre-training."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(0)
    write_corpus(folder / "corpus.txt", draw)
    (folder / "small.gin").write_text(_CONFIGURATION)
    for name, count in (("train", 48), ("dev", 16)):
        with open(folder / f"{name}.csv", "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(("text", "label"))
            for _ in range(count):
                words = draw.choices(_WORDS[:8], k=draw.randint(3, 9))
                table.writerow((" ".join(words), "yes" if words[0] in _WORDS[:4] else "no"))
