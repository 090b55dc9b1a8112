"""ModernBERT's directories: those of transformers read and written again, ours there and back, and what is refused."""

import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bert_jax.config import BertConfig
from bert_jax.errors import UserError
from bert_jax.interop import huggingface
from bert_jax.interop.names import MODEL_PARTS
from bert_jax.interop.pretrained import open_pretrained
from bert_jax.text.tokenizers import train_tokenizer
from bert_jax.training.initialization import paths

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden" / "ModernBertForMaskedLM"
_FIRST_NORM = "bert/encoder/layers/attention/layer_norm/scale"


@pytest.fixture
def modern(config, example):
    """Makes the example of a class, whose first layer's unused norm is ones, as initial values and files have it."""
    architecture = dataclasses.replace(
        config,
        position_embedding_type="rotary",
        rotary_base=500.0,
        layer_norm_placement="pre_and_embeddings",
        use_bias=False,
        feed_forward_type="gated",
        type_vocab_size=0,
    )

    class Modern(type(example())):
        def parameters(self):
            parameters = super().parameters()
            paths(parameters)[_FIRST_NORM][0] = 1
            return parameters

    return lambda model_class="BertForMaskedLM": Modern(model_class, architecture)


@pytest.fixture
def golden(tmp_path) -> pathlib.Path:
    """A copy of what transformers wrote."""
    return pathlib.Path(shutil.copytree(GOLDEN, tmp_path / "golden"))


def test_what_transformers_wrote_is_written_again(tmp_path):
    model = open_pretrained(GOLDEN)
    assert (model.kind, model.model_class, model.labels) == ("huggingface", "BertForMaskedLM", None)
    assert model.report.missing == model.report.unexpected == model.report.other_shapes == ()
    parameters = model.load_parameters()
    assert (np.asarray(paths(parameters)[_FIRST_NORM][0]) == 1).all()
    (tmp_path / "again").mkdir()
    huggingface.write_directory(tmp_path / "again", model.config, model.model_class, None, parameters, None)
    theirs, ours = load_file(GOLDEN / "model.safetensors"), load_file(tmp_path / "again/model.safetensors")
    assert theirs.keys() == ours.keys()
    for name, array in theirs.items():
        assert array.dtype == ours[name].dtype and np.array_equal(array, ours[name]), name
    # Every field of ours is one of theirs, or what version 4 called it; and says the same.
    theirs, ours = (json.loads((folder / "config.json").read_text()) for folder in (GOLDEN, tmp_path / "again"))
    assert ours.keys() - theirs.keys() == {"global_rope_theta"}
    assert ours["rope_parameters"]["full_attention"] == theirs["rope_parameters"]["full_attention"]
    assert ours["global_rope_theta"] == theirs["rope_parameters"]["full_attention"]["rope_theta"] == 300.0
    # Without a tokenizer nobody knows where texts begin and end.
    unknown = {"rope_parameters", "global_rope_theta", *(f"{name}_token_id" for name in ("bos", "eos", "cls", "sep"))}
    assert {name: value for name, value in ours.items() if name not in unknown} == {
        name: theirs[name] for name in ours.keys() - unknown
    }


@pytest.mark.parametrize("model_class", ["BertForMaskedLM", "BertForPreTraining", "BertModel"])
def test_there_and_back_bit_for_bit(tmp_path, modern, same, tokenizer, model_class):
    directory = modern(model_class).write(tmp_path / "model", tokenizer)
    written = {"BertModel": "BertModel"}.get(model_class, "BertForMaskedLM")
    fields = json.loads((directory / "config.json").read_text())
    assert fields["architectures"] == [f"Modern{written}"] and fields["model_type"] == "modernbert"
    assert [fields[f"{name}_token_id"] for name in ("pad", "cls", "bos", "sep", "eos")] == [0, 2, 2, 3, 3]
    assert fields["layer_types"] == ["full_attention"] * 3 and fields["global_attn_every_n_layers"] == 1
    model = open_pretrained(directory)
    assert (model.model_class, model.config) == (written, modern().config)
    loaded, expected = model.load_parameters(), modern(model_class).parameters()
    heads = {"pooler", "next_sentence", *(("masked_lm",) if written == "BertModel" else ())}
    expected = {name: part for name, part in expected.items() if name not in heads}
    expected["bert"].pop("pooler", None)
    assert same(loaded, expected)
    assert set(model.report.loaded) == set(load_file(directory / "model.safetensors"))
    assert any(name.startswith("model.") for name in model.report.loaded) != (written == "BertModel")
    assert model.load_tokenizer().fingerprint == tokenizer.fingerprint
    # Its models take no token types.
    described = json.loads((directory / "tokenizer_config.json").read_text())
    assert described["model_input_names"] == ["input_ids", "attention_mask"]
    assert described["tokenizer_class"] == "PreTrainedTokenizerFast" and described["mask_token"] == "[MASK]"


def test_a_sentencepiece_tokenizer_gets_the_file_that_transformers_opens(tmp_path, modern):
    words = [a + b + c for a in "bdklm" for b in "aeiou" for c in "nrst"]
    texts = [" ".join(words[start : start + 9]) for start in range(len(words))]
    sentencepiece = train_tokenizer(texts, "sentencepiece", 40)
    model = dataclasses.replace(modern(), config=dataclasses.replace(modern().config, vocab_size=40))
    directory = model.write(tmp_path / "model", sentencepiece)
    assert (directory / "tokenizer.json").is_file()
    assert open_pretrained(directory).load_tokenizer().fingerprint == sentencepiece.fingerprint


def test_what_has_no_place_is_left_in_the_dict(tmp_path, modern):
    parameters = modern("BertForPreTraining").parameters()
    huggingface.write_directory(tmp_path, modern().config, "BertForPreTraining", None, parameters, None)
    heads = ("bert/pooler/dense", "next_sentence/dense")
    assert set(paths(parameters)) == {f"{head}/{name}" for head in heads for name in ("kernel", "bias")}


@pytest.mark.parametrize("model_class", [name for name in MODEL_PARTS if {"classifier", "span"} & {*MODEL_PARTS[name]}])
def test_heads_of_tasks_cannot_go_out(modern, model_class):
    with pytest.raises(UserError, match=f"its ModernBERT has no head like that of a {model_class}: keep this model in"):
        huggingface.family_to_write(modern().config, model_class)


@pytest.mark.parametrize(
    ("change", "for_bert", "for_modernbert"),
    [
        (
            {"layer_norm_placement": "pre"},
            "position_embedding_type='rotary', layer_norm_placement='pre', use_bias=False, feed_forward_type='gated',"
            " type_vocab_size=0",
            "layer_norm_placement='pre'",
        ),
        ({"norm_type": "rms_norm"}, "norm_type='rms_norm', use_bias=False", "norm_type='rms_norm'"),
        ({"type_vocab_size": 2}, "feed_forward_type='gated'", "type_vocab_size=2"),
        ({"use_bias": True}, "feed_forward_type='gated'", "use_bias=True"),
        ({"encoder_output": 1}, "encoder_output=1", "encoder_output=1"),
    ],
    ids=str,
)
def test_other_combinations_say_which_option_which_format_lacks(modern, change, for_bert, for_modernbert):
    with pytest.raises(UserError) as error:
        huggingface.family_to_write(dataclasses.replace(modern().config, **change), "BertForMaskedLM")
    bert, modernbert = str(error.value).removesuffix(": keep this model in the format bert_jax").split("; its ")
    assert bert.startswith("Hugging Face's BERT has no ") and for_bert in bert
    assert modernbert == f"ModernBERT has no {for_modernbert}"


def test_each_architecture_is_written_as_its_family(modern):
    published = BertConfig()
    for architecture, name in ((published, "BERT"), (modern().config, "ModernBERT")):
        family, _ = huggingface.family_to_write(architecture, "BertForMaskedLM")
        assert family.name == name
    # Both have every activation of ours.
    for architecture in (published, modern().config):
        huggingface.family_to_write(dataclasses.replace(architecture, hidden_act="silu"), "BertForMaskedLM")


def _as_version_4(fields: dict) -> dict:
    """What transformers 4 writes of the same model."""
    kept = {name: value for name, value in fields.items() if name not in ("layer_types", "rope_parameters")}
    return {**kept, "global_attn_every_n_layers": 1, "global_rope_theta": 300.0, "local_rope_theta": 10000.0}


def test_configurations_of_version_4(golden):
    path = golden / "config.json"
    path.write_text(json.dumps(_as_version_4(json.loads(path.read_text()))))
    assert open_pretrained(golden).config == open_pretrained(GOLDEN).config


def test_what_a_configuration_leaves_out_is_as_published(golden):
    path = golden / "config.json"
    sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    fields = json.loads(path.read_text())
    kept = ("model_type", "layer_types", *sizes)
    path.write_text(json.dumps({name: fields[name] for name in kept}))
    model = open_pretrained(golden).config
    assert (model.rotary_base, model.layer_norm_eps, model.max_position_embeddings) == (160_000.0, 1e-5, 8192)
    assert (model.hidden_act, model.hidden_dropout_prob, model.attention_probs_dropout_prob) == ("gelu", 0.0, 0.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layer_types": ["full_attention", "sliding_attention", "full_attention"]}, "layers that attend to the words"),
        ({"layer_types": None}, "layers that attend to the words nearby alone cannot be read yet"),
        ({"layer_types": None, "global_attn_every_n_layers": 3}, "global_attn_every_n_layers is 3: a ModernBERT with"),
        ({"layer_types": 3}, "layer_types is 3, not a list of strings"),
        ({"attention_bias": True}, "attention_bias is true: a ModernBERT with biases in attention cannot be read yet"),
        ({"mlp_bias": True}, "biases in the feed-forward networks"),
        ({"norm_bias": True}, "biases in the norms"),
        ({"classifier_bias": True}, "a bias in the head's linear map"),
        ({"decoder_bias": False}, "no bias for each word"),
        ({"hidden_activation": "relu"}, "classifier_activation is 'gelu': a ModernBERT with another activation in"),
        ({"hidden_activation": "relu", "classifier_activation": "relu"}, "hidden_activation is 'relu', and a BERT"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "rope_scaling is an object: a ModernBERT with scaled rotary"),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "scaled rotary positions cannot be read yet"),
        ({"rope_parameters": {"full_attention": {"rope_theta": "x"}}}, "the rotary base is 'x', not a number"),
        ({"rope_parameters": [1]}, "rope_parameters is a list, not an object"),
        ({"hidden_size": None}, "has no hidden_size"),
        ({"norm_eps": 3}, "layer_norm_eps must be a number between 0 and 1"),
        ({"intermediate_size": 24}, "model.layers.0.mlp.Wi.weight has shape (40, 16), and the configuration asks for"),
        ({"num_hidden_layers": 4}, "lacks tensors of the encoder (6, the first model.layers.3.attn_norm.weight)"),
        ({"model_type": "modernbert-decoder"}, "'modernbert-decoder': only BERT and ModernBERT can be read"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_ours_cannot_be_is_one_line(golden, edit, fields, message):
    if "layer_types" in fields and fields["layer_types"] is None and "global_attn_every_n_layers" not in fields:
        fields = {**fields, "global_attn_every_n_layers": None}
    with pytest.raises(UserError) as error:
        open_pretrained(edit(golden, fields))
    assert message in str(error.value) and str(golden) in str(error.value) and "\n" not in str(error.value)


def test_one_layer_is_never_local(golden, edit):
    """And has no norm before its attention in the file."""

    def cut(tensors):
        return {name: array for name, array in tensors.items() if ".1." not in name and ".2." not in name}

    fields = {"layer_types": None, "global_attn_every_n_layers": 3, "num_hidden_layers": 1}
    model = open_pretrained(edit(golden, fields, cut))
    assert model.report.missing == () and model.config.num_hidden_layers == 1
    parameters = model.load_parameters()
    assert np.array_equal(paths(parameters)[_FIRST_NORM], np.ones((1, 16)))


def test_another_head_is_left(golden, edit):
    """As a classifier of texts: the encoder comes in, and its head, which ours is not like, is listed."""

    def classifier(tensors):
        del tensors["decoder.bias"]
        return {
            **tensors,
            "classifier.weight": np.zeros((2, 16), np.float32),
            "classifier.bias": np.zeros(2, np.float32),
        }

    fields = {"architectures": ["ModernBertForSequenceClassification"], "id2label": {"0": "a", "1": "b"}}
    model = open_pretrained(edit(golden, fields, classifier))
    assert (model.model_class, model.labels) == ("BertModel", None)
    assert {"head.dense.weight", "head.norm.weight", "classifier.weight", "classifier.bias"} == {
        *model.report.unexpected
    }
    assert set(model.load_parameters()) == {"bert"}


def test_the_tied_decoder(golden, edit):
    def add(tensors):
        tensors["decoder.weight"] = tensors["model.embeddings.tok_embeddings.weight"].copy()

    model = open_pretrained(edit(golden, tensors=add))
    assert model.load_parameters() and model.report.unexpected == ()
    tensors = load_file(golden / "model.safetensors")
    tensors["decoder.weight"][3, 4] += 1
    save_file(tensors, golden / "model.safetensors", metadata={"format": "pt"})
    model = open_pretrained(golden)
    assert model.load_parameters()
    (unexpected,) = model.report.unexpected
    assert unexpected.startswith("decoder.weight (differs from model.embeddings.tok_embeddings.weight")
