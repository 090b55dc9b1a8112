"""Hugging Face directories: bit for bit there and back, every variant that is about, and what is refused."""

import dataclasses
import errno
import json
import pathlib

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bert_jax.config import BertConfig
from bert_jax.errors import UserError
from bert_jax.interop import huggingface
from bert_jax.interop.pretrained import open_pretrained
from bert_jax.training.initialization import paths

_QUERY = "bert.encoder.layer.1.attention.self.query.weight"


def _shard(directory: pathlib.Path, shards: int = 3) -> pathlib.Path:
    """Cuts model.safetensors into shards, as large models have them."""
    tensors = load_file(directory / "model.safetensors")
    weight_map = {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        part = {name: tensors[name] for name in sorted(tensors)[number::shards]}
        save_file(part, directory / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    (directory / "model.safetensors").unlink()
    (directory / huggingface.INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return directory


def test_there_and_back_bit_for_bit(tmp_path, each_example, same):
    directory = each_example.write(tmp_path / "model")
    model = open_pretrained(directory)
    assert (model.kind, model.model_class, model.labels) == (
        "huggingface",
        each_example.model_class,
        each_example.labels,
    )
    assert model.config == each_example.config and model.step is None and model.tokenizer_directory is None
    loaded = model.load_parameters()
    assert same(loaded, each_example.parameters())
    assert model.report.missing == model.report.unexpected == model.report.other_shapes == ()
    names = load_file(directory / "model.safetensors")
    assert set(model.report.loaded) == set(names)
    # And from there: the files are the same, byte for byte.
    (tmp_path / "again").mkdir()
    huggingface.write_directory(tmp_path / "again", model.config, model.model_class, model.labels, loaded, None)
    for path in directory.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_padding_is_zeros_and_not_written(tmp_path, example):
    directory = example().write(tmp_path / "model")
    tensors = load_file(directory / "model.safetensors")
    assert tensors["bert.embeddings.word_embeddings.weight"].shape == (37, 12)
    assert tensors["cls.predictions.bias"].shape == (37,)
    loaded = paths(open_pretrained(directory).load_parameters())
    for name in ("bert/embeddings/word_embeddings/embedding", "masked_lm/bias"):
        assert len(loaded[name]) == 128 and not loaded[name][37:].any() and loaded[name][:37].all()


def test_a_full_disk_is_an_error_of_the_system(tmp_path, example, short_files):
    with short_files(4000), pytest.raises(OSError, match="File too large") as caught:
        example().write(tmp_path / "model")
    assert caught.value.errno == errno.EFBIG


def test_what_transformers_reads(tmp_path, example, tokenizer):
    directory = example("BertForSequenceClassification").write(tmp_path / "model", tokenizer)
    fields = json.loads((directory / "config.json").read_text())
    assert fields["architectures"] == ["BertForSequenceClassification"] and fields["model_type"] == "bert"
    assert fields["id2label"] == {"0": "negative", "1": "neutral", "2": "positive"}
    assert fields["label2id"] == {"negative": 0, "neutral": 1, "positive": 2}
    assert fields["layer_norm_eps"] == 1e-7 and fields["hidden_act"] == "gelu" and fields["pad_token_id"] == 0
    written = {path.name for path in directory.iterdir()}
    assert written >= {"vocab.txt", "tokenizer.json", "tokenizer_config.json", "model.safetensors"}
    assert all(path.is_file() for path in directory.iterdir())
    assert open_pretrained(directory).load_tokenizer().fingerprint == tokenizer.fingerprint
    from safetensors import safe_open

    with safe_open(directory / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}
    plain = example("BertModel").write(tmp_path / "plain")
    assert all(not name.startswith("bert.") for name in load_file(plain / "model.safetensors"))


def test_a_tokenizer_of_one_file(tmp_path, example, tokenizer):
    directory = example().write(tmp_path / "model", tokenizer)
    for name in ("vocab.txt", "tokenizer_config.json", "bert_jax_tokenizer.json"):
        (directory / name).unlink()
    model = open_pretrained(directory)
    assert model.load_tokenizer().encode_batch(["A b?"]) == tokenizer.encode_batch(["A b?"])


def test_a_sentencepiece_tokenizer(tmp_path, example):
    from bert_jax.text.tokenizers import train_tokenizer

    words = [a + b + c for a in "bdklm" for b in "aeiou" for c in "nrst"]
    texts = [" ".join(words[start : start + 9]) for start in range(len(words))]
    sentencepiece = train_tokenizer(texts, "sentencepiece", 40)
    model = example("BertForMaskedLM")
    model = dataclasses.replace(model, config=dataclasses.replace(model.config, vocab_size=40))
    directory = model.write(tmp_path / "model", sentencepiece)
    assert json.loads((directory / "config.json").read_text())["pad_token_id"] == sentencepiece.pad_id
    assert open_pretrained(directory).load_tokenizer().fingerprint == sentencepiece.fingerprint


@pytest.mark.parametrize("prefixed", [True, False])
@pytest.mark.parametrize("old_names", [True, False])
def test_prefixes_and_old_names(tmp_path, example, same, edit, prefixed, old_names):
    def rename(tensors):
        renamed = {}
        for name, array in tensors.items():
            name = f"bert.{name}" if prefixed else name
            if old_names:
                name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            renamed[name] = array
        position_ids = np.arange(16)[None]
        return {**renamed, ("bert." if prefixed else "") + "embeddings.position_ids": position_ids}

    model = open_pretrained(edit(example("BertModel").write(tmp_path / "model"), tensors=rename))
    assert model.report.unexpected == model.report.missing == ()
    assert same(model.load_parameters(), example("BertModel").parameters())


def test_the_tied_decoder(tmp_path, example, same, edit):
    def add(tensors):
        tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"].copy()
        tensors["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"].copy()

    directory = edit(example().write(tmp_path / "model"), tensors=add)
    model = open_pretrained(directory)
    assert same(model.load_parameters(), example().parameters()) and model.report.unexpected == ()

    def untie(tensors):
        tensors["cls.predictions.decoder.weight"][3, 4] += 1

    model = open_pretrained(edit(directory, tensors=untie))
    assert same(model.load_parameters(), example().parameters())
    (unexpected,) = model.report.unexpected
    assert unexpected.startswith("cls.predictions.decoder.weight (differs from")

    # Where only the second name of a tied tensor is there, it is the tensor.
    only_second = edit(directory, tensors=lambda tensors: tensors.pop("cls.predictions.bias") is None or tensors)
    assert same(open_pretrained(only_second).load_parameters(), example().parameters())


def test_shards(tmp_path, each_example, same):
    model = open_pretrained(_shard(each_example.write(tmp_path / "model")))
    assert model.model_class == each_example.model_class and same(model.load_parameters(), each_example.parameters())


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_floats_are_read_as_float32(tmp_path, example, dtype):
    directory = example("BertForMaskedLM").write(tmp_path / "model")
    tensors = {name: array.astype(dtype) for name, array in load_file(directory / "model.safetensors").items()}
    header, data = {}, b""
    for name, array in tensors.items():
        code = {"float16": "F16", "bfloat16": "BF16", "float64": "F64"}[array.dtype.name]
        header[name] = {"dtype": code, "shape": array.shape, "data_offsets": [len(data), len(data) + array.nbytes]}
        data += array.tobytes()
    encoded = json.dumps(header).encode()
    (directory / "model.safetensors").write_bytes(len(encoded).to_bytes(8, "little") + encoded + data)
    expected = paths(example("BertForMaskedLM").parameters())
    for name, array in paths(open_pretrained(directory).load_parameters()).items():
        assert array.dtype == np.float32 and np.array_equal(array, expected[name].astype(dtype).astype(np.float32))


@pytest.mark.parametrize(
    ("name", "ours", "written"),
    [
        ("gelu", "gelu", "gelu"),
        ("gelu_new", "gelu_tanh", "gelu_new"),
        ("gelu_pytorch_tanh", "gelu_tanh", "gelu_new"),
    ],
)
def test_activations(tmp_path, example, edit, name, ours, written):
    directory = edit(example().write(tmp_path / "model"), {"hidden_act": name})
    model = open_pretrained(directory)
    assert model.config.hidden_act == ours
    (tmp_path / "again").mkdir()
    huggingface.write_directory(
        tmp_path / "again", model.config, model.model_class, None, model.load_parameters(), None
    )
    assert json.loads((tmp_path / "again/config.json").read_text())["hidden_act"] == written


@pytest.mark.parametrize(
    ("saved", "declared", "found", "missing", "unexpected"),
    [
        # Published models for masked language modelling hold the other head too.
        ("BertForPreTraining", "BertForMaskedLM", "BertForPreTraining", 0, 0),
        ("BertForPreTraining", None, "BertForPreTraining", 0, 0),
        ("BertForPreTraining", "BertForNextSentencePrediction", "BertForPreTraining", 0, 0),
        ("BertForPreTraining", "BertModel", "BertModel", 0, 7),
        ("BertForMaskedLM", None, "BertForMaskedLM", 0, 0),
        ("BertForMaskedLM", "BertForPreTraining", "BertForMaskedLM", 4, 0),
        ("BertForSequenceClassification", None, "BertForSequenceClassification", 0, 0),
        ("BertForSequenceClassification", "BertForTokenClassification", "BertForTokenClassification", 0, 2),
        ("BertForTokenClassification", None, "BertForTokenClassification", 0, 0),
        ("BertForQuestionAnswering", None, "BertForQuestionAnswering", 0, 0),
        ("BertModel", "BertForQuestionAnswering", "BertModel", 2, 0),
        ("BertModel", None, "BertModel", 0, 0),
    ],
)
def test_the_class_is_what_the_tensors_make(tmp_path, example, same, edit, saved, declared, found, missing, unexpected):
    directory = example(saved).write(tmp_path / "model")
    if saved == "BertModel":
        edit(directory, tensors=lambda tensors: {f"bert.{name}": array for name, array in tensors.items()})
    edit(directory, {"architectures": [declared] if declared else None})
    model = open_pretrained(directory)
    assert (model.model_class, len(model.report.missing), len(model.report.unexpected)) == (found, missing, unexpected)
    expected = example(found)
    assert paths(model.load_parameters()).keys() == paths(expected.parameters()).keys()
    assert model.labels == (("negative", "neutral", "positive") if expected.labels else None)


def test_a_model_without_its_pooler(tmp_path, example, edit):
    def remove(tensors):
        return {name: array for name, array in tensors.items() if "pooler" not in name}

    model = open_pretrained(edit(example("BertModel").write(tmp_path / "model"), tensors=remove))
    assert model.model_class == "BertModel" and len(model.report.missing) == 2
    parameters = model.load_parameters()
    assert set(parameters["bert"]) == {"embeddings", "encoder"}
    (tmp_path / "again").mkdir()
    huggingface.write_directory(tmp_path / "again", model.config, "BertModel", None, parameters, None)
    assert not any("pooler" in name for name in load_file(tmp_path / "again/model.safetensors"))


def test_labels_without_names(tmp_path, example, edit):
    directory = example("BertForTokenClassification").write(tmp_path / "model")
    assert open_pretrained(edit(directory, {"id2label": None})).labels == ("LABEL_0", "LABEL_1", "LABEL_2")


def test_a_head_of_another_shape_is_listed_and_left(tmp_path, example, edit):
    directory = example("BertForSequenceClassification").write(tmp_path / "model")
    model = open_pretrained(edit(directory, {"id2label": {"0": "a", "1": "b"}}))
    assert model.model_class == "BertModel" and model.labels is None
    weight, bias = model.report.other_shapes
    assert weight == "classifier.weight has shape (3, 12), and the configuration asks for (2, 12)"
    assert bias.startswith("classifier.bias has shape (3,)") and model.report.unexpected == ()
    assert "classifier" not in model.load_parameters()
    assert any("of another shape: classifier.weight" in line for line in model.report.lines())


def test_more_layers_than_the_configuration_says(tmp_path, example, edit):
    model = open_pretrained(edit(example().write(tmp_path / "model"), {"num_hidden_layers": 2}))
    assert len(model.report.unexpected) == 16 and all("layer.2." in name for name in model.report.unexpected)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "roberta"}, "describes a model of type 'roberta'"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"hidden_act": ["gelu"]}, "hidden_act is"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ({"is_decoder": True}, "is_decoder is true"),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads"),
        ({"hidden_size": None}, "has no hidden_size"),
        ({"num_attention_heads": 5}, "must divide"),
        ({"num_hidden_layers": 4}, "lacks tensors of the encoder (16, the first bert.encoder.layer.3."),
        ({"vocab_size": 38}, "bert.embeddings.word_embeddings.weight has shape (37, 12)"),
        ({"intermediate_size": 24}, "bert.encoder.layer.0.intermediate.dense.weight has shape (20, 12)"),
        ({"id2label": {"0": "a", "2": "b"}}, "id2label"),
        ({"id2label": ["a", "b"]}, "id2label"),
        ({"id2label": {"0": ["a"]}}, "id2label['0'] is a list"),
        ({"id2label": {"1" * 5000: "a"}}, "id2label must name"),
        ({"vocab_size": None}, "has no vocab_size"),
        ({"hidden_size": 10**400}, "must be a positive whole number below 2^31"),
        ({"architectures": [["x"]]}, "architectures[0] is a list, not a string"),
        ({"architectures": "BertModel"}, "architectures is 'BertModel', not a list of strings"),
        ({"model_type": {"a": 1}}, "a model of type an object"),
        ({"hidden_act": "x" * 10_000}, "hidden_act is 'xxx"),
        ({"num_hidden_layers": 10**7}, "that has 10000000 layers, and of a BERT there are"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_another_configuration_is_one_line(tmp_path, example, edit, fields, message):
    directory = edit(example().write(tmp_path / "model"), fields)
    with pytest.raises(UserError) as error:
        open_pretrained(directory)
    assert message in str(error.value) and str(directory) in str(error.value) and "\n" not in str(error.value)


def _truncate(path: pathlib.Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: _truncate(d / "model.safetensors", -20), "is truncated or damaged"),
        (lambda d: _truncate(d / "model.safetensors", 100), "is truncated or damaged"),
        (lambda d: _truncate(d / "model.safetensors", 0), "is truncated or damaged"),
        (lambda d: (d / "model.safetensors").unlink(), "but no weights"),
        (lambda d: (d / "model.safetensors").rename(d / "pytorch_model.bin"), "save_pretrained"),
        (lambda d: (d / "config.json").write_text("{"), "no valid JSON"),
        (lambda d: (d / "config.json").write_text("[]"), "no JSON object"),
        (lambda d: (d / "config.json").write_text("[" * 100_000), "nested too deeply"),
        (lambda d: (d / "config.json").write_text('{"a": "\\ud800"}'), "half of a character"),
        (lambda d: (d / "config.json").write_bytes(b'{"a": "\xff"}'), "not UTF-8"),
        (lambda d: (d / "config.json").write_bytes(b""), "empty"),
        (lambda d: (_shard(d) / huggingface.INDEX_FILE).write_text('{"weight_map": {"a": "\\ud800"}}'), "half of a"),
        (lambda d: (_shard(d) / huggingface.INDEX_FILE).write_text('{"weight_map": {"a": "a\\u0000"}}'), "weight_map"),
        (lambda d: (d / "config.json").unlink(), "config.json: No such file"),
        (
            lambda d: _truncate(_shard(d) / "model-00002-of-00003.safetensors", -4),
            "00002-of-00003.safetensors is trunc",
        ),
        (lambda d: (_shard(d) / "model-00002-of-00003.safetensors").unlink(), "model-00002-of-00003.safetensors: No"),
        (lambda d: (_shard(d) / huggingface.INDEX_FILE).write_text("{}"), "weight_map"),
        (
            lambda d: (_shard(d) / huggingface.INDEX_FILE).write_text('{"weight_map": {"a": "../model.safetensors"}}'),
            "weight_map",
        ),
        (
            lambda d: (_shard(d) / "model-00001-of-00003.safetensors").write_bytes(
                (d / "model-00003-of-00003.safetensors").read_bytes()
            ),
            "model-00001-of-00003.safetensors lacks",
        ),
    ],
)
def test_damaged_files_are_one_line(tmp_path, example, damage, message):
    directory = example().write(tmp_path / "model")
    damage(directory)
    with pytest.raises(UserError) as error:
        open_pretrained(directory)
    assert message in str(error.value) and str(directory) in str(error.value) and "\n" not in str(error.value)


def test_a_header_of_far_too_many_tensors_is_refused_before_it_is_parsed(tmp_path, example):
    directory = example().write(tmp_path / "model")
    path = directory / "model.safetensors"
    sizes = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({f"bert.encoder.layer.{layer}.output.dense.bias": sizes for layer in range(100_000)}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"0")
    with pytest.raises(UserError, match=r"model.safetensors has a header of 9 MiB, and 8 MiB hold the names"):
        open_pretrained(directory)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, example, edit, number, dtype):
    """In what the model takes; what else lies in the file is nobody's business."""

    def spoil(name):
        def spoiled(tensors):
            tensors = {key: array.astype(dtype) for key, array in tensors.items()}
            tensors.setdefault(name, np.zeros((2, 3), dtype))[1, 2] = number
            return tensors

        return spoiled

    other = edit(example().write(tmp_path / "other"), None, spoil("another.weight"))
    assert open_pretrained(other).load_parameters()
    model = open_pretrained(edit(example().write(tmp_path / "model"), None, spoil(_QUERY)))
    with pytest.raises(UserError) as error:
        model.load_parameters()
    assert str(error.value) == f"{_QUERY} holds numbers that are not finite: use another model"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (5, "bert_jax is 5, not an object or null: copy it again"),
        (False, "bert_jax is false, not an object or null: copy it again"),
        ({"finetuning": [1]}, "bert_jax.finetuning is a list, not an object or null: copy it again"),
        ({"model_class": 3, "finetuning": {}}, "bert_jax.model_class is 3, not a string or null: copy it again"),
    ],
    ids=str,
)
def test_a_record_of_another_type_is_not_dropped(tmp_path, example, edit, record, message):
    directory = edit(example("BertForSequenceClassification").write(tmp_path / "model"), {"bert_jax": record})
    with pytest.raises(UserError) as error:
        huggingface.read_task(directory, "BertForSequenceClassification")
    assert str(error.value) == f"{directory / 'config.json'}: {message}"


def test_a_missing_tensor_of_the_encoder(tmp_path, example, edit):
    directory = example().write(tmp_path / "model")
    with pytest.raises(
        UserError, match=r"lacks tensors of the encoder \(1, the first bert\.encoder\.layer\.1\.attention"
    ):
        open_pretrained(edit(directory, tensors=lambda tensors: tensors.pop(_QUERY) is None or tensors))


@pytest.mark.parametrize(
    "option",
    [
        {"position_embedding_type": "sinusoidal"},
        {"layer_norm_placement": "pre"},
        {"encoder_output": "mixture"},
        {"encoder_output": 2},
        {"pooling": "mean"},
    ],
    ids=str,
)
def test_options_that_hugging_face_lacks(option):
    with pytest.raises(UserError, match=f"has no {next(iter(option))}="):
        huggingface.family_to_write(BertConfig(**option), "BertForPreTraining")


def test_the_report_is_short():
    from bert_jax.interop.tensor_files import TensorReport

    lines = TensorReport(loaded=tuple("abcdefghij"), missing=("k",)).lines(most=3)
    assert lines == [
        "tensors: 10 loaded, 1 missing, 0 unexpected, 0 of another shape",
        "  loaded: a",
        "  loaded: b",
        "  loaded: c",
        "  loaded: and 7 more",
        "  missing: k",
    ]
