"""One door for every kind of model: what it tells apart, what it refuses, and bert_jax's own checkpoints."""

import os
import subprocess
import sys

import numpy as np
import pytest

from bert_jax.errors import UserError
from bert_jax.interop.pretrained import open_pretrained
from bert_jax.text.wordpiece import WordPieceTokenizer
from bert_jax.training.checkpoints import open_model, write_model


def _run(example, **changes) -> dict:
    labels = list(example.labels) if example.labels else None
    run = {"architecture": example.config.to_json(), "model_class": example.model_class, "labels": labels, "step": 5}
    return {**run, "validation": None, **changes}


def test_our_checkpoints_of_every_class(tmp_path, each_example, same, tokenizer):
    tokenizer.save(tmp_path / "tokenizer")
    files = {f"tokenizer/{path.name}": path.read_bytes() for path in (tmp_path / "tokenizer").iterdir()}
    write_model(tmp_path / "model", each_example.parameters(), _run(each_example), files)
    model = open_pretrained(tmp_path / "model")
    assert (model.kind, model.step, model.path) == ("bert_jax", 5, tmp_path / "model")
    assert (model.model_class, model.labels) == (each_example.model_class, each_example.labels)
    assert model.config == each_example.config and model.load_tokenizer().fingerprint == tokenizer.fingerprint
    assert same(model.load_parameters(), each_example.parameters())
    assert "bert/encoder/layers/attention/query/kernel" in model.report.loaded
    assert open_model(tmp_path / "model").step == 5


def test_a_checkpoint_of_before_there_were_classes(tmp_path, example):
    run = _run(example())
    write_model(
        tmp_path / "model",
        example().parameters(),
        {name: run[name] for name in ("architecture", "step", "validation")},
        {},
    )
    model = open_pretrained(tmp_path / "model")
    assert (model.model_class, model.labels, model.tokenizer_directory) == ("BertForPreTraining", None, None)
    with pytest.raises(UserError, match="has no tokenizer beside it"):
        model.load_tokenizer()


def test_numbers_that_are_not_finite_are_not_written(tmp_path, example):
    parameters = example().parameters()
    parameters["masked_lm"]["transform"]["bias"][3] = np.nan
    with pytest.raises(UserError, match="masked_lm/transform/bias holds numbers that are not finite"):
        write_model(tmp_path / "model", parameters, _run(example()), {})
    assert not (tmp_path / "model").exists()


def test_a_flipped_bit_is_found(tmp_path, example):
    write_model(tmp_path / "model", example().parameters(), _run(example()), {})
    for path in (path for path in (tmp_path / "model/state").rglob("d/*") if path.is_file()):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        open_pretrained(tmp_path / "model").load_parameters()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_class": "BertForMultipleChoice"}, "holds a BertForMultipleChoice"),
        ({"architecture": {"hidden_width": 3}}, "hidden_width"),
        ({"architecture": None}, "not a readable checkpoint"),
    ],
    ids=str,
)
def test_checkpoints_of_something_else(tmp_path, example, changes, message):
    write_model(tmp_path / "model", example().parameters(), _run(example(), **changes), {})
    with pytest.raises(UserError, match=message):
        open_pretrained(tmp_path / "model")


def test_a_tokenizer_with_more_ids_than_the_model(tmp_path, example, tokenizer, edit):
    directory = example().write(tmp_path / "model", tokenizer)

    def shorten(tensors):
        for name in ("bert.embeddings.word_embeddings.weight", "cls.predictions.bias"):
            tensors[name] = tensors[name][:30].copy()

    model = open_pretrained(edit(directory, {"vocab_size": 30}, shorten))
    with pytest.raises(UserError, match="has 37 ids, and the model has embeddings for 30"):
        model.load_tokenizer()


def _model_of_run(path, example, files, fingerprint):
    """Writes a checkpoint whose record names a tokenizer, beside the files of one."""
    run = _run(example(), identity={"data.tokenizer": fingerprint})
    write_model(path, example().parameters(), run, {f"tokenizer/{name}": content for name, content in files.items()})
    return open_pretrained(path)


def _saved(tokenizer, folder):
    tokenizer.save(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_tokenizer_of_the_record_and_no_other(tmp_path, example, tokenizer):
    """With a description of its own or without, and however like it is."""
    files = _saved(tokenizer, tmp_path / "tokenizer")
    model = _model_of_run(tmp_path / "model", example, files, tokenizer.fingerprint)
    assert model.load_tokenizer().fingerprint == tokenizer.fingerprint
    tokens = files["vocab.txt"].decode().split()
    swapped = [*tokens[:-2], *tokens[:-3:-1]]
    foreign = [
        _saved(tokenizer.with_tokens(swapped, {}), tmp_path / "swapped"),
        _saved(WordPieceTokenizer(tokens, cased=True), tmp_path / "cased"),
        {"vocab.txt": "\n".join(swapped).encode()},
    ]
    for number, others in enumerate(foreign):
        model = _model_of_run(tmp_path / f"foreign {number}", example, others, tokenizer.fingerprint)
        with pytest.raises(UserError) as error:
            model.load_tokenizer()
        assert str(error.value) == (
            f"the tokenizer in {model.tokenizer_directory} is not the one that the model was trained with (the run's"
            " record has another fingerprint): copy the checkpoint again"
        )


def test_googles_limit_of_a_word_is_that_of_the_record(tmp_path, example, tokenizer):
    """Early runs kept the vocabulary alone, which does not tell it; a tokenizer that was written anew does."""
    googles = tokenizer.with_longest_word(200)
    written = _saved(googles, tmp_path / "tokenizer")
    for number, files in enumerate(({"vocab.txt": written["vocab.txt"]}, written)):
        model = _model_of_run(tmp_path / f"model {number}", example, files, googles.fingerprint)
        assert model.load_tokenizer().fingerprint == googles.fingerprint != tokenizer.fingerprint
        assert model.load_tokenizer().encode_batch(["a" * 150]) == googles.encode_batch(["a" * 150])


@pytest.mark.parametrize("identity", [5, {"data.tokenizer": 5}], ids=str)
def test_a_record_that_cannot_name_a_tokenizer(tmp_path, example, identity):
    write_model(tmp_path / "model", example().parameters(), _run(example(), identity=identity), {})
    with pytest.raises(UserError, match=r"model: identity.* is 5, not .*: use another checkpoint"):
        open_pretrained(tmp_path / "model")


def test_there_is_no_model(tmp_path, example):
    for path, message in (
        (tmp_path / "nowhere", "no such directory"),
        (tmp_path, "no finished checkpoint of a run, no config.json"),
    ):
        with pytest.raises(UserError, match=message):
            open_pretrained(path)
    directory = example().write(tmp_path / "model")
    with pytest.raises(UserError, match="give its directory"):
        open_pretrained(directory / "model.safetensors")
    with pytest.raises(UserError, match="of a run's folder only"):
        open_pretrained(directory, "best")


def test_opening_imports_neither_jax_nor_tensorflow(tmp_path, repository_root, example):
    write_model(tmp_path / "ours", example().parameters(), _run(example()), {})
    example().write(tmp_path / "theirs")
    code = (
        "import sys\nfrom bert_jax.interop.pretrained import open_pretrained\n"
        f"kinds = [open_pretrained(path).kind for path in {[str(tmp_path / n) for n in ('ours', 'theirs')]}]\n"
        "print(kinds, [name for name in ('jax', 'flax', 'orbax', 'tensorflow', 'torch') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(repository_root)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout == "['bert_jax', 'huggingface'] []\n", done.stderr
