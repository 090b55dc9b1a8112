"""Killed at any operation on its files, a verb loses nothing; and the tool that says so finds what is lost.

The long campaign is `python -m benchmarks.faults.kills`; its figures are in docs/reliability.md.
"""

import pathlib
import shutil
import signal

import pytest

from benchmarks.faults.kills import Killer, build, campaign
from benchmarks.faults.verbs import VERBS, Verb


@pytest.fixture
def killing(tmp_path) -> pathlib.Path:
    """An empty folder for a campaign; skipped where there is no C compiler."""
    if not (shutil.which("cc") or shutil.which("gcc")):
        pytest.skip("needs a C compiler, for the library that kills")
    folder = tmp_path / "campaign"
    folder.mkdir()
    return folder


def _verb(manner: str) -> Verb:
    def parts(output: pathlib.Path) -> dict[str, int]:
        return {path.name: path.stat().st_size for path in sorted(output.iterdir())}

    def check(output: pathlib.Path) -> int:
        if not output.exists():
            return 0
        assert parts(output) == {f"part_{number}": 1000 for number in range(5)}
        return 1

    return Verb("tests.faults.careless_verb", lambda _, output: [manner, str(output)], parts, check)


def test_every_operation_can_be_the_last(killing, tmp_path):
    killer = Killer(_verb("careful"), tmp_path, build(killing), killing)
    code, operations, _ = killer.run(tmp_path / "whole")
    assert code == 0 and operations > 15
    halves = 0
    for moment in range(1, operations + 1):
        output = tmp_path / str(moment) / "output"
        output.parent.mkdir()
        code, reached, _ = killer.run(output, moment)
        assert (code, reached) == (-signal.SIGKILL, moment)
        halves += any(path.stat().st_size == 500 for path in output.parent.rglob("part_*"))
        _verb("careful").check(output)
    assert halves == 5


def test_what_is_lost_is_found(killing, tmp_path):
    with pytest.raises(AssertionError):
        campaign(_verb("careless"), tmp_path, killing, kills=10, seed=0)
    shutil.rmtree(killing)
    killing.mkdir()
    assert campaign(_verb("careful"), tmp_path, killing, kills=10, seed=0)["kills"] >= 10


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["pretrain", "prepare", "convert"])
def test_killed_at_any_moment_a_verb_loses_nothing(killing, inputs, verb):
    assert campaign(VERBS[verb], inputs, killing, kills=2, seed=3)["kills"] >= 2
