"""python -m launch.prepare, as a user calls it: flags in, rows or one line out."""

import os
import pathlib
import subprocess
import sys

import pytest

from bert_jax.data import rows
from bert_jax.text.tokenizers import WordPieceTokenizer
from launch.prepare import main

WORDS = ["one", "two", "three", "four", "five"]


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A directory with a tokenizer and a small corpus; relative paths mean it."""
    monkeypatch.chdir(tmp_path)
    WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *WORDS], cased=False).save("tokenizer")
    document = "\n".join(["One two three four five. Five four three two one."] * 4)
    for number in range(8):
        pathlib.Path(f"text_{number}.txt").write_text(document)
    return tmp_path


def _arguments(**flags):
    flags = {"input": "text_*.txt", "tokenizer": "tokenizer", "seq_len": 32, "output": "rows", "workers": 1, **flags}
    return ["prepare", *(f"--{name}={value}" for name, value in flags.items() if value is not None)]


def test_rows_and_a_report(work, capsys):
    assert main(_arguments()) == 0
    output = capsys.readouterr()
    assert "documents       8" in output.out and "rows are in rows" in output.out
    assert "tokenizing" in output.err and "Traceback" not in output.err
    assert rows.open_rows("rows").num_rows("train") > 0
    assert main(_arguments()) == 0
    assert "already prepared: rows" in capsys.readouterr().out


def test_flags_reach_the_recipe(work):
    flags = {"pairs": "sop", "packing": "true", "dupe_factor": 2, "seed": 5, "short_seq_probability": 0.2}
    assert main(_arguments(**flags, validation_fraction=0.25)) == 0
    assert rows.open_rows("rows").recipe == rows.Recipe(32, "sop", True, 8, 2, 5, 0.2, 0.25)


def _files_in_output():
    pathlib.Path("rows").mkdir()
    pathlib.Path("rows/thesis.txt").write_text("x")


def _other_rows():
    assert main(_arguments(seed=1)) == 0


def _damaged_tokenizer():
    for path in pathlib.Path("tokenizer").iterdir():
        path.write_text("{")


BAD = [
    ({"input": None}, None, "--input is missing"),
    ({"tokenizer": None}, None, "--tokenizer is missing"),
    ({"seq_len": None}, None, "--seq_len is missing"),
    ({"output": None}, None, "--output is missing"),
    ({"seq_len": "many"}, None, "seq_len"),
    ({"seq_len": 4}, None, "--seq_len=4"),
    ({"workers": 0}, None, "--workers=0"),
    ({"pairs": "all"}, None, "pairs"),
    ({"dupe_factor": 0}, None, "--dupe_factor=0"),
    ({"max_pairs_per_row": 4}, None, "--packing"),
    ({"max_pairs_per_row": 0, "packing": "true"}, None, "--max_pairs_per_row=0"),
    ({"language": "english"}, None, "english"),
    ({"format": "pdf"}, None, "pdf"),
    ({"input": "nowhere/*.txt"}, None, "nowhere"),
    ({"input": "nowhere.txt"}, None, "nowhere.txt"),
    ({"input": "empty.txt"}, lambda: pathlib.Path("empty.txt").write_text("\n\n"), "empty.txt"),
    ({"input": "text_0.txt"}, None, "--pairs=sop|none"),
    ({"input": "l1.txt", "format": "plain"}, lambda: pathlib.Path("l1.txt").write_bytes(b"caf\xe9 x"), "l1.txt"),
    ({"tokenizer": "nowhere"}, None, "--tokenizer=nowhere"),
    ({}, _damaged_tokenizer, "tokenizer"),
    ({"output": "text_0.txt"}, None, "--output=text_0.txt is a file"),
    ({"output": "gs://bucket/rows"}, None, "--output=gs://bucket/rows"),
    ({}, _files_in_output, "holds other files"),
    ({}, _other_rows, "--seed=1, not 0"),
    ({"colour": "red"}, None, "colour"),
]


@pytest.mark.parametrize(("flags", "arrange", "message"), BAD, ids=[message for _, _, message in BAD])
def test_bad_input_is_one_line(work, capsys, flags, arrange, message):
    if arrange:
        arrange()
    before = set(work.iterdir())
    capsys.readouterr()
    assert main(_arguments(**flags)) == 2
    errors = [line for line in capsys.readouterr().err.split("\n") if line.strip() and "B/s]" not in line]
    assert len(errors) == 1 and errors[0].startswith("error: ") and message in errors[0]
    assert set(work.iterdir()) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_that_cannot_be_written(work, capsys):
    pathlib.Path("locked").mkdir(mode=0o500)
    assert main(_arguments(output="locked/rows")) == 2
    assert "no permission" in capsys.readouterr().err


def test_an_output_below_a_file(work, capsys):
    assert main(_arguments(output="text_0.txt/rows")) == 2
    error = capsys.readouterr().err
    assert "text_0.txt" in error and "Traceback" not in error


def test_as_a_command(work):
    root = pathlib.Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "launch.prepare", *_arguments(workers=2)[1:]]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    good = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert good.returncode == 0 and "rows are in rows" in good.stdout
    bad = subprocess.run([*command, "--seq_len=64"], capture_output=True, text=True, env=environment)
    assert bad.returncode == 2 and "--seq_len=32, not 64" in bad.stderr and "Traceback" not in bad.stderr


def test_mistakes_are_found_before_heavy_imports(work):
    root = pathlib.Path(__file__).resolve().parents[2]
    code = (
        f"import sys; from launch.prepare import main; code = main({_arguments(input='nowhere')!r})\n"
        "assert code == 2; print([m for m in ('jax', 'tensorflow', 'tensorflow_datasets') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(root)}
    )
    assert result.stdout == "[]\n", result.stderr
