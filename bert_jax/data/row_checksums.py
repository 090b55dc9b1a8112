"""Whether the files of a directory of rows are as they were written: checksums, and a small file read within bounds."""

import hashlib
import io
import pathlib
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from bert_jax.errors import UserError

if TYPE_CHECKING:
    from bert_jax.data.rows import RowStore

_REMEDY = "prepare or copy the rows again"
_CHUNK_BYTES = 1 << 24
# The header of an .npy file is far shorter.
_LONGEST_HEADER = 1 << 12


def verify_shards(store: "RowStore", *, show_progress: bool = False) -> None:
    """Reads every shard of all splits and compares it with its sha256.

    Reads in training check what they read too, but find damage only when its row comes up.

    Raises:
        UserError: a shard cannot be read, or is not as it was written; names it.
    """
    shards = [shard for shards in store.manifest.shards.values() for shard in shards]
    total = sum(shard.bytes for shard in shards)
    with tqdm(desc="verifying rows", total=total, unit="B", unit_scale=True, disable=not show_progress) as progress:
        for shard in shards:
            path = store.directory / shard.file
            digest = hashlib.sha256()
            try:
                with open(path, "rb") as file:
                    while chunk := file.read(_CHUNK_BYTES):
                        digest.update(chunk)
                        progress.update(len(chunk))
            except OSError as error:
                raise UserError(f"cannot read {path}: {error.strerror or error}; {_REMEDY}") from error
            if digest.hexdigest() != shard.sha256:
                raise UserError(f"{path} was changed after it was written: {_REMEDY}")


def read_token_counts(path: pathlib.Path, vocab_size: int, sha256: str | None) -> np.ndarray:
    """Reads how often the training rows hold each id.

    Args:
        path: the .npy file.
        vocab_size: number of ids.
        sha256: of the file, in hex; None for rows that were made before it was kept.

    Returns:
        int64 [vocab_size].

    Raises:
        UserError: the file is missing, or is not as it was written.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_LONGEST_HEADER + 8 * vocab_size + 1)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; {_REMEDY}") from error
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(f"{path} was changed after it was written: {_REMEDY}")
    file = io.BytesIO(content)
    try:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    except Exception as error:  # numpy raises whatever the parser of the header, a Python literal, is led to
        raise UserError(f"{path} is damaged: {_REMEDY}") from error
    values = content[file.tell() :]
    if (shape, dtype, len(values)) != ((vocab_size,), np.dtype(np.int64), 8 * vocab_size):
        raise UserError(f"{path} is damaged, or does not fit the rows: {_REMEDY}")
    return np.frombuffer(values, np.int64)
