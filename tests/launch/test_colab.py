"""The Colab notebook: valid, without outputs, and run here, cell by cell, on one machine and then on the next."""

import contextlib
import importlib.metadata
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import types
import unittest.mock

import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_NOTEBOOK = _ROOT / "launch" / "colab" / "bert_jax_tpu.ipynb"
_STEPS = 12


def _cells(kind: str) -> dict[str, str]:
    """The source of the cells of a kind by their ids, in order."""
    cells = json.loads(_NOTEBOOK.read_text())["cells"]
    return {cell["id"]: "".join(cell["source"]) for cell in cells if cell["cell_type"] == kind}


class _Kernel:
    """Runs cells in one namespace, as a notebook does, with the few commands that this one uses (! and %).

    Launchers run in this process, so that the compiled programs of other tests serve them. pip is not run.
    """

    def __init__(self):
        self.pip: list[list[str]] = []
        self.shown: list[str] = []
        self.names = {"_shell": self._shell, "_cd": os.chdir, "_pip": lambda line: self.pip.append(shlex.split(line))}

    def show(self, image: str) -> None:
        """Takes the place of a notebook's display."""
        self.shown.append(image)

    def _shell(self, line: str) -> None:
        command = shlex.split(line)
        if command[:2] == ["python", "-m"] and command[2].startswith("launch."):
            code = importlib.import_module(command[2]).main(command[2:])
        else:
            code = subprocess.run(command).returncode
        self.names["_exit_code"] = code

    def run(self, source: str) -> None:
        for sign, name in (("!", "_shell"), ("%cd ", "_cd"), ("%pip ", "_pip")):
            # IPython fills in braces as an f-string does.
            pattern = rf"^( *){re.escape(sign)}(.*)$"
            source = re.sub(
                pattern, lambda match, name=name: f"{match[1]}{name}(f{match[2]!r})", source, flags=re.MULTILINE
            )
        # Only for the cell that asks for it: other libraries look whether they run in IPython.
        with self._displaying() if "IPython" in source else contextlib.nullcontext():
            exec(compile(source, str(_NOTEBOOK), "exec"), self.names)

    def _displaying(self):
        display = types.ModuleType("IPython.display")
        display.Image, display.display = str, self.show
        stubs = {"IPython": types.ModuleType("IPython"), "IPython.display": display}
        return unittest.mock.patch.dict(sys.modules, stubs)


@pytest.fixture
def kernel(monkeypatch):
    """A kernel; the current folder, which a notebook changes, is put back after the test."""
    monkeypatch.chdir(_ROOT)
    return _Kernel()


@pytest.fixture
def settings(monkeypatch, tmp_path, small_data):
    """What the notebook's first cell takes from the environment: a small run."""
    values = {
        "REPOSITORY": _ROOT,
        "DRIVE": tmp_path / "My Drive" / "bert_jax",
        "LOCAL": tmp_path / "local",
        "INPUT": pathlib.Path(small_data.rows_32).with_name("corpus.txt"),
        "VOCAB_SIZE": 150,
        "SEQ_LEN": 32,
        "GIN_FILE": small_data.config,
        "FLAGS": f"--gin_param=pretrain.steps={_STEPS}",
    }
    for name, value in values.items():
        monkeypatch.setenv(f"BERT_JAX_{name}", str(value))
    return types.SimpleNamespace(**values)


def test_it_is_a_notebook_of_format_4():
    nbformat = pytest.importorskip("nbformat", reason="needs nbformat: pip install nbformat")
    nbformat.validate(nbformat.read(_NOTEBOOK, as_version=nbformat.NO_CONVERT))


def test_it_holds_no_outputs():
    notebook = json.loads(_NOTEBOOK.read_text())
    assert (notebook["nbformat"], notebook["metadata"]["accelerator"]) == (4, "TPU")
    for cell in notebook["cells"]:
        assert set(cell) >= {"id", "metadata", "source", "cell_type"}
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None


def test_every_setting_can_be_overridden(kernel, settings):
    source = _cells("code")["settings"]
    kernel.run(source)
    for name in re.findall(r"^(\w+) = ", source, flags=re.MULTILINE):
        assert kernel.names[name] == str(getattr(settings, name))


def test_the_notebook_leaves_the_accelerator_to_the_training():
    for source in _cells("code").values():
        assert not re.search(r"^\s*(import|from) +(jax|bert_jax|launch|tensorflow)", source, flags=re.MULTILINE)


def test_a_failed_command_stops_the_notebook(kernel, settings, monkeypatch, capsys):
    cells = _cells("code")
    kernel.run(cells["settings"])
    kernel.names["INPUT"] = "nowhere.txt"
    with pytest.raises(RuntimeError, match="train_tokenizer has ended with code 2"):
        kernel.run(cells["prepare"])
    assert "nowhere.txt" in capsys.readouterr().err
    kernel.names["_shell"] = lambda line: kernel.names.update(_exit_code=130)
    with pytest.raises(KeyboardInterrupt, match="pretrain was stopped; run this cell again"):
        kernel.run(cells["train"])


def test_the_repository_is_to_be_named(kernel, settings, monkeypatch):
    monkeypatch.delenv("BERT_JAX_REPOSITORY")
    cells = _cells("code")
    kernel.run(cells["settings"])
    with pytest.raises(RuntimeError, match="set REPOSITORY in the first cell"):
        kernel.run(cells["code"])


def test_bars_show_on_a_terminal_that_does_not_know_its_size(monkeypatch):
    """As that of a command that Colab runs."""
    from tqdm import tqdm

    from launch.command import run

    ours, theirs = os.openpty()

    def execute(values) -> None:
        for dynamic in (True, False):
            with tqdm(total=3, desc=f"{dynamic}", dynamic_ncols=dynamic) as bar:
                bar.update(3)

    with open(theirs, "w") as terminal:
        assert os.get_terminal_size(theirs) == (0, 0)
        monkeypatch.setattr(sys, "stderr", terminal)
        run(["launcher"], "", lambda values: None, execute)
    shown = _everything_shown(ours)
    os.close(ours)
    assert "True: 100%" in shown and "False: 100%" in shown


def _everything_shown(terminal: int) -> str:
    """What was written to a terminal whose other end is closed: the kernel hands it over in parts of its choice."""
    shown = b""
    while True:
        try:
            part = os.read(terminal, 10000)
        except OSError:  # Linux's way of saying that the other end is closed and all was read.
            return shown.decode()
        if not part:
            return shown.decode()
        shown += part


@pytest.mark.slow
def test_it_trains_and_another_machine_resumes(kernel, settings, read_log, capsys):
    run = settings.DRIVE / "run"
    for source in _cells("code").values():
        kernel.run(source)
    assert "done: 12 steps" in (printed := capsys.readouterr().out) and "Return the [MASK] of the array." in printed
    assert kernel.pip == [] and kernel.shown == [f"{run}/curves.png"] and pathlib.Path(kernel.shown[0]).exists()
    whole = read_log(run)

    # The machine is gone, and with it what was trained after the last checkpoint but one.
    shutil.rmtree(settings.LOCAL)
    shutil.rmtree(run / "checkpoints" / str(_STEPS))
    last = max(int(path.name) for path in (run / "checkpoints").iterdir())
    assert 0 < last < _STEPS
    rows = (settings.DRIVE / "rows_32" / "rows.json").stat().st_mtime_ns
    for source in _cells("code").values():
        kernel.run(source)
    assert f"resuming from step {last}" in capsys.readouterr().out
    assert read_log(run) == whole
    assert (settings.DRIVE / "rows_32" / "rows.json").stat().st_mtime_ns == rows


@pytest.fixture
def distributions(monkeypatch):
    """What is installed, as the notebook sees it: a dict that the test fills."""
    found: dict[str, str] = {}

    def version(name: str) -> str:
        if name not in found:
            raise importlib.metadata.PackageNotFoundError(name)
        return found[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    return found


_COLAB = {"jax": "0.10.2", "jaxlib": "0.10.2", "libtpu": "0.0.30", "numpy": "2.4.1", "tensorflow": "2.21.0"}


def _install(kernel, **change) -> str:
    cells = _cells("code")
    for name in ("settings", "code", "install"):
        kernel.run(cells[name])
    return (pathlib.Path(kernel.names["LOCAL"]) / "kept.txt").read_text()


def test_what_colab_brings_is_kept(kernel, settings, distributions):
    distributions |= _COLAB | {"absl-py": "2.3.0", "flax": "0.9.0"}
    constraints = _install(kernel)
    assert sorted(constraints.split()) == sorted(f"{name}=={version}" for name, version in _COLAB.items())
    (command,) = kernel.pip
    install, *options = command
    assert install == "install" and options[:3] == ["--quiet", "--constraint", f"{settings.LOCAL}/kept.txt"]
    wanted = options[3:]
    names = {re.match(r"[\w-]+(\[\w+\])?", one)[0] for one in wanted}
    # flax is too old; TensorFlow's other package would write over the one that is there.
    assert {"flax", "optax", "orbax-checkpoint", "gin-config", "etils[epath]"} <= names
    assert not names & {"jax", "numpy", "absl-py", "tensorflow-cpu", "tensorflow"}
    assert "flax<0.13,>=0.12" in wanted or "flax>=0.12,<0.13" in wanted


def test_where_colab_does_not_fit_nothing_is_installed(kernel, settings, distributions):
    distributions |= _COLAB | {"jax": "0.4.30"}
    with pytest.raises(RuntimeError, match=r"bert_jax needs jax.* and Colab has 0\.4\.30"):
        _install(kernel)
    assert kernel.pip == []


def test_a_changed_jax_is_noticed(kernel, settings, distributions, monkeypatch):
    distributions |= _COLAB
    kernel.names["_pip"] = lambda line: distributions.update(jax="0.11.0")
    with pytest.raises(RuntimeError, match="installing has changed jax"):
        _install(kernel)
