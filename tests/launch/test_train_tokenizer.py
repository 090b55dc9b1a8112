"""The launcher as a user meets it: what it makes, what it says, and what it refuses."""

import json
import os
import pathlib
import random
import subprocess
import sys

import pytest

from bert_jax.text.tokenizer import DESCRIPTION_FILE
from bert_jax.text.tokenizers import load_tokenizer
from launch.train_tokenizer import main

ROOT = pathlib.Path(__file__).resolve().parents[2]
SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]


@pytest.fixture
def corpus(tmp_path):
    generator = random.Random(0)
    words = ["harbour", *("".join(generator.choices(SYLLABLES, k=generator.randint(2, 4))) for _ in range(399))]
    paragraphs = [f"The {word} stood near the {other}." for word, other in zip(words, reversed(words), strict=True)]
    for number in range(4):
        part = "\n\n".join(paragraphs[number::4])
        (tmp_path / f"part{number}.txt").write_text(part + "\n", encoding="utf-8")
    return f"{tmp_path}/part*.txt"


def run(*arguments):
    return main(["train_tokenizer", *map(str, arguments)])


@pytest.mark.parametrize("kind", ["wordpiece", "sentencepiece"])
def test_learns_and_says_so(corpus, tmp_path, capsys, kind):
    output = tmp_path / "deep" / "tokenizer"
    arguments = [f"--input={corpus}", f"--kind={kind}", "--vocab_size=100", f"--output={output}", "--format=plain"]
    assert run(*arguments) == 0
    said = capsys.readouterr()
    assert "4 files, format plain" in said.out
    assert "4 documents" in said.out and "MB/s" in said.out and "sample: The harbour stood near" in said.out
    assert "reading" in said.err  # the progress bar
    tokenizer = load_tokenizer(output)
    assert (tokenizer.kind, tokenizer.settings["cased"], tokenizer.training["documents"]) == (kind, False, 4)
    assert tokenizer.training["bytes"] == sum(
        len(line) for path in tmp_path.glob("part*.txt") for line in path.read_text().split("\n")
    )

    # The same once more: nothing to do. Other settings: refused, nothing touched.
    before = (output / DESCRIPTION_FILE).stat().st_mtime_ns
    assert run(*arguments) == 0
    assert "already there" in capsys.readouterr().out
    assert run(*arguments, "--cased") == 2
    assert "made with cased=False, not True" in capsys.readouterr().err
    assert (output / DESCRIPTION_FILE).stat().st_mtime_ns == before
    assert os.listdir(output.parent) == ["tokenizer"]


def test_wraps_a_given_vocabulary(tmp_path, capsys):
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("[PAD]\n[unused1]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nThe\nfox\n")
    assert run(f"--vocab_file={vocabulary}", "--cased", f"--output={tmp_path}/t") == 0
    assert "8 tokens" in capsys.readouterr().out
    assert load_tokenizer(tmp_path / "t").encode_batch(["The fox the"]) == [[6, 7, 2]]


@pytest.fixture
def vocabulary(tmp_path):
    """A directory with a vocab.txt that has one unused slot, and a file of words."""
    (tmp_path / "model").mkdir()
    tokens = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "gra", "##ft", "##s"]
    (tmp_path / "model" / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens))
    (tmp_path / "words.txt").write_text("graft\n\nthe\nstent\n")
    return tmp_path / "model"


def test_adds_words(vocabulary, tmp_path, capsys):
    arguments = [f"--from={vocabulary}", f"--add_words={tmp_path}/words.txt", f"--output={tmp_path}/t"]
    assert run(*arguments) == 0
    said = capsys.readouterr().out
    assert "2 words added: 1 in unused slots, 1 at the end; 10 -> 11 tokens" in said
    assert [line.split() for line in said.splitlines()[1:4]] == [
        ["graft", "1", "[unused0]", "was", "gra", "##ft"],
        ["stent", "10", "new", "id", "was", "[UNK]"],
        ["1", "left", "out", "(tokens", "already,", "or", "repeated):", "the"],
    ]
    tokenizer = load_tokenizer(tmp_path / "t")
    assert tokenizer.encode_batch(["The grafts stent"]) == [[6, 1, 9, 10]]
    assert tokenizer.training["added_words"] == [
        {"word": "graft", "id": 1, "unused_slot": "[unused0]", "pieces": [7, 8]},
        {"word": "stent", "id": 10, "unused_slot": None, "pieces": [2]},
    ]

    assert run(*arguments) == 0
    assert "already there" in capsys.readouterr().out
    # The words are what counts, not the file's name.
    (tmp_path / "words.txt").write_text("graft\n")
    assert run(*arguments) == 2
    assert "made with words_sha256" in capsys.readouterr().err


def test_a_long_listing_is_shortened(vocabulary, tmp_path, capsys):
    (tmp_path / "words.txt").write_text("".join(f"new{letter}word\n" for letter in "abcdefghijklmnopqrstuvwxyz"))
    assert run(f"--from={vocabulary}", f"--add_words={tmp_path}/words.txt", f"--output={tmp_path}/t") == 0
    said = capsys.readouterr().out
    assert "newtword" in said and "newuword" not in said and "and 6 more" in said
    assert len(load_tokenizer(tmp_path / "t").training["added_words"]) == 26


@pytest.mark.slow
def test_adds_words_to_a_model(finished_run, tmp_path):
    (tmp_path / "words.txt").write_text("graft\n")
    assert run(f"--from={finished_run}", f"--add_words={tmp_path}/words.txt", f"--output={tmp_path}/t") == 0
    (folder,) = sorted((finished_run / "checkpoints").glob("*/files/tokenizer"))[-1:]
    before, after = load_tokenizer(folder), load_tokenizer(tmp_path / "t")
    assert after.vocab_size == before.vocab_size + 1
    assert after.encode_batch(["graft"]) == [[before.vocab_size]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from=MODEL", "--output=TMP/t"], "--from and --add_words go together"),
        (["--add_words=TMP/words.txt", "--output=TMP/t"], "--from and --add_words go together"),
        (["--from=MODEL", "--add_words=TMP/words.txt"], "--output is missing"),
        (["--from=MODEL", "--add_words=TMP/words.txt", "--output=TMP/t", "--input=x"], "--input=x: does not go with"),
        (["--from=MODEL", "--add_words=TMP/words.txt", "--output=TMP/t", "--cased"], "--cased=True: does not go with"),
        (["--from=MODEL", "--add_words=TMP/none.txt", "--output=TMP/t"], "no such file: "),
        (["--from=TMP/none", "--add_words=TMP/words.txt", "--output=TMP/t"], "no model at "),
        (["--from=MODEL", "--add_words=TMP/split.txt", "--output=TMP/t"], "split.txt:2: 'covid-19' is not one word"),
        (["--from=MODEL", "--add_words=TMP/case.txt", "--output=TMP/t"], "case.txt:1: 'Stent' never occurs"),
        (["--from=MODEL", "--add_words=TMP/blank.txt", "--output=TMP/t"], "it holds no words"),
        (["--from=MODEL", "--add_words=TMP/words.txt", "--output=MODEL"], "is not empty"),
    ],
)
def test_mistakes_in_adding_words(vocabulary, tmp_path, capsys, arguments, message):
    (tmp_path / "split.txt").write_text("stent\ncovid-19\n")
    (tmp_path / "case.txt").write_text("Stent\n")
    (tmp_path / "blank.txt").write_text("\n")
    before = sorted(os.listdir(tmp_path))
    arguments = [a.replace("MODEL", str(vocabulary)).replace("TMP", str(tmp_path)) for a in arguments]
    assert run(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
    assert sorted(os.listdir(tmp_path)) == before


def test_training_text_is_limited(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text("Some words of a long text go here, again.\n\n" * 12_000)
    arguments = [f"--input={tmp_path}/*.txt", "--format=plain", "--vocab_size=100", f"--output={tmp_path}/t"]
    assert run(*arguments, "--max_training_mb=1") == 0
    training = load_tokenizer(tmp_path / "t").training
    assert (training["documents"], round(training["bytes"], -3)) == (3, 1_000_000)


def test_note_when_the_text_supports_less(corpus, tmp_path, capsys):
    assert run(f"--input={corpus}", "--vocab_size=5000", f"--output={tmp_path}/t") == 0
    assert "not for the 5000 asked for" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output=OUT"], "--input is missing"),
        (["--input=CORPUS"], "--output is missing"),
        (["--input=TMP/none*.txt", "--output=OUT"], "no file matches"),
        (["--input=CORPUS", "--output=OUT", "--vocab_size=20"], "--vocab_size=20 is too small"),
        (["--input=CORPUS", "--output=OUT", "--vocab_size=many"], "vocab_size"),
        (["--input=CORPUS", "--output=OUT", "--kind=words"], "wordpiece|sentencepiece"),
        (["--input=CORPUS", "--output=OUT", "--algorithm=bpe"], "--algorithm=bpe: goes with"),
        (["--input=CORPUS", "--output=OUT", "--format=pdf"], "format"),
        (
            ["--input=CORPUS", "--output=OUT", "--max_training_mb=0"],
            "--max_training_mb=0: 0 is not",
        ),
        (["--input=CORPUS", "--output=OUT", "--vocab_file=v.txt"], "does not go with --vocab_file"),
        (["--vocab_file=TMP/v.txt", "--output=OUT"], "cannot read "),
        (["--input=CORPUS", "--output=TMP/part0.txt"], "is a file"),
        (["--input=CORPUS", "--output=TMP/part0.txt/below"], "cannot write"),
        (["--input=CORPUS", "--output=TMP"], "not empty and holds no tokenizer"),
        (["--input=TMP/blank", "--output=OUT"], "holds no text to learn from"),
        (["--input=TMP/latin", "--output=OUT"], "latin is not UTF-8"),
        (["--input=TMP/binary", "--output=OUT"], "binary is not text"),
        (["--input=CORPUS", "--output=OUT", "--kind=sentencepiece", "--vocab_size=9000"], "set vocab_size to"),
        (["--input=CORPUS", "--output=OUT", "--no_such_flag"], "no_such_flag"),
        (["--input=CORPUS", "--output=OUT", "stray"], "unexpected argument 'stray'"),
    ],
)
def test_mistakes(corpus, tmp_path, capsys, arguments, message):
    (tmp_path / "blank").write_text("\n \n\n")
    (tmp_path / "latin").write_bytes("caf\xe9".encode("latin-1"))
    (tmp_path / "binary").write_bytes(b"a\0b")
    before = sorted(os.listdir(tmp_path))
    places = {"CORPUS": corpus, "OUT": f"{tmp_path}/out", "TMP": str(tmp_path)}
    for name, value in places.items():
        arguments = [argument.replace(name, value) for argument in arguments]
    assert run(*arguments) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert any(part in line for part in message.split("|"))
    assert sorted(os.listdir(tmp_path)) == before  # nothing is left behind


def test_damaged_tokenizer_is_not_called_finished(corpus, tmp_path, capsys):
    arguments = [f"--input={corpus}", "--vocab_size=100", f"--output={tmp_path}/t"]
    assert run(*arguments) == 0
    (tmp_path / "t" / "vocab.txt").unlink()
    assert run(*arguments) == 2
    assert "vocab.txt" in capsys.readouterr().err


def test_as_a_command(corpus, tmp_path):
    command = [sys.executable, "-m", "launch.train_tokenizer", f"--input={corpus}", "--vocab_size=100"]
    done = subprocess.run([*command, f"--output={tmp_path}/t"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "t" / DESCRIPTION_FILE).read_text())["vocab_size"] == 100
    done = subprocess.run([*command, f"--output={tmp_path}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1


def test_help(capsys):
    assert run("--help") == 0
    assert "--vocab_size" in capsys.readouterr().out


def test_a_full_disk_is_one_line(tmp_path, capsys, short_files):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(str, range(500))]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    target = tmp_path / "folder" / "tokenizer"
    # Room for the vocabulary, which Python writes, but not for the library's own file.
    with short_files(4000):
        assert run(f"--vocab_file={tmp_path}/vocab.txt", f"--output={target}") == 2
    error = capsys.readouterr().err
    assert error == f"error: cannot write {target}: File too large; make room, or choose another\n"
    assert not target.parent.exists()
