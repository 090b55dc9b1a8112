"""Remote rows (gs://...): copied once to a cache on this host, since one request a row would starve a pod."""

import concurrent.futures
import fcntl
import os
import pathlib
import shutil
import threading

from bert_jax.data import rows
from bert_jax.durable_files import publish, unfinished_folder
from bert_jax.errors import UserError

CACHE_DIRECTORY = pathlib.Path("~/.cache/bert_jax/rows")
REACHABLE_SECONDS = 60
_COPIES_AT_ONCE = 16


def fetch_rows(url: str) -> pathlib.Path:
    """Returns the local copy of the rows at `url`, which is made if this host has none yet.

    The copy is kept under the rows' fingerprint, so that the same rows at another address are not copied again. Several
    processes of one host may call this at once: one copies, the others wait. Rows that are not there, or do not answer
    within REACHABLE_SECONDS, are a UserError.
    """
    from etils import epath

    remote = epath.Path(url)
    manifest = _read_manifest_in_time(remote)
    cache = CACHE_DIRECTORY.expanduser()
    cache.mkdir(parents=True, exist_ok=True)
    local = cache / manifest.fingerprint
    with open(cache / f"{manifest.fingerprint}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not local.is_dir():
            with unfinished_folder(local) as copy:
                try:
                    _copy_directory(remote, copy)
                except OSError as error:
                    raise UserError(f"cannot copy {url} to {cache}: {error.strerror or error}") from error
                publish(copy, local)
    return local


def _read_manifest_in_time(remote: os.PathLike[str]) -> rows.Manifest:
    """Reads rows.json in a thread of its own: a storage client without a network may try for many minutes."""
    answer: concurrent.futures.Future[rows.Manifest] = concurrent.futures.Future()

    def read() -> None:
        try:
            answer.set_result(rows.read_manifest(remote / rows.MANIFEST_FILE))
        except BaseException as error:
            answer.set_exception(error)

    # A daemon, unlike an executor's thread, does not keep the process from ending while it still waits.
    threading.Thread(target=read, daemon=True).start()
    try:
        return answer.result(REACHABLE_SECONDS)
    except TimeoutError:
        raise UserError(
            f"{remote} does not answer within {REACHABLE_SECONDS} s: check the network and the credentials"
        ) from None
    except FileNotFoundError:
        raise UserError(f"no rows at {remote}: it holds no {rows.MANIFEST_FILE}") from None
    except UserError:
        raise
    except Exception as error:
        # Each storage client raises errors of its own.
        raise UserError(f"cannot read {remote}: {error}") from error


def _copy_directory(source: os.PathLike[str], target: pathlib.Path) -> None:
    """Copies all files below `source`, several at once."""
    files = []
    folders = [(source, target)]
    while folders:
        folder, its_target = folders.pop()
        its_target.mkdir(exist_ok=True)
        for entry in folder.iterdir():
            if entry.is_dir():
                folders.append((entry, its_target / entry.name))
            else:
                files.append((entry, its_target / entry.name))
    with concurrent.futures.ThreadPoolExecutor(_COPIES_AT_ONCE) as executor:
        copies = [executor.submit(_copy_file, entry, to) for entry, to in files]
        for copy in copies:
            copy.result()


def _copy_file(source: os.PathLike[str], target: pathlib.Path) -> None:
    with source.open("rb") as reader, target.open("wb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)
