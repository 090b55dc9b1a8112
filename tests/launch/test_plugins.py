"""Code of others: loaded by an installed name alone; a configuration can then use what it registers."""

import importlib

import pytest
from absl import flags

from bert_jax.errors import UserError
from bert_jax.training.run_identity import check_identity
from launch import plugins
from launch.configuration import load_pretrain
from launch.plugins import define_plugin_flag, load_plugins, plugin_identity

_MODULE = """
from launch.configuration import register

def doubled(steps: int) -> int:
    return 2 * steps

def plugin():
    register("doubled", doubled, module="mine")

def broken():
    raise RuntimeError("no such\\ndevice")
"""
_ENTRY_POINTS = (
    "[bert_jax.plugins]\nmine = plugin_of_a_test:plugin\nbroken = plugin_of_a_test:broken\ngone = nowhere:x\n"
)
_RUN = ["pretrain.steps = @doubled()", "doubled.steps = 7", "pretrain.batch_size = 8"]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Installs a package as pip would: its module, and what it says of itself."""
    (tmp_path / "plugin_of_a_test.py").write_text(_MODULE)
    described = tmp_path / "plugin_of_a_test-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Name: plugin-of-a-test\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text(_ENTRY_POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(plugins, "_loaded", set())
    importlib.invalidate_caches()


def test_a_configuration_uses_what_a_plugin_registers_once_it_was_asked_for(installed):
    with pytest.raises(UserError, match=r"unknown name 'doubled' .*need --plugin=NAME"):
        load_pretrain([], _RUN)
    load_plugins(["mine", "mine"])
    recipe, text = load_pretrain([], _RUN)
    assert recipe.steps == 14 and "doubled.steps = 7" in text
    with pytest.raises(UserError, match=r"doubled.steps must be a whole number, not 'x'"):
        load_pretrain([], [*_RUN, "doubled.steps = 'x'"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("other", "--plugin=other: no plugin of that name is installed; installed are broken, gone, mine"),
        ("broken", "--plugin=broken cannot be loaded (RuntimeError: no such device): mend or update its package"),
        ("gone", "--plugin=gone cannot be loaded (ModuleNotFoundError: No module named 'nowhere')"),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_one_line(installed, name, message):
    with pytest.raises(UserError) as error:
        load_plugins([name])
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_none_is_installed_here():
    with pytest.raises(UserError, match="--plugin=mine: no plugin of that name is installed"):
        load_plugins(["mine"])


def test_a_resumed_run_says_which_plugin_is_missing(tmp_path):
    def identity(*arguments):
        values = flags.FlagValues()
        define_plugin_flag(values)
        values(["launcher", *arguments])
        return {"steps": 3, **plugin_identity(values)}

    options = {"last_steps": "steps", "schedule_depends_on_steps": False, "allow_schedule_change": False}
    check_identity(tmp_path, {"steps": 3}, identity(), **options)
    with pytest.raises(UserError, match=r"plugin is None, but the run in .* has \['mine'\]: set it back"):
        check_identity(tmp_path, identity("--plugin=mine", "--plugin=mine"), identity(), **options)
