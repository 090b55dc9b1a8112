"""python -m launch.inspect: a look inside a model."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from launch.fill_mask import main as fill_mask
from launch.inspect import main

_ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_tokens_predictions_and_parameters(tmp_path, capsys, finished_run):
    text = "--text=banor [MASK]."
    assert fill_mask(["fill_mask", f"--model={finished_run}", text, "--top_k=2"]) == 0
    words = re.findall(r"([\d.]+ %)  (\S+)", capsys.readouterr().out)
    picture = tmp_path / "heads.png"
    assert main(["inspect", f"--model={finished_run}", text, "--top_k=2", f"--attention={picture}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (blank,) = (line for line in lines if " [MASK] " in line)
    # What is expected in the blank is what fill_mask says.
    assert re.findall(r"(\S+) ([\d.]+ %)", blank.split("[MASK]")[1]) == [(word, share) for share, word in words]
    tokens = [line.split()[2] for line in lines if re.match(r" +\d+ +\d+  ", line)]
    assert tokens[0] == "[CLS]" and tokens[-2:] == [".", "[SEP]"]
    assert "attention of layer 1, head 0" in lines[len(tokens) + 2]
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 5000
    (total,) = (line for line in lines if line.startswith("in all"))
    parts = [int(line.split()[-1].replace(",", "")) for line in (total,)]
    table = lines[lines.index(next(line for line in lines if line.startswith("parameter "))) + 1 : -1]
    numbers = [int(re.search(r" {2,}([\d,]+)  \S", line)[1].replace(",", "")) for line in table]
    assert sum(numbers) == parts[0] > 1000
    (embedding,) = (line for line in table if "word_embeddings" in line)
    # 140 words, padded to 256 rows that do not count.
    assert "256 x 16" in embedding and "2,240" in embedding and embedding.endswith("vocab, embed")


def test_without_a_text_only_the_parameters(tmp_path, monkeypatch, capsys, finished_run):
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", f"--model={finished_run}"]) == 0
    printed = capsys.readouterr().out
    assert "position" not in printed.splitlines()[1] and "in all" in printed
    assert list(tmp_path.iterdir()) == []


def test_a_pair(tmp_path, capsys, finished_run):
    pair = ["--text=banor.", "--text_pair=kelor.", "--attention="]
    assert main(["inspect", f"--model={finished_run}", *pair]) == 0
    assert capsys.readouterr().out.count("[SEP]") >= 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"model": None}, "--model is missing"),
        ({"model": "nowhere"}, "no model at"),
        ({"text": None, "text_pair": "b"}, "--text_pair=b: says what is shown of a --text, and there is none"),
        ({"layer": 2}, "numbered from 0 to 1"),
        ({"head": -3}, "numbered from 0 to 1"),
        ({"top_k": 0}, "--top_k=0"),
        ({"attention": "picture.jpg"}, "must be a .png"),
        ({"attention": "nowhere/a.png"}, "folder that exists"),
        ({"text": "banor " * 70}, "longest sequence is 64"),
    ],
    ids=str,
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, finished_run, flags, message):
    monkeypatch.chdir(tmp_path)
    values = {"model": finished_run, "text": "banor.", **flags}
    capsys.readouterr()
    assert main(["inspect", *(f"--{name}={value}" for name, value in values.items() if value is not None)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_as_a_command(tmp_path, finished_run):
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    command = [sys.executable, "-m", "launch.inspect", f"--model={finished_run}", "--text=banor."]
    good = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert good.returncode == 0 and "in all" in good.stdout and (tmp_path / "attention.png").exists()
    bad = subprocess.run([*command, "--head=9"], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert bad.returncode == 2 and bad.stderr == "error: --head=9: the model has 2 of them, numbered from 0 to 1\n"
