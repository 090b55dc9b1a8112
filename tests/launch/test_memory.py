"""Models and batches that do not fit into memory: one line, before anything of them is made."""

import pytest

from bert_jax.parallel import memory
from launch.evaluate import main as evaluate
from launch.finetune import main as finetune
from launch.mesh_flags import MOST_ROWS
from launch.predict import main as predict

_HUGE = 2_000_000_000


@pytest.fixture
def refused(capsys):
    """Takes an exit code; returns the line on standard error."""

    def line(code):
        assert code == 2
        (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert "not enough memory: " in said and "iB are needed" in said
        return said

    return line


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("memory") / "table.csv"
    path.write_text("text,label\n" + "bob fed al,no\nkala is in mu,yes\n" * 4)
    return path


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, table, repository_root, finetuning):
    workdir = tmp_path_factory.mktemp("tuned") / "run"
    model = repository_root / "tests" / "golden" / "BertModel"
    tune = finetuning(train=table, dev=table, init_from=model, epochs=1, batch_size=8, max_seq_len=16)
    assert tune(workdir) == 0
    return workdir


@pytest.mark.parametrize(
    ("binding", "part"),
    [
        ("BertConfig.hidden_size = 4000000", r"parameters 5"),
        ("BertConfig.max_position_embeddings = 2000000000", "parameters"),
        (f"pretrain.batch_size = {_HUGE}", "a batch "),
    ],
)
def test_pretraining(tmp_path, pretrain, refused, binding, part):
    assert part in refused(pretrain(tmp_path / "run", binding))
    assert not (tmp_path / "run").exists()


def test_a_dry_run(tmp_path, pretrain, refused):
    assert "a batch " in refused(pretrain(tmp_path, f"pretrain.batch_size = {_HUGE}", dry_run=True))


def test_a_step_whose_arithmetic_does_not_fit(tmp_path, pretrain, refused, monkeypatch):
    """State and batch do."""
    monkeypatch.setattr(memory, "host_memory", lambda: 200_000)
    assert "within a step" in refused(pretrain(tmp_path))


def test_evaluation_of_rows(finished_run, small_data, refused, monkeypatch):
    arguments = [f"--model={finished_run}", f"--data_dir={small_data.rows_32}"]
    monkeypatch.setattr(memory, "host_memory", lambda: 100_000_000)
    assert "lower --batch_size" in refused(evaluate(["evaluate", *arguments, f"--batch_size={MOST_ROWS}"]))
    monkeypatch.setattr(memory, "host_memory", lambda: 150_000)
    assert "within a step" in refused(evaluate(["evaluate", *arguments]))


def test_fine_tuning(tmp_path, table, repository_root, refused):
    arguments = [f"--train={table}", f"--dev={table}", f"--workdir={tmp_path / 'run'}", f"--batch_size={_HUGE}"]
    model = f"--init_from={repository_root / 'tests' / 'golden' / 'BertModel'}"
    arguments.append("--max_seq_len=16")
    assert "lower the batch size" in refused(finetune(["finetune", model, *arguments]))


def test_use_of_a_fine_tuned_model(tmp_path, table, tuned, refused, monkeypatch):
    monkeypatch.setattr(memory, "host_memory", lambda: 100_000_000)
    arguments = [f"--model={tuned}", f"--input={table}", f"--batch_size={MOST_ROWS}"]
    assert "lower the batch size" in refused(evaluate(["evaluate", *arguments]))
    output = tmp_path / "predictions.jsonl"
    assert "lower the batch size" in refused(predict(["predict", *arguments, f"--output={output}"]))
    assert not list(tmp_path.iterdir())
