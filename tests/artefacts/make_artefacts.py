"""Makes what a version of bert_jax writes, small, for the tests of the versions after it.

    python -m tests.artefacts.make_artefacts --checkout=DIR --name=NAME

runs the launchers of a checkout and packs what they write into NAME.tar.xz beside this file: tokenizers of both kinds,
rows, a pre-training run, a fine-tuning run of bfloat16 with a frozen layer, and a converted model. To be run once for
each version that writes something new: its date and what of it is new make the name.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile

from benchmarks.faults.verbs import write_texts

_HERE = pathlib.Path(__file__).resolve().parent
# The same paths on every machine, as runs note them.
_FOLDER = pathlib.Path("/tmp/bert_jax_artefacts")
_SMALL = {
    "BertConfig.hidden_size": 8,
    "BertConfig.num_hidden_layers": 2,
    "BertConfig.intermediate_size": 8,
    "pretrain.steps": 6,
    "pretrain.checkpoint_every": 3,
    "pretrain.eval_every": 3,
    "pretrain.keep_checkpoints": 9,
}
_TUNING = {
    "finetune.frozen_layers": 1,
    "finetune.evaluations_per_epoch": 2,
    "finetune.keep_checkpoints": 9,
    "finetune.log_every": 1,
    "finetune.padded_lengths": 1,
    "Execution.dtype": "'bfloat16'",
}


def commands(folder: pathlib.Path) -> list[list[str]]:
    """Returns the launchers' names and flags, in order; all write below `folder`, where the texts of verbs.py lie."""
    text = [f"--input={folder}/corpus.txt", "--format=sentences"]
    return [
        ["train_tokenizer", *text, "--vocab_size=140", f"--output={folder}/wordpiece"],
        ["train_tokenizer", *text, "--kind=sentencepiece", "--vocab_size=100", f"--output={folder}/sentencepiece"],
        [
            "prepare",
            *text,
            f"--tokenizer={folder}/wordpiece",
            "--seq_len=32",
            "--packing",
            "--validation_fraction=0.1",
            "--workers=1",
            f"--output={folder}/rows",
        ],
        pretraining(folder),
        finetuning(folder),
        ["convert", f"--from={folder}/finetuned", f"--to={folder}/converted", "--format=bert_jax"],
    ]


def pretraining(folder: pathlib.Path) -> list[str]:
    """Returns launcher and flags of the pre-training run."""
    bindings = [f"--gin_param={name}={value}" for name, value in _SMALL.items()]
    run = [f"--gin_file={folder}/small.gin", f"--data_dir={folder}/rows", f"--workdir={folder}/pretrained"]
    return ["pretrain", *run, *bindings]


def finetuning(folder: pathlib.Path) -> list[str]:
    """Returns launcher and flags of the fine-tuning run."""
    bindings = [f"--gin_param={name}={value}" for name, value in _TUNING.items()]
    files = [f"--train={folder}/train.csv", f"--dev={folder}/dev.csv", f"--workdir={folder}/finetuned"]
    recipe = ["--epochs=1", "--batch_size=8", "--max_seq_len=16", "--learning_rate=1e-2"]
    return ["finetune", *files, f"--init_from={folder}/pretrained", *recipe, *bindings]


def main() -> None:
    """Makes the archive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", required=True, type=pathlib.Path)
    parser.add_argument("--name", required=True)
    given = parser.parse_args()
    shutil.rmtree(_FOLDER, ignore_errors=True)
    write_texts(_FOLDER)
    for launcher, *arguments in commands(_FOLDER):
        subprocess.run(
            [sys.executable, "-m", f"launch.{launcher}", *arguments],
            cwd=given.checkout,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            check=True,
        )
    for left_out in ("tensorboard", "curves.png"):
        for path in _FOLDER.rglob(left_out):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with tarfile.open(_HERE / f"{given.name}.tar.xz", "w:xz") as archive:
        archive.add(_FOLDER, arcname=given.name, filter=_anonymous)
    shutil.rmtree(_FOLDER)


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry


if __name__ == "__main__":
    main()
