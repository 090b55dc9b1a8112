"""A power cut takes nothing that was announced; and the tool that says so finds what it takes.

The long campaign is `python -m benchmarks.faults.power_cuts`; its figures are in docs/reliability.md.
"""

import pathlib

import pytest

from benchmarks.faults.power_cuts import Cutter, Disk, check_possible
from bert_jax.durable_files import write_file


@pytest.fixture
def disks(tmp_path) -> pathlib.Path:
    """An empty folder for disks; skipped where they cannot be made."""
    try:
        check_possible(tmp_path / "try")
    except OSError as error:
        pytest.skip(f"needs to mount file systems of its own: {error}")
    return tmp_path


def test_a_cut_takes_what_was_not_synced(disks):
    disk = Disk(disks / "disk")
    with disk.mounted() as path:
        write_file(path / "synced", b"1" * 5000)
        (path / "not").write_bytes(b"1" * 5000)
        after = Disk(disks / "after", disk.image)
        with after.mounted() as left:
            assert (left / "synced").read_bytes() == b"1" * 5000
            assert not (left / "not").exists() or (left / "not").stat().st_size == 0


@pytest.mark.slow
def test_a_power_cut_takes_no_checkpoint_and_no_output(disks, inputs):
    cutter = Cutter(inputs, disks)
    newest: list[int] = []
    # A run may come to its end before the moment is there.
    while not newest:
        newest = cutter.cut_run("pretrain", 1)
    assert len(newest) == 1 and newest[0] >= 3
    cutter.cut_output("train_tokenizer")
