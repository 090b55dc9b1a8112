"""Files are there whole or not at all, and on disk when that is said."""

import errno
import fcntl
import os
import pathlib

import pytest

from bert_jax import durable_files
from bert_jax.durable_files import (
    check_can_write,
    library_os_errors,
    make_folder,
    publish,
    remove_folder,
    sync_tree,
    unfinished_folder,
    write_file,
)
from bert_jax.errors import UserError


@pytest.fixture
def order(monkeypatch) -> list[tuple[str, str]]:
    """The names that were synced and renamed, in order."""
    calls = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor):
        calls.append(("fsync", pathlib.Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))
        fsync(descriptor)

    def replaced(source, target):
        calls.append(("rename", pathlib.Path(target).name))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    return calls


def test_a_file_is_synced_before_it_takes_its_name_and_its_name_after(tmp_path, order):
    write_file(tmp_path / "run.json", b"old")
    write_file(tmp_path / "run.json", b"new")
    assert (tmp_path / "run.json").read_bytes() == b"new" and os.listdir(tmp_path) == ["run.json"]
    assert order[:3] == [("fsync", ".run.json.unfinished"), ("rename", "run.json"), ("fsync", tmp_path.name)]


def test_every_file_and_folder_is_synced_before_a_folder_takes_its_name(tmp_path, order):
    with unfinished_folder(tmp_path / "model") as folder:
        (folder / "deep/er").mkdir(parents=True)
        (folder / "deep/er/one").write_bytes(b"1")
        (folder / "two").write_bytes(b"2")
        publish(folder, tmp_path / "model")
    assert sorted(path.name for path in (tmp_path / "model").rglob("*")) == ["deep", "er", "one", "two"]
    assert os.listdir(tmp_path) == ["model"]
    at = order.index(("rename", "model"))
    assert {("fsync", name) for name in ("one", "two", "er", "deep", ".model.unfinished")} <= set(order[:at])
    assert order[at + 1] == ("fsync", tmp_path.name)


def test_new_folders_above_are_synced_too(tmp_path, order):
    make_folder(tmp_path / "a/b")
    assert order == [("fsync", tmp_path.name), ("fsync", "a")]
    make_folder(tmp_path / "a/b")
    assert len(order) == 2


def test_what_goes_wrong_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), unfinished_folder(tmp_path / "model") as folder:
        (folder / "half").write_bytes(b"1")
        raise ZeroDivisionError
    check_can_write(tmp_path / "model")
    assert os.listdir(tmp_path) == []


def test_folders_that_were_made_for_nothing_are_removed_and_others_stay(tmp_path):
    (tmp_path / "there").mkdir()
    check_can_write(tmp_path / "there/new/model")
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]
    with unfinished_folder(tmp_path / "there/new/model") as folder:
        publish(folder, tmp_path / "there/new/model")
    assert os.listdir(tmp_path / "there/new") == ["model"]


def test_an_unfinished_file_of_a_killed_process_is_not_in_the_way(tmp_path):
    (tmp_path / ".model.unfinished").write_bytes(b"half")
    check_can_write(tmp_path / "model")
    (tmp_path / ".model.unfinished").symlink_to("nowhere")
    check_can_write(tmp_path / "model")
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_said(tmp_path):
    with (
        pytest.raises(UserError, match=r"cannot write .*model: No space left on device; make room"),
        unfinished_folder(tmp_path / "model"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_a_killed_process_left_is_emptied_and_what_another_writes_is_not(tmp_path):
    left = tmp_path / ".model.unfinished"
    (left / "folder").mkdir(parents=True)
    (left / "link").symlink_to(tmp_path)
    with unfinished_folder(tmp_path / "model") as folder:
        assert folder == left and os.listdir(folder) == []
    left.mkdir()
    (left / "file").write_bytes(b"1")
    other = os.open(left, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    try:
        with pytest.raises(UserError, match="another process is writing"), unfinished_folder(tmp_path / "model"):
            pass
        assert (left / "file").exists()
    finally:
        os.close(other)


def test_a_folder_is_renamed_before_it_is_removed(tmp_path, monkeypatch):
    (tmp_path / "12/state").mkdir(parents=True)

    def killed(path, **others):
        # All of it still lies there, under a name that stands for nothing.
        if pathlib.Path(path).exists():
            assert os.listdir(tmp_path) == [".12.removed"] and (tmp_path / ".12.removed/state").is_dir()
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(durable_files.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove_folder(tmp_path / "12")
    # The next one that is removed under this name is not in its way.
    (tmp_path / "12").mkdir()
    remove_folder(tmp_path / "12")
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_listed_is_not_taken_for_synced(tmp_path, monkeypatch):
    (tmp_path / "folder/inner").mkdir(parents=True)

    def fail(path):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "scandir", fail)
    with pytest.raises(OSError, match="Too many open files"):
        sync_tree(tmp_path / "folder")


def test_a_folder_of_the_same_name_that_came_after_is_left_alone(tmp_path):
    with unfinished_folder(tmp_path / "model") as folder:
        publish(folder, tmp_path / "model")
        # Another process begins to write the next one.
        folder.mkdir()
        (folder / "its").write_bytes(b"1")
    assert (tmp_path / ".model.unfinished/its").exists() and (tmp_path / "model").is_dir()


def test_an_error_of_the_system_that_a_library_renamed_is_one_again():
    with pytest.raises(OSError, match="No space left on device") as caught, library_os_errors():
        raise Exception("I/O error: No space left on device (os error 28)")
    assert caught.value.errno == errno.ENOSPC and caught.value.strerror == "No space left on device"
    for error in (ValueError("os error"), RuntimeError("28"), OSError(errno.EIO, "Input/output error")):
        with pytest.raises(type(error)) as caught, library_os_errors():
            raise error
        assert caught.value is error


def test_a_pipe_that_breaks_while_a_folder_is_written_is_not_the_folders_fault(tmp_path):
    with pytest.raises(BrokenPipeError), unfinished_folder(tmp_path / "folder"):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")
    assert list(tmp_path.iterdir()) == []
