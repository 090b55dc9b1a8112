"""The documentation names tests and settings that exist."""

import dataclasses
import pathlib
import re

import pytest

from bert_jax.config import BertConfig
from bert_jax.data.masking_recipe import Masking
from bert_jax.models.execution import Execution
from bert_jax.training.recipe import Optimizer, Schedule

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_PAGES = sorted([*(_ROOT / "docs").glob("*.md"), _ROOT / "README.md"])
_SETTINGS = {cls.__name__: cls for cls in (BertConfig, Masking, Execution, Optimizer, Schedule)}


@pytest.mark.parametrize("page", _PAGES, ids=lambda path: path.name)
def test_named_tests_exist(page):
    for file, name in re.findall(r"`(?:tests/)?([\w/]+\.py)::(\w+)`", page.read_text()):
        source = (_ROOT / "tests" / file).read_text()
        assert re.search(rf"^def {name}\(", source, flags=re.MULTILINE), f"{file}::{name}"
    for file in re.findall(r"`(?:tests/)?([\w/]*test_\w+\.py)`", page.read_text()):
        assert any((_ROOT / "tests").rglob(file)), file
    for file in re.findall(r"`((?:tests/|docs/|gin_configs/|launch/)[\w./]+\.\w+)`", page.read_text()):
        assert (_ROOT / file).exists(), file


@pytest.mark.parametrize("page", _PAGES, ids=lambda path: path.name)
def test_named_settings_exist(page):
    for cls, field in re.findall(r"\b(BertConfig|Masking|Execution|Optimizer|Schedule)\.(\w+)", page.read_text()):
        assert field in {known.name for known in dataclasses.fields(_SETTINGS[cls])}, f"{cls}.{field}"


def test_the_comparison_with_the_paper_names_a_test_in_every_row():
    rows = [line for line in (_ROOT / "docs/is_this_bert.md").read_text().splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not row.startswith(("| detail ", "| option "))]
    assert len(rows) > 30
    for row in rows:
        assert re.search(r"`[\w/]+\.py(::\w+)?` \|$", row), row
