"""What a launcher says that it has written is whole and on disk, and what a killed one left is gone after the next."""

import os
import pathlib

import pytest

from launch import convert, prepare, train_tokenizer


@pytest.fixture
def on_disk(monkeypatch) -> set[str]:
    """Fails where a file or folder takes its name before all of it is on disk; returns the names that were taken."""
    synced: dict[int, tuple[int, int]] = {}
    taken = set()
    fsync, replace = os.fsync, os.replace

    def state(stat: os.stat_result) -> tuple[int, int]:
        return stat.st_mtime_ns, stat.st_size

    def note(descriptor) -> None:
        fsync(descriptor)
        stat = os.fstat(descriptor)
        synced[stat.st_ino] = state(stat)

    def check(source, target) -> None:
        source = pathlib.Path(source)
        for path in (source, *source.rglob("*")):
            assert synced.get(path.stat().st_ino) == state(path.stat()), f"{path} is not on disk"
        replace(source, target)
        taken.add(pathlib.Path(target).name)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(os, "replace", check)
    return taken


def _leave_behind(target: pathlib.Path) -> None:
    """What a process leaves that is killed while it writes `target`."""
    folder = target.with_name(f".{target.name}.unfinished")
    (folder / "half").mkdir(parents=True)
    (folder / "half/file").write_text("half")


@pytest.mark.parametrize("verb", ["train_tokenizer", "prepare", "convert"])
def test_outputs_are_whole_and_nothing_else_is_left(verb, tmp_path, small_data, finished_run, on_disk):
    output = tmp_path / "output"
    text = pathlib.Path(small_data.config).with_name("corpus.txt")
    tokenizer = text.with_name("tokenizer")
    _leave_behind(output)
    main, arguments = {
        "train_tokenizer": (train_tokenizer.main, [f"--input={text}", "--vocab_size=120", f"--output={output}"]),
        "prepare": (
            prepare.main,
            [f"--input={text}", f"--tokenizer={tokenizer}", "--seq_len=32", "--workers=1", f"--output={output}"],
        ),
        "convert": (convert.main, [f"--from={finished_run}", "--format=huggingface", f"--to={output}"]),
    }[verb]
    assert main([verb, *arguments]) == 0
    assert "output" in on_disk and os.listdir(tmp_path) == ["output"] and any(output.iterdir())
