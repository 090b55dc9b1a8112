"""Files that every version of bert_jax has written open, and its runs go on with what they were begun with."""

import json
import pathlib
import shutil
import tarfile

import pytest

from bert_jax.data.rows import open_rows
from bert_jax.numerics import Numerics
from bert_jax.text.tokenizers import load_tokenizer
from bert_jax.training.run_identity import read_identity
from launch.evaluate import main as evaluate
from launch.fill_mask import main as fill_mask
from launch.finetune import main as finetune
from launch.predict import main as predict
from launch.pretrain import main as pretrain
from tests.artefacts.make_artefacts import finetuning, pretraining

_ARCHIVES = sorted(pathlib.Path(__file__).parent.glob("*.tar.xz"))
assert _ARCHIVES, "the archives are part of the repository"


@pytest.fixture(scope="module", params=_ARCHIVES, ids=lambda path: path.name.partition(".")[0])
def artefacts(request, tmp_path_factory) -> pathlib.Path:
    """The files of one version, unpacked; not to be changed."""
    folder = tmp_path_factory.mktemp("artefacts")
    with tarfile.open(request.param) as archive:
        archive.extractall(folder, filter="data")
    return folder / request.param.name.removesuffix(".tar.xz")


def test_tokenizers_and_rows_open(artefacts):
    for kind in ("wordpiece", "sentencepiece"):
        tokenizer = load_tokenizer(artefacts / kind)
        ids = tokenizer.encode_batch(["banor kelor luna."])[0]
        assert tokenizer.kind == kind and ids and tokenizer.unk_id not in ids
    store = open_rows(artefacts / "rows")
    assert store.num_rows("train") > 100 and store.num_rows("validation") > 0
    assert len(store.read("train", range(store.num_rows("train")))) == store.num_rows("train")


def _log(workdir: pathlib.Path) -> list[dict]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


def _go_back(artefacts: pathlib.Path, folder: pathlib.Path, run: str, step: int) -> pathlib.Path:
    """Copies all, and takes back the run's steps after one."""
    copy = folder / "copy"
    shutil.copytree(artefacts, copy)
    for checkpoint in (copy / run / "checkpoints").iterdir():
        if int(checkpoint.name) > step:
            shutil.rmtree(checkpoint)
    return copy


@pytest.mark.parametrize(
    ("name", "step", "main", "arguments"),
    [("pretrained", 3, pretrain, pretraining), ("finetuned", 3, finetune, finetuning)],
    ids=["pretrained", "finetuned"],
)
def test_runs_go_on(artefacts, tmp_path, capsys, name, step, main, arguments):
    """To the same losses, up to what another machine rounds; the model that one began with is no longer there."""
    folder = _go_back(artefacts, tmp_path, name, step)
    assert main(arguments(folder)) == 0
    assert f"resuming from step {step}" in capsys.readouterr().out
    before, after = _log(artefacts / name), _log(folder / name)
    assert [line["step"] for line in after] == [line["step"] for line in before]
    for old, new in zip(before, after, strict=True):
        assert new["loss"] == pytest.approx(old["loss"], rel=1e-2 if name == "finetuned" else 1e-4)
    identity = read_identity(folder / name)
    assert identity == read_identity(artefacts / name)
    assert Numerics.of_run(identity).version == int(artefacts.name.rpartition("_")[2])


def test_models_answer(artefacts, tmp_path, capsys):
    assert fill_mask(["fill_mask", f"--model={artefacts}/pretrained", "--text=banor [MASK]."]) == 0
    assert evaluate(["evaluate", f"--model={artefacts}/pretrained", f"--data_dir={artefacts}/rows"]) == 0
    assert "those of the run's own evaluations" in capsys.readouterr().out
    answers = []
    for model in ("finetuned", "converted"):
        output = tmp_path / f"{model}.jsonl"
        arguments = [f"--model={artefacts}/{model}", f"--input={artefacts}/dev.csv", f"--output={output}"]
        assert predict(["predict", *arguments, *(["--checkpoint=latest"] if model == "finetuned" else [])]) == 0
        answers.append([json.loads(line)["label"] for line in output.read_text().splitlines()])
    assert answers[0] == answers[1] and len(answers[0]) == 16
