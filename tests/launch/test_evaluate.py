"""python -m launch.evaluate: the scores of a run's own evaluation, for every kind of model."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest
from safetensors.numpy import load_file, save_file

from launch.convert import main as convert
from launch.evaluate import main

_ROOT = pathlib.Path(__file__).resolve().parents[2]
# By metric, the row of the table and which of the baselines it shows; beside them there is the perplexity.
_ROWS = {
    "mlm_accuracy": ("masked-LM accuracy", "_copier_baseline"),
    "mlm_hidden_accuracy": ("where the answer is hidden", "_baseline"),
    "mlm_loss": ("masked-LM loss (nats)", "_copier_baseline"),
    "mlm_hidden_loss": ("of hidden words", "_baseline"),
    "mlm_hidden_nats_per_character": ("of these, per character", "_baseline"),
    "nsp_accuracy": ("next-sentence accuracy", "_baseline"),
    "nsp_loss": ("next-sentence loss (nats)", None),
}


def _table(printed: str) -> dict[str, tuple[float, float]]:
    """The two numbers of each row."""
    found = re.findall(r"^ *(\S.*?) {2,}([\d.]+) +([\d.]+)  ", printed, flags=re.MULTILINE)
    return {name: (float(model), float(baseline)) for name, model, baseline in found}


@pytest.fixture(scope="module")
def hugging_face_model(tmp_path_factory, finished_run) -> pathlib.Path:
    target = tmp_path_factory.mktemp("converted") / "model"
    assert convert(["convert", f"--from={finished_run}", f"--to={target}", "--format=huggingface"]) == 0
    return target


def test_a_run_scores_as_it_did_while_training(capsys, finished_run, small_data, read_log):
    last = read_log(finished_run, "validation")[-1]
    arguments = [f"--data_dir={small_data.rows_32}", "--batch_size=4", "--max_rows=8"]
    assert main(["evaluate", f"--model={finished_run}", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "bert_jax, BertForPreTraining, step 12" in printed
    table = _table(printed)
    for name, (row, baseline) in _ROWS.items():
        assert table[row][0] == pytest.approx(last[name], abs=6e-5), name
        if baseline:
            assert table[row][1] == pytest.approx(last[name + baseline], abs=6e-5)
    # Twelve steps teach nothing.
    assert "is not below that of their frequencies alone" in printed or "by counting" in printed


_ANOTHER_MASKING = (
    "Masking.masked_lm_prob = 0.4",
    "Masking.mask_share = 0.5",
    "pretrain.seed = 3",
    "pretrain.steps = 2",
)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_run_with_another_masking_scores_bit_for_bit_as_it_did(
    tmp_path, monkeypatch, capsys, pretrain, small_data, read_log, dtype
):
    assert pretrain(tmp_path, *_ANOTHER_MASKING, f"Execution.dtype = '{dtype}'") == 0
    last = read_log(tmp_path, "validation")[-1]
    found = []
    monkeypatch.setattr("bert_jax.tasks.pretraining_report.format_evaluation", lambda metrics: found.append(metrics))
    arguments = [f"--model={tmp_path}", f"--data_dir={small_data.rows_32}", "--batch_size=4", "--max_rows=8"]
    capsys.readouterr()
    assert main(["evaluate", *arguments]) == 0
    assert found[0] == {name: value for name, value in last.items() if name not in ("step", "split")}
    line = "masks: 0.4 of the tokens (0.5 [MASK], 0.1 as they are, 0.4 other words), seed"
    assert f"{line} 3; those of the run's own evaluations" in capsys.readouterr().out
    assert main(["evaluate", *arguments, "--seed=4"]) == 0
    assert f"{line} 4; drawn anew by --seed, and those of the run have seed 3" in capsys.readouterr().out
    assert found[1]["mlm_loss"] != found[0]["mlm_loss"]


def test_a_model_that_does_not_say_its_masking_gets_the_yardstick_and_that_is_said(
    capsys, hugging_face_model, small_data
):
    assert main(["evaluate", f"--model={hugging_face_model}", f"--data_dir={small_data.rows_32}"]) == 0
    line = "masks: 0.15 of the tokens (1 [MASK], 0 as they are, 0 other words), seed 0; the yardstick"
    out = capsys.readouterr().out
    assert line in out and "since the model does not say its own" in out


def test_the_yardstick_is_the_same_for_runs_with_other_masks(tmp_path, capsys, pretrain, finished_run, small_data):
    """Fifteen tokens of a hundred, all of them hidden, whatever the run itself masks: the baselines are equal."""
    other = tmp_path / "other"
    assert pretrain(other, *_ANOTHER_MASKING) == 0
    tables = []
    for run in (finished_run, other):
        capsys.readouterr()
        arguments = ["evaluate", f"--model={run}", f"--data_dir={small_data.rows_32}", "--masking=yardstick"]
        assert main(arguments) == 0
        printed = capsys.readouterr().out
        line = "masks: 0.15 of the tokens (1 [MASK], 0 as they are, 0 other words), seed 0; the yardstick"
        assert line in printed
        tables.append(_table(printed))
    for table in tables:
        assert table["masked-LM loss (nats)"] == table["of hidden words"]
    baselines = [{name: baseline for name, (_, baseline) in table.items()} for table in tables]
    assert baselines[0] == baselines[1] and tables[0] != tables[1]


def test_a_converted_model_scores_the_same(capsys, finished_run, hugging_face_model, small_data):
    tables = []
    for model in (finished_run, hugging_face_model):
        capsys.readouterr()
        assert main(["evaluate", f"--model={model}", f"--data_dir={small_data.rows_32}", "--masking=yardstick"]) == 0
        printed = capsys.readouterr()
        assert printed.err == ""
        tables.append(_table(printed.out))
    assert tables[0] == tables[1] and len(tables[0]) == len(_ROWS) + 1


def test_a_model_without_a_next_sentence_head(tmp_path, capsys, hugging_face_model, small_data):
    target = tmp_path / "masked_lm"
    target.mkdir()
    for path in hugging_face_model.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    config = json.loads((target / "config.json").read_text())
    config["architectures"] = ["BertForMaskedLM"]
    (target / "config.json").write_text(json.dumps(config))
    tensors = load_file(target / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if "pooler" not in name and "seq_relationship" not in name}
    assert len(kept) == len(tensors) - 4
    save_file(kept, target / "model.safetensors", {"format": "pt"})
    assert main(["evaluate", f"--model={hugging_face_model}", f"--data_dir={small_data.rows_32}"]) == 0
    whole = _table(capsys.readouterr().out)
    assert main(["evaluate", f"--model={target}", f"--data_dir={small_data.rows_32}"]) == 0
    table = _table(capsys.readouterr().out)
    assert table == {name: values for name, values in whole.items() if not name.startswith("next-sentence")}
    assert len(table) == len(_ROWS) - 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"model": None}, "--model is missing"),
        ({"data_dir": None}, "--data_dir is missing"),
        ({"model": "nowhere"}, "no model at"),
        ({"data_dir": "nowhere"}, "no rows at"),
        ({"batch_size": 0}, "--batch_size=0"),
        ({"max_rows": 0}, "--max_rows=0"),
        ({"split": "test"}, "split"),
        ({"masking": "whole_word"}, "--masking=whole_word"),
        ({"data_dir": "other_rows_32"}, "another tokenizer"),
    ],
    ids=str,
)
def test_bad_input_is_one_line(capsys, finished_run, small_data, flags, message):
    values = {"model": finished_run, "data_dir": small_data.rows_32, **flags}
    if values["data_dir"] == "other_rows_32":
        values["data_dir"] = small_data.other_rows_32
    capsys.readouterr()
    assert main(["evaluate", *(f"--{name}={value}" for name, value in values.items() if value is not None)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error


def test_a_model_without_a_masked_lm_head(tmp_path, capsys, hugging_face_model, small_data):
    target = tmp_path / "encoder"
    target.mkdir()
    for path in hugging_face_model.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    tensors = load_file(target / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("cls.")}
    save_file(kept, target / "model.safetensors", {"format": "pt"})
    assert main(["evaluate", f"--model={target}", f"--data_dir={small_data.rows_32}"]) == 2
    error = capsys.readouterr().err
    assert "is a BertModel, without a masked-LM head" in error and error.count("\n") == 1


@pytest.mark.slow
def test_as_a_command(tmp_path, finished_run, small_data):
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    command = [sys.executable, "-m", "launch.evaluate", f"--model={finished_run}", f"--data_dir={small_data.rows_32}"]
    good = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert good.returncode == 0 and len(_table(good.stdout)) == len(_ROWS) + 1
    bad = subprocess.run([*command, "--max_rows=0"], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert bad.returncode == 2 and bad.stderr == "error: --max_rows=0: 0 is not a positive integer\n"
