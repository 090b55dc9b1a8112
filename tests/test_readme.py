"""The README is run: its commands, its snippet, its map of folders."""

import importlib
import pathlib
import re
import shlex
import subprocess
import sys

import pytest
from absl import flags

from launch import convert, evaluate, fill_mask, finetune, inspect, predict, prepare, pretrain, train_tokenizer
from launch.configuration import load_pretrain
from launch.mesh_flags import parse_mesh_flags

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
LAUNCHERS = {
    module.__name__: module
    for module in (train_tokenizer, prepare, pretrain, fill_mask, convert, evaluate, inspect, finetune, predict)
}
TOPICS = ("river", "engine", "garden", "harbour", "violin", "glacier", "market", "lantern")


def commands(section: str) -> list[list[str]]:
    """Returns the indented `python -m` commands below a heading, as argument lists from the module's name on."""
    body = README.split(f"## {section}\n")[1].split("\n## ")[0]
    return [shlex.split(line)[2:] for line in re.findall(r"^    (python -m .*)$", body, flags=re.MULTILINE)]


@pytest.fixture
def texts(tmp_path, monkeypatch):
    """A working directory with a folder `texts` of a few small documents."""
    (tmp_path / "texts").mkdir()
    for number in range(24):
        topic = TOPICS[number % len(TOPICS)]
        sentences = [f"Sentence {i} of this text tells how the {topic} number {number} was found." for i in range(12)]
        (tmp_path / "texts" / f"{number:02}.txt").write_text(" ".join(sentences) + "\n")
    (tmp_path / "words.txt").write_text("xylograph\nquokka\n")
    for name, count in (("train", 16), ("dev", 6), ("new", 3)):
        rows = [
            f"The {TOPICS[i % 8]} was {'lost' if i % 2 else 'found'},{'bad' if i % 2 else 'good'}" for i in range(count)
        ]
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_commands(lines, capsys):
    """Runs launchers in this process, trainings for a few steps, and returns what they printed."""
    for module, *arguments in lines:
        if module == "launch.pretrain":
            arguments += ["--gin_param=pretrain.steps=3", "--gin_param=pretrain.batch_size=4"]
        assert LAUNCHERS[module].main([module, *arguments]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


@pytest.mark.slow
def test_own_text_in_four_commands(texts, capsys):
    lines = commands("Your own text, in four commands")
    assert [line[0] for line in lines] == [
        "launch.train_tokenizer",
        "launch.prepare",
        "launch.pretrain",
        "launch.fill_mask",
    ]
    printed = run_commands(lines, capsys)
    assert "The capital of France is [MASK]." in printed
    assert printed.count(" %  ") == 5
    for name in ("metrics.jsonl", "curves.png", "tensorboard", "checkpoints/3"):
        assert (texts / "runs" / "mine" / name).exists()

    printed = run_commands(commands("Weights in and out"), capsys)
    assert "masked-LM perplexity" in printed and "2 added word(s)" in printed
    for name in ("exported/model.safetensors", "attention.png", "runs/domain/checkpoints/3"):
        assert (texts / name).exists()

    printed = run_commands(commands("Fine-tuning on your own files"), capsys)
    assert "text from column 'text', label from 'label'" in printed and "3 predictions in predictions.jsonl" in printed
    assert (texts / "confusion.png").exists() and len((texts / "predictions.jsonl").read_text().splitlines()) == 3


def test_phases_command_names_a_configuration_that_fits_it():
    (line,) = commands("Several phases")
    gin_file = next(argument.split("=")[1] for argument in line if argument.startswith("--gin_file="))
    recipe, _ = load_pretrain([gin_file], [])
    phases = recipe.plan([128, 512])
    assert [phase.seq_len for phase in phases] == [128, 512]
    assert phases[0].steps == 9 * phases[1].steps


def test_pod_commands_have_flags_and_files_that_exist():
    page = (REPOSITORY / "docs" / "pods.md").read_text(encoding="utf-8")
    lines = [shlex.split(line, comments=True)[2:] for line in re.findall(r"^    (python -m .*)$", page, re.MULTILINE)]
    for module, *arguments in [*commands("Pods"), *lines]:
        values = flags.FlagValues()
        importlib.import_module(module).define_flags(values)
        # FLAGS stands for the others.
        assert values([module, *arguments])[1:] in ([], ["FLAGS"])
        parse_mesh_flags(values)
        assert "FLAGS" in arguments or load_pretrain(values.gin_file, [])
    for path in re.findall(r"\b(?:launch|gin_configs|bert_jax)/[\w/.]*\w", page):
        assert (REPOSITORY / path).exists(), path


@pytest.mark.parametrize("path", sorted((REPOSITORY / "gin_configs" / "pretrain").glob("*.gin")), ids=lambda p: p.stem)
def test_every_configuration_loads(path):
    recipe, text = load_pretrain([str(path)], [])
    lengths = [128] if recipe.phases is None else [phase.seq_len for phase in recipe.phases]
    assert recipe.plan(lengths)
    assert "BertConfig.hidden_size" in text


def test_snippet_runs():
    snippet = README.split("```python\n")[1].split("```")[0]
    scope = {}
    exec(snippet, scope)
    assert scope["parameters"]["bert"]["embeddings"]["word_embeddings"]["embedding"].shape[1] == 128


@pytest.mark.slow
def test_benchmark_command_prints_its_table():
    (line,) = commands("Where things are")
    command = [sys.executable, "-m", *line, "--steps=1", "--repeats=1", "--vocab_size=1000"]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    header, row = result.stdout.splitlines()[1:3]
    assert header.split()[0] == "preset"
    assert row.split()[0] == "tiny"
    assert float(row.split()[4]) > 0


def test_map_names_folders_that_exist():
    body = README.split("## Where things are\n")[1].split("\n## ")[0]
    block = body.split("\n\n")[1] if body.startswith("\n    ") is False else body.split("\n\n")[0]
    names = re.findall(r"^    (  )?([\w.]+/?)\s{2,}", "\n" + block, flags=re.MULTILINE)
    assert len(names) > 10
    for nested, name in names:
        assert (REPOSITORY / ("bert_jax" if nested else "") / name).exists(), name


def test_make_targets_exist():
    listed = subprocess.run(["make", "-n", "pretrain"], cwd=REPOSITORY, capture_output=True, text=True)
    assert listed.returncode == 0, listed.stderr
    modules = re.findall(r"-m (launch\.\w+)", listed.stdout)
    assert modules == ["launch.train_tokenizer", "launch.prepare", "launch.pretrain", "launch.fill_mask"]
    assert subprocess.run(["make", "-n", "test"], cwd=REPOSITORY, capture_output=True).returncode == 0
