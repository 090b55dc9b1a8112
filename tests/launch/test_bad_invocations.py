"""Whatever is wrong with an invocation: one line that names it, exit code 2, at once, and nothing is written."""

import gzip
import importlib
import itertools
import json
import pathlib
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

_here = pathlib.Path(__file__).with_name("bad_invocations.py")
_specification = importlib.util.spec_from_file_location("bad_invocations", _here)
_table = importlib.util.module_from_spec(_specification)
_specification.loader.exec_module(_table)


def _write_model(folder: pathlib.Path, tokenizer: pathlib.Path, vocab_size: int, is_classifier: bool) -> None:
    """Writes a small BERT as Hugging Face does, all zeros: nothing is computed with it."""
    shutil.copytree(tokenizer, folder)
    hidden, positions = 16, 64
    config = {
        "model_type": "bert",
        "architectures": ["BertForSequenceClassification" if is_classifier else "BertForMaskedLM"],
        "vocab_size": vocab_size,
        "hidden_size": hidden,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": positions,
        "id2label": {"0": "no", "1": "yes"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    shapes = {
        "bert.embeddings.word_embeddings.weight": (vocab_size, hidden),
        "bert.embeddings.position_embeddings.weight": (positions, hidden),
        "bert.embeddings.token_type_embeddings.weight": (2, hidden),
    }
    layer = "bert.encoder.layer.0."
    norms = ["bert.embeddings", f"{layer}attention.output", f"{layer}output"]
    dense = {f"{layer}attention.self.{name}": (hidden, hidden) for name in ("query", "key", "value")}
    dense |= {
        f"{layer}attention.output.dense": (hidden, hidden),
        f"{layer}intermediate.dense": (32, hidden),
        f"{layer}output.dense": (hidden, 32),
    }
    if is_classifier:
        dense |= {"bert.pooler.dense": (hidden, hidden), "classifier": (2, hidden)}
    else:
        dense |= {"cls.predictions.transform.dense": (hidden, hidden)}
        norms.append("cls.predictions.transform")
        shapes["cls.predictions.bias"] = (vocab_size,)
    for name in norms:
        shapes |= {f"{name}.LayerNorm.weight": (hidden,), f"{name}.LayerNorm.bias": (hidden,)}
    for name, shape in dense.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, folder / "model.safetensors")


@pytest.fixture(scope="session")
def material(tmp_path_factory, small_data) -> dict[str, str]:
    """Paths of files and folders, sound and not, by the names that the table has for them."""
    root = tmp_path_factory.mktemp("material")
    data = pathlib.Path(small_data.rows_32).parent
    tokenizer = data / "tokenizer"
    vocab_size = json.loads((tokenizer / "bert_jax_tokenizer.json").read_text())["vocab_size"]

    def damaged(source: pathlib.Path, name: str, file: str) -> None:
        shutil.copytree(source, root / name)
        (found,) = (root / name).glob(file)
        content = bytearray(found.read_bytes())
        content[len(content) // 2] ^= 255
        found.write_bytes(content if file.startswith("bert_rows") else b"{")

    _write_model(root / "model", tokenizer, vocab_size, is_classifier=False)
    _write_model(root / "classifier", tokenizer, vocab_size, is_classifier=True)
    damaged(root / "model", "damaged_model", "config.json")
    damaged(tokenizer, "damaged_tokenizer", "bert_jax_tokenizer.json")
    damaged(pathlib.Path(small_data.rows_32), "damaged_rows", "rows.json")
    damaged(pathlib.Path(small_data.rows_32), "changed_rows", "bert_rows-train*")
    (root / "empty").touch()
    (root / "empty_folder").mkdir()
    (root / "binary").write_bytes(bytes(range(256)) * 40)
    (root / "loop").symlink_to("loop")
    (root / "torn_gz").write_bytes(gzip.compress(b"one two three\n" * 500)[:-20])
    (root / "latin").write_bytes("Ein Café, naïv und schön.\n".encode("latin-1") * 3)
    (root / "torn_gin").write_text("pretrain.steps = [1,\n")
    (root / "words").write_text("kernel\nlo-fi\n")
    rows = "".join(f"{word} {number},{('no', 'yes')[number % 2]}\n" for number, word in enumerate(["bar", "ken"] * 10))
    (root / "table.csv").write_text("text,label\n" + rows)
    (root / "headless").write_text(rows)
    (root / "tasks.json").write_text(json.dumps({"a": {"train": "nowhere.csv", "dev": "nowhere.csv"}}))
    paths = {path.name.partition(".")[0]: str(path) for path in root.iterdir()}
    return {
        **paths,
        "text": str(data / "corpus.txt"),
        "tokenizer": str(tokenizer),
        "vocabulary": str(tokenizer / "vocab.txt"),
        "rows": small_data.rows_32,
        "rows_64": small_data.rows_64,
        "other_rows": small_data.other_rows_32,
        "gin": small_data.config,
    }


def _filled_in(text: str, names: dict[str, str]) -> str:
    for name, path in names.items():
        text = text.replace("{" + name + "}", path)
    return text


def _listed(root: pathlib.Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.lstat().st_mtime_ns) for path in root.rglob("*"))


def _name(invocation) -> str:
    launcher, changed, _ = invocation
    flags = " ".join(f"{name}={value}"[:40] for name, value in changed.items())
    return f"{launcher} {flags}".encode("ascii", "replace").decode()


@pytest.mark.parametrize("invocation", _table.INVOCATIONS, ids=_name)
def test_it_is_one_line_and_nothing_is_written(tmp_path, monkeypatch, capfd, material, repository_root, invocation):
    launcher, changed, named = invocation
    flags = {**_table.GOOD[launcher], **changed}
    given = [
        (name, one) for name, values in flags.items() for one in (values if isinstance(values, list) else [values])
    ]
    arguments = [f"--{name}={_filled_in(one, material)}" for name, one in given if one is not None]
    last = next((str(one) for one in reversed(list(changed.values())) if one), "")
    named = named.replace("{value}", last)
    named = _filled_in(named, material).encode("utf-8", "backslashreplace").decode()
    main = importlib.import_module(f"launch.{launcher}").main
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    before = _listed(pathlib.Path(material["empty"]).parent)
    capfd.readouterr()
    code = main([launcher, *arguments])
    error = capfd.readouterr().err
    # Without a bar of how far the reading came.
    error = "\n".join(line for line in error.split("\n") if "\r" not in line)
    assert code == 2, error
    assert error.startswith("error: ") and error.count("\n") == 1, error
    assert len(error) < 1500 and "Traceback" not in error and "object at 0x" not in error
    assert named[:200] in error, error
    assert _listed(tmp_path / "work") == []
    assert _listed(pathlib.Path(material["empty"]).parent) == before


def test_there_are_many_and_none_is_there_twice():
    invocations = [(launcher, sorted(changed.items(), key=str)) for launcher, changed, _ in _table.INVOCATIONS]
    assert len(invocations) >= 150
    assert all(one != other for one, other in itertools.combinations(invocations, 2))


def test_every_flag_of_every_launcher_is_wrong_once():
    from absl import flags as absl_flags

    for launcher, table in _table.TABLES.items():
        values = absl_flags.FlagValues()
        importlib.import_module(f"launch.{launcher}").define_flags(values)
        tried = {name for changed, _ in table for name in changed}
        # Of these, nothing can be wrong; the folder of the cache is made with that of the run.
        assert set(values) - tried <= {"allow_schedule_change", "compilation_cache_dir"}, launcher
