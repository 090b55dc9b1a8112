"""Files that are there whole or not at all, whatever ends the process or the machine.

A write is with the disk only after `fsync`, and so is a name in its folder. What is made here is written under another
name, brought to the disk, and only then takes its own name, which is brought to the disk too: after a power cut there
is the old file, or the new one, and what was announced as written is the new one.
"""

import contextlib
import errno
import fcntl
import os
import pathlib
import re
import shutil
from collections.abc import Iterator

from bert_jax.errors import UserError

# The names of a folder or file until it is whole, and of a folder that is being removed.
UNFINISHED, REMOVED = "unfinished", "removed"
# File systems that cannot lock or sync a folder: work goes on without.
_UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EINVAL)


def hidden_sibling(path: pathlib.Path, what: str) -> pathlib.Path:
    """Returns `.NAME.what` beside `path`, NAME its own name: a name that no reader takes for anything."""
    return path.with_name(f".{path.name}.{what}")


def sync_file(path: str | os.PathLike[str]) -> None:
    """Returns once the content of a file is on disk."""
    _sync(path, os.O_RDONLY)


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Returns once the names in a folder are on disk, which syncing its files does not see to."""
    try:
        _sync(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise


def _sync(path: str | os.PathLike[str], flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(root: str | os.PathLike[str]) -> None:
    """Returns once every file and folder below `root`, and `root` itself, is on disk; its own name is not yet."""

    def fail(error: OSError) -> None:
        raise error

    for folder, _, names in os.walk(root, topdown=False, onerror=fail):
        for name in names:
            sync_file(os.path.join(folder, name))
        sync_folder(folder)


def publish(unfinished: pathlib.Path, target: pathlib.Path) -> None:
    """Gives a finished file or folder its name, and returns once all of it is on disk.

    A file takes the place of one that is there; a folder that of an empty one alone.

    Raises:
        OSError: the file system cannot do it.
    """
    if unfinished.is_dir():
        sync_tree(unfinished)
    else:
        sync_file(unfinished)
    os.replace(unfinished, target)
    sync_folder(target.parent)


def write_file(path: pathlib.Path, content: bytes) -> None:
    """Writes a file in one piece or not at all; it is on disk when this returns. Raises OSError where it cannot."""
    unfinished = hidden_sibling(path, UNFINISHED)
    unfinished.write_bytes(content)
    publish(unfinished, path)


def make_folder(path: pathlib.Path) -> list[pathlib.Path]:
    """Makes a folder and those above it, unless they are there; their names are on disk when this returns.

    Returns:
        The folders that were made, the uppermost first.
    """
    if path.is_dir():
        return []
    made = make_folder(path.absolute().parent)
    path.mkdir(exist_ok=True)
    sync_folder(path.absolute().parent)
    return [*made, path]


def remove_folder(path: pathlib.Path) -> None:
    """Removes a folder, so that at no moment half of it has its name."""
    removed = hidden_sibling(path, REMOVED)
    shutil.rmtree(removed, ignore_errors=True)
    os.rename(path, removed)
    sync_folder(path.parent)
    shutil.rmtree(removed)


@contextlib.contextmanager
def library_os_errors() -> Iterator[None]:
    """Raises as OSError what a library in Rust makes of one: an exception of its own that ends in "(os error 28)"."""
    try:
        yield
    except Exception as error:  # the type differs by library, down to Exception itself
        found = re.search(r"\(os error (\d+)\)", str(error))
        if not found:
            raise
        code = int(found[1])
        raise OSError(code, os.strerror(code)) from error


@contextlib.contextmanager
def unfinished_folder(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields an empty folder beside `target`; the caller publishes it, or what lies in it, as `target`.

    The folder is removed at the end if it is still there, and where nothing was published, so are the folders above
    that were made for it. One that a killed process left behind is emptied first.

    Raises:
        UserError: another process is writing the same target, or the file system cannot be written to, or is full.
    """
    folder = hidden_sibling(target.absolute(), UNFINISHED)
    try:
        with _folder_above(target.absolute()), _locked_folder(folder, target):
            for entry in folder.iterdir():
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
            yield folder
    except BrokenPipeError:
        # The pipe is that of something printed meanwhile: no file is one.
        raise
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}; make room, or choose another") from error


@contextlib.contextmanager
def _folder_above(target: pathlib.Path) -> Iterator[None]:
    """Makes the folder that `target` will lie in; what was made for it and holds nothing at the end is removed."""
    made = make_folder(target.parent)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            for folder in reversed(made):
                folder.rmdir()


@contextlib.contextmanager
def _locked_folder(folder: pathlib.Path, target: pathlib.Path) -> Iterator[None]:
    """Makes a folder and holds its lock, which the system lets go of when the process ends, in whatever way.

    The folder is removed at the end if it is still there.
    """
    while True:
        if folder.is_symlink() or folder.is_file():
            # A file that was to take its target's place, of a process that was killed.
            folder.unlink(missing_ok=True)
        folder.mkdir(exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if not take_lock(descriptor):
                raise UserError(f"another process is writing {target}: wait for it, or choose another")
            # The process that held the lock may have published or removed the folder since it was opened.
            if not _is_at(folder, descriptor):
                continue
            try:
                yield
            finally:
                # Once it is published, its old name may be another process's.
                if _is_at(folder, descriptor):
                    shutil.rmtree(folder, ignore_errors=True)
            return
        finally:
            os.close(descriptor)


def _is_at(folder: pathlib.Path, descriptor: int) -> bool:
    """Whether a path still leads to the folder that was opened there."""
    return folder.exists() and os.path.samestat(os.stat(folder), os.fstat(descriptor))


def take_lock(descriptor: int) -> bool:
    """Takes the lock of an open folder, unless another process holds it; returns whether this one does now."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    return True


def check_can_write(target: pathlib.Path) -> None:
    """Raises the UserError of `unfinished_folder` before long work, not after it; leaves nothing behind."""
    with unfinished_folder(target):
        pass
