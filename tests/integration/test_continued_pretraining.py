"""Going on from somebody's model on another domain, with words added to its vocabulary."""

import json
import pathlib

import numpy as np
import pytest

from launch import convert, prepare, train_tokenizer

_NEW_WORDS = ("xylograph", "quokkas")


@pytest.fixture(scope="module")
def domain(tmp_path_factory, finished_run, small_data):
    """The run as a Hugging Face directory, its tokenizer with two more words, and rows of text that holds them."""
    root = tmp_path_factory.mktemp("domain")
    hugging_face = root / "hugging_face"
    assert convert.main(["convert", f"--from={finished_run}", f"--to={hugging_face}", "--format=huggingface"]) == 0
    (root / "words.txt").write_text("\n".join(_NEW_WORDS) + "\n")
    grow = [f"--from={hugging_face}", f"--add_words={root / 'words.txt'}", f"--output={root / 'tokenizer'}"]
    assert train_tokenizer.main(["train_tokenizer", *grow]) == 0
    old = pathlib.Path(small_data.config).parent / "corpus.txt"
    text = "".join(f"{_NEW_WORDS[number % 2]} {line}" for number, line in enumerate(old.read_text().splitlines(True)))
    # Blank lines part documents, as they did.
    lines = [line if line.split(" ", 1)[1].strip() else "\n" for line in text.splitlines(True)]
    (root / "corpus.txt").write_text("".join(lines))
    rows = [f"--input={root / 'corpus.txt'}", "--format=sentences", f"--tokenizer={root / 'tokenizer'}", "--seq_len=32"]
    assert (
        prepare.main(["prepare", *rows, "--workers=1", "--validation_fraction=0.1", f"--output={root / 'rows'}"]) == 0
    )
    return root


@pytest.mark.parametrize("kind", ["bert_jax", "huggingface"])
def test_added_words_begin_with_the_mean_of_their_pieces(tmp_path, capsys, pretrain, finished_run, domain, kind):
    from bert_jax.training.checkpoints import open_model

    source = finished_run if kind == "bert_jax" else domain / "hugging_face"
    capsys.readouterr()
    # A rate of zero, so that the checkpoint shows what the run began with.
    settings = ("pretrain.steps = 1", "pretrain.eval_every = 0", "pretrain.learning_rate = 1e-30")
    assert pretrain(tmp_path / "run", *settings, data_dir=str(domain / "rows"), init_from=str(source)) == 0
    printed = capsys.readouterr().out
    assert "2 added word(s)" in printed and "0 missing, 0 unexpected" in printed
    listing = json.loads((domain / "tokenizer/bert_jax_tokenizer.json").read_text())["training"]["added_words"]
    assert [entry["word"] for entry in listing] == list(_NEW_WORDS)
    before, after = (open_model(path).load_parameters() for path in (finished_run, tmp_path / "run"))
    for name in ("bert/embeddings/word_embeddings/embedding", "masked_lm/bias"):
        old, new = before, after
        for key in name.split("/"):
            old, new = old[key], new[key]
        old, new = np.asarray(old), np.asarray(new)
        np.testing.assert_array_equal(new[:140], old[:140])
        for entry in listing:
            assert f"{entry['id']} {entry['word']} (new): " in printed
            np.testing.assert_allclose(new[entry["id"]], old[entry["pieces"]].mean(axis=0), rtol=1e-6, atol=1e-7)


def test_rows_of_another_tokenizer_are_refused(tmp_path, capsys, pretrain, finished_run, small_data):
    capsys.readouterr()
    run = tmp_path / "run"
    assert pretrain(run, data_dir=small_data.other_rows_32, init_from=str(finished_run)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --init_from=") and error.count("\n") == 1 and "another tokenizer" in error
    assert not run.exists()
