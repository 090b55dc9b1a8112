"""Pre-training without the second task: a BertForMaskedLM that everything else opens."""

import pytest

from bert_jax.interop.pretrained import open_pretrained
from bert_jax.training.initialization import paths
from launch.convert import main as convert
from launch.evaluate import main as evaluate
from launch.fill_mask import main as fill_mask


@pytest.fixture(scope="module")
def masked_only_run(tmp_path_factory, pretrain):
    workdir = tmp_path_factory.mktemp("masked_only") / "run"
    assert pretrain(workdir, "pretrain.next_sentence = False") == 0
    return workdir


def test_neither_log_nor_checkpoint_has_a_second_task(masked_only_run, finished_run, read_log):
    for split in ("train", "validation"):
        ours, usual = (read_log(run, split)[-1].keys() for run in (masked_only_run, finished_run))
        assert ours == {name for name in usual if not name.startswith("nsp_")}
    model = open_pretrained(masked_only_run)
    assert model.model_class == "BertForMaskedLM"
    usual = paths(open_pretrained(finished_run).load_parameters())
    without = {name for name in usual if not name.startswith(("next_sentence/", "bert/pooler/"))}
    assert paths(model.load_parameters()).keys() == without


def test_it_begins_resumes_and_ends_as_one_run(tmp_path, masked_only_run, pretrain, read_log, capsys):
    bindings = ("pretrain.next_sentence = False", "Schedule.kind = 'constant'", "Schedule.warmup_steps = 0")
    assert pretrain(tmp_path / "whole", *bindings, "pretrain.steps = 6") == 0
    assert pretrain(tmp_path / "cut", *bindings, "pretrain.steps = 3") == 0
    assert pretrain(tmp_path / "cut", *bindings, "pretrain.steps = 6") == 0
    assert read_log(tmp_path / "cut", "train") == read_log(tmp_path / "whole", "train")
    capsys.readouterr()
    assert pretrain(masked_only_run) == 2
    assert "pretrain.next_sentence" in capsys.readouterr().err


def test_evaluation_fills_and_conversion_open_it(tmp_path, masked_only_run, small_data, capsys):
    assert evaluate(["evaluate", f"--model={masked_only_run}", f"--data_dir={small_data.rows_32}"]) == 0
    table = capsys.readouterr().out
    assert "of hidden words" in table and "next-sentence" not in table
    exported = tmp_path / "exported"
    assert convert(["convert", f"--from={masked_only_run}", f"--to={exported}", "--format=huggingface"]) == 0
    assert open_pretrained(exported).model_class == "BertForMaskedLM"
    answers = []
    for model in (masked_only_run, exported):
        capsys.readouterr()
        assert fill_mask(["fill_mask", f"--model={model}", "--text=bana [MASK] kera"]) == 0
        answers.append(capsys.readouterr().out.splitlines()[1:])
    assert answers[0] == answers[1] and answers[0]


def test_tasks_and_both_kinds_of_pre_training_begin_with_its_weights(
    tmp_path, masked_only_run, finished_run, pretrain, finetuning, capsys
):
    (tmp_path / "train.csv").write_text(
        "text,label\n" + "".join(f"{word} kera,{word}\n" for word in ("bana", "mita") * 4)
    )
    files = {"train": tmp_path / "train.csv", "dev": tmp_path / "train.csv", "init_from": masked_only_run}
    assert finetuning(epochs=1, batch_size=4, max_seq_len=16, **files)(tmp_path / "tuned") == 0
    assert "missing:    bert/pooler/dense/kernel (keeps its initial value)" in capsys.readouterr().out
    assert pretrain(tmp_path / "with", "pretrain.steps = 1", init_from=masked_only_run) == 0
    assert "missing:    next_sentence/dense/kernel" in capsys.readouterr().out
    assert (
        pretrain(tmp_path / "less", "pretrain.steps = 1", "pretrain.next_sentence = False", init_from=finished_run) == 0
    )
    assert "unexpected: bert/pooler/dense/kernel (not used)" in capsys.readouterr().out
