"""python -m launch.fill_mask: words for the blanks, from a folder that needs nothing else."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from launch.fill_mask import main

_ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_suggestions_for_each_blank(capsys, finished_run):
    texts = ["--text=banor [MASK] kelor.", "--text=[MASK] [MASK]"]
    assert main(["fill_mask", f"--model={finished_run}", *texts, "--top_k=3"]) == 0
    model, *lines = capsys.readouterr().out.splitlines()
    assert model == f"{finished_run}/checkpoints/12 (bert_jax, BertForPreTraining, step 12, the latest)"
    assert lines[0] == "banor [MASK] kelor." and lines[4] == "[MASK] [MASK]"
    assert lines[5] == "  blank 1" and lines[9] == "  blank 2"
    shares = [float(re.fullmatch(r" +([\d.]+) %  \S+", line)[1]) for line in lines[1:4]]
    assert shares == sorted(shares, reverse=True) and 0 < sum(shares) <= 100.1


def test_a_checkpoint_copied_elsewhere(tmp_path, capsys, finished_run):
    arguments = ["--text=banor [MASK].", "--top_k=2"]
    assert main(["fill_mask", f"--model={finished_run}", *arguments]) == 0
    expected = capsys.readouterr().out.splitlines()
    shutil.copytree(finished_run / "checkpoints/12", tmp_path / "model")
    assert main(["fill_mask", f"--model={tmp_path / 'model'}", *arguments]) == 0
    model, *suggestions = capsys.readouterr().out.splitlines()
    assert suggestions == expected[1:] and model == f"{tmp_path}/model (bert_jax, BertForPreTraining, step 12)"
    for checkpoint in ("12", "best"):
        assert main(["fill_mask", f"--model={finished_run}", f"--checkpoint={checkpoint}", *arguments]) == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"model": None}, "--model is missing"),
        ({"text": None}, "--text is missing"),
        ({"text": "No blank."}, "no [MASK]"),
        ({"text": "[MASK] " + "banor " * 70}, "longest sequence is 64"),
        ({"top_k": 0}, "--top_k=0"),
        ({"top_k": "many"}, "top_k"),
        ({"model": "nowhere"}, "--model=nowhere"),
        ({"model": "."}, "no finished checkpoint"),
        ({"checkpoint": "99"}, "no checkpoint of step 99"),
        ({"checkpoint": "newest"}, "no checkpoint of step newest"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, finished_run, flags, message):
    monkeypatch.chdir(tmp_path)
    flags = {"model": finished_run, "text": "banor [MASK].", **flags}
    capsys.readouterr()
    assert main(["fill_mask", *(f"--{name}={value}" for name, value in flags.items() if value is not None)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error


@pytest.mark.parametrize("part", ["state", "run/metadata", "files/tokenizer/vocab.txt"])
def test_a_damaged_model_is_one_line(tmp_path, capsys, finished_run, part):
    model = tmp_path / "model"
    shutil.copytree(finished_run / "checkpoints/12", model)
    if part == "state":
        # Somewhere in every array, in every file: which of them holds the parameters is orbax's affair.
        for path in (path for path in model.rglob("state/**/d/*") if path.is_file()):
            content = bytearray(path.read_bytes())
            content[::40] = bytes(byte ^ 0x41 for byte in content[::40])
            path.write_bytes(content)
    else:
        (model / part).write_text("{")
    capsys.readouterr()
    assert main(["fill_mask", f"--model={model}", "--text=banor [MASK]."]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and str(model) in error


@pytest.mark.slow
def test_as_a_command(tmp_path, finished_run):
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    command = [sys.executable, "-m", "launch.fill_mask", f"--model={finished_run}", "--text=banor [MASK]."]
    good = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert good.returncode == 0 and "\nbanor [MASK].\n" in good.stdout and good.stdout.count("%") == 5
    bad = subprocess.run([*command, "--text=x"], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert bad.returncode == 2 and bad.stderr == (
        "error: no [MASK] in 'x': put it where a word is wanted, such as 'The sky is [MASK].'\n"
    )
    code = (
        "import sys; from launch.fill_mask import main; main(['x', '--model=nowhere', '--text=[MASK]'])\n"
        "print([name for name in ('jax', 'flax', 'orbax', 'tensorflow') if name in sys.modules])"
    )
    early = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert early.stdout == "[]\n"
