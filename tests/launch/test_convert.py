"""python -m launch.convert: every kind in, two kinds out, and the launchers that take any of them."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bert_jax.config import BertConfig
from bert_jax.interop.pretrained import open_pretrained
from bert_jax.models.registry import build_model
from bert_jax.training.checkpoints import write_model
from bert_jax.training.saved_models import with_digest
from launch import fill_mask
from launch.convert import main


def _convert(source, target, format, *more) -> int:
    return main(["convert", f"--from={source}", f"--to={target}", f"--format={format}", *more])


def _same(one, other) -> bool:
    return jax.tree.structure(one) == jax.tree.structure(other) and all(
        np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory, finished_run) -> pathlib.Path:
    """The small run as a Hugging Face directory; not to be changed."""
    directory = tmp_path_factory.mktemp("exported") / "model"
    assert _convert(finished_run, directory, "huggingface") == 0
    return directory


def test_a_run_to_hugging_face_and_back(tmp_path, capsys, finished_run, exported):
    capsys.readouterr()
    assert _convert(exported, tmp_path / "ours", "bert_jax") == 0
    lines = capsys.readouterr().out.splitlines()
    run, ours = open_pretrained(finished_run), open_pretrained(tmp_path / "ours")
    parameters = run.load_parameters()
    assert _same(ours.load_parameters(), parameters) and ours.config == run.config
    assert ours.load_tokenizer().fingerprint == run.load_tokenizer().fingerprint
    count = sum(leaf.size for leaf in jax.tree.leaves(parameters)) - (-run.config.vocab_size % 128) * (16 + 1)
    assert lines[0] == f"read {exported} (huggingface, BertForPreTraining), {count:,} parameters"
    assert lines[1] == "tensors: 46 loaded, 0 missing, 0 unexpected, 0 of another shape"
    assert lines[-1] == f"wrote {tmp_path / 'ours'} (bert_jax)"
    # The folders are complete and hold nothing else; no temporary one is left beside them.
    assert [path.name for path in tmp_path.iterdir()] == ["ours"]
    assert {"config.json", "model.safetensors", "vocab.txt"} <= {path.name for path in exported.iterdir()}
    assert (exported.stat().st_mode & 0o777) == (tmp_path.parent / tmp_path.name / "ours").stat().st_mode & 0o777


def test_a_chosen_checkpoint(tmp_path, finished_run):
    for step in (path.name for path in (finished_run / "checkpoints").iterdir()):
        assert _convert(finished_run, tmp_path / step, "bert_jax", f"--checkpoint={step}") == 0
        model = open_pretrained(tmp_path / step)
        assert model.step == int(step)
        assert _same(model.load_parameters(), open_pretrained(finished_run, step).load_parameters())


def test_what_did_not_fit_is_listed(tmp_path, capsys, exported):
    source = tmp_path / "source"
    shutil.copytree(exported, source)
    tensors = load_file(source / "model.safetensors")
    del tensors["cls.seq_relationship.weight"]
    tensors["cls.predictions.decoder.weight"] = np.zeros((3, 4), np.float32)
    tensors["extra.weight"] = np.zeros(3, np.float32)
    save_file(tensors, source / "model.safetensors")
    shutil.rmtree(tmp_path / "target", ignore_errors=True)
    capsys.readouterr()
    assert _convert(source, tmp_path / "target", "bert_jax") == 0
    output = capsys.readouterr().out
    assert "BertForMaskedLM" in output and "  missing: cls.seq_relationship.weight\n" in output
    for name in ("extra.weight", "cls.seq_relationship.bias", "bert.pooler.dense.weight"):
        assert f"  unexpected: {name}\n" in output
    assert "  unexpected: cls.predictions.decoder.weight (differs from" in output
    assert "  loaded: and " in output


def test_without_a_tokenizer(tmp_path, capsys, exported):
    (tmp_path / "source").mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(exported / name, tmp_path / "source")
    assert _convert(tmp_path / "source", tmp_path / "target", "bert_jax") == 0
    assert "there was no tokenizer" in capsys.readouterr().out
    assert fill_mask.main(["fill_mask", f"--model={tmp_path / 'target'}", "--text=[MASK]"]) == 2
    assert "has no tokenizer beside it" in capsys.readouterr().err


def test_an_architecture_that_hugging_face_lacks(tmp_path, capsys, finished_run):
    shutil.copytree(finished_run / "checkpoints/12", tmp_path / "source")
    path = tmp_path / "source/run/metadata"
    run = json.loads(path.read_text())
    run["architecture"]["pooling"] = "mean"
    path.write_text(json.dumps(with_digest(run)))
    assert _convert(tmp_path / "source", tmp_path / "target", "huggingface") == 2
    assert "has no pooling='mean'" in capsys.readouterr().err and not (tmp_path / "target").exists()


def test_modernbert_to_ours_and_back(tmp_path, capsys, repository_root):
    source = repository_root / "tests/golden/ModernBertForMaskedLM"
    assert _convert(source, tmp_path / "ours", "bert_jax") == 0
    assert _convert(tmp_path / "ours", tmp_path / "theirs", "huggingface") == 0
    assert "left out" not in capsys.readouterr().out
    first, last = (load_file(folder / "model.safetensors") for folder in (source, tmp_path / "theirs"))
    assert first.keys() == last.keys() and all(np.array_equal(first[name], last[name]) for name in first)


def test_heads_that_modernbert_lacks_are_named(tmp_path, capsys):
    config = BertConfig(
        vocab_size=30,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=16,
        type_vocab_size=0,
        position_embedding_type="rotary",
        layer_norm_placement="pre_and_embeddings",
        use_bias=False,
        feed_forward_type="gated",
    )
    for model_class, num_labels in (("BertForPreTraining", None), ("BertForTokenClassification", 3)):
        parameters = build_model(model_class, config, num_labels=num_labels).init(jax.random.key(0))
        labels = ["a", "b", "c"] if num_labels else None
        run = {"architecture": config.to_json(), "model_class": model_class, "labels": labels, "step": 1}
        write_model(tmp_path / model_class, parameters, {**run, "validation": None}, {})
    assert _convert(tmp_path / "BertForPreTraining", tmp_path / "target", "huggingface") == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("left out")]
    assert line == (
        "left out, as a ModernBERT has no such parts: bert/pooler/dense/bias, bert/pooler/dense/kernel,"
        " next_sentence/dense/bias, next_sentence/dense/kernel"
    )
    assert open_pretrained(tmp_path / "target").model_class == "BertForMaskedLM"
    assert _convert(tmp_path / "BertForTokenClassification", tmp_path / "other", "huggingface") == 2
    error = capsys.readouterr().err
    assert "ModernBERT has no head like that of a BertForTokenClassification: keep this model in" in error
    assert error.count("\n") == 1 and not (tmp_path / "other").exists()


def test_a_full_disk_is_one_line(tmp_path, capsys, exported, short_files):
    target = tmp_path / "folder" / "model"
    with short_files(4000):
        assert _convert(exported, target, "huggingface") == 2
    error = capsys.readouterr().err
    assert error == f"error: cannot write {target}: File too large; make room, or choose another\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"from": None}, "--from is missing"),
        ({"to": None}, "--to is missing"),
        ({"format": None}, "--format is missing"),
        ({"format": "onnx"}, "format"),
        ({"from": "nowhere"}, "nowhere: no such directory"),
        ({"from": "."}, "no finished checkpoint"),
        ({"to": "full"}, "--to=full exists and is not an empty folder"),
        ({"to": "full/file"}, "--to=full/file exists"),
        ({"to": "full/file/x"}, "cannot write full/file/x"),
        ({"checkpoint": "99"}, "no checkpoint of step 99"),
    ],
    ids=str,
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, finished_run, flags, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("")
    flags = {"from": finished_run, "to": "target", "format": "huggingface", **flags}
    assert main(["convert", *(f"--{name}={value}" for name, value in flags.items() if value is not None)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["full", "full/file"]


def test_an_empty_folder_may_be_the_target(tmp_path, finished_run):
    (tmp_path / "target").mkdir()
    assert _convert(finished_run, tmp_path / "target", "huggingface") == 0
    assert open_pretrained(tmp_path / "target").kind == "huggingface"


def test_filling_blanks_with_any_kind(tmp_path, capsys, finished_run, exported):
    shutil.copytree(exported, tmp_path / "masked_lm_only")
    tensors = load_file(exported / "model.safetensors")
    kept = {name: array for name, array in tensors.items() if "pooler" not in name and "seq_relationship" not in name}
    save_file(kept, tmp_path / "masked_lm_only/model.safetensors")
    assert open_pretrained(tmp_path / "masked_lm_only").model_class == "BertForMaskedLM"
    answers = []
    for model in (finished_run, exported, tmp_path / "masked_lm_only"):
        capsys.readouterr()
        assert fill_mask.main(["fill_mask", f"--model={model}", "--text=banor [MASK] kelor.", "--top_k=4"]) == 0
        # The first line says which model it is.
        answers.append(capsys.readouterr().out.partition("\n")[2])
    assert answers[0].count("%") == 4 and len(set(answers)) == 1


def test_a_model_that_predicts_no_words(tmp_path, capsys, exported):
    shutil.copytree(exported, tmp_path / "encoder")
    tensors = load_file(exported / "model.safetensors")
    save_file(
        {name: array for name, array in tensors.items() if "cls." not in name}, tmp_path / "encoder/model.safetensors"
    )
    capsys.readouterr()
    assert fill_mask.main(["fill_mask", f"--model={tmp_path / 'encoder'}", "--text=[MASK]"]) == 2
    error = capsys.readouterr().err
    assert "is a BertModel, without a head that predicts words" in error and error.count("\n") == 1


@pytest.mark.slow
def test_pre_training_goes_on_from_a_hugging_face_model(tmp_path, capsys, pretrain, exported, read_log):
    steps = ("pretrain.steps = 3", "pretrain.eval_every = 0", "pretrain.seed = 5")
    source = tmp_path / "source"
    shutil.copytree(exported, source)
    capsys.readouterr()
    assert pretrain(tmp_path / "run", *steps, init_from=str(source)) == 0
    output = capsys.readouterr().out
    assert f"weights of {source} (huggingface, BertForPreTraining):" in output
    assert "30 tensors loaded, 0 missing, 0 unexpected" in output
    assert pretrain(tmp_path / "scratch", *steps) == 0
    first, scratch = (read_log(tmp_path / name, "train")[0] for name in ("run", "scratch"))
    assert first["mlm_loss"] < scratch["mlm_loss"]
    # The same command resumes, also when its source is gone; and a damaged source is found before anything is written.
    (source / "config.json").write_text("{")
    capsys.readouterr()
    assert pretrain(tmp_path / "run", *steps, init_from=str(source)) == 0
    assert "is complete" in capsys.readouterr().out
    assert pretrain(tmp_path / "other", *steps, init_from=str(source)) == 2
    error = capsys.readouterr().err
    assert f"--init_from={source}: " in error and error.count("\n") == 1 and not (tmp_path / "other").exists()
