"""Files of text: plain or gzip, told apart by their first bytes, decoded strictly, read in blocks."""

import codecs
import gzip
import io
import os
import zlib
from collections.abc import Collection, Iterator

from bert_jax.errors import UserError

_BLOCK_BYTES = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b"
_BYTE_ORDER_MARK = "\ufeff"


def read_blocks(path: str) -> Iterator[str]:
    """Yields the text of a file in blocks of about 1 MB; line ends are line feeds, a byte-order mark is dropped.

    Raises:
        UserError: the file cannot be read, is cut short, holds NUL bytes, or is not UTF-8; offsets are in bytes of the
            decompressed data.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0  # of the bytes that the decoder has not consumed yet
    undecoded = 0  # bytes of a character that the last block cut in two
    held = ""  # a carriage return at the end of a block, whose line feed may come with the next
    first = True
    for data in _read_bytes(path):
        if (nul := data.find(b"\0")) >= 0:
            raise UserError(
                f"{path} is not text: NUL byte at byte {offset + undecoded + nul}; leave it out of the input"
            )
        try:
            text = decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path} is not UTF-8: bad byte 0x{error.object[error.start]:02x} at byte {offset + error.start};"
                " convert it to UTF-8"
            ) from error
        remaining = len(decoder.getstate()[0])
        offset += undecoded + len(data) - remaining
        undecoded = remaining
        if first and text:
            first = False
            text = text.removeprefix(_BYTE_ORDER_MARK)
        text = held + text
        held = ""
        if "\r" in text:
            if data and text.endswith("\r"):
                text, held = text[:-1], "\r"
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        if text:
            yield text


def read_lines(path: str) -> Iterator[tuple[int, str]]:
    """Yields (line number from 1, line without its end) of a file; errors as `read_blocks`."""
    pending: list[str] = []
    number = 0
    for block in read_blocks(path):
        first, *others = block.split("\n")
        pending.append(first)
        if not others:
            continue
        others.insert(0, "".join(pending))
        pending = [others.pop()]
        for number, line in enumerate(others, start=number + 1):  # noqa: B020 (goes on counting)
            yield number, line
    if last := "".join(pending):
        yield number + 1, last


def _read_bytes(path: str) -> Iterator[bytes]:
    """Yields the decompressed bytes of a file in blocks, and at its end one empty block."""
    try:
        with open(path, "rb") as raw:
            is_gzip = raw.peek(2)[:2] == _GZIP_MAGIC
            stream = gzip.GzipFile(fileobj=raw) if is_gzip else raw
            with io.BufferedReader(stream, _BLOCK_BYTES) if is_gzip else stream as file:
                while block := file.read(_BLOCK_BYTES):
                    yield block
        yield b""
    except FileNotFoundError as error:
        raise UserError(f"no such file: {path}") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is cut short or damaged ({error}): fetch it again") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def read_head(path: str, characters: int = 1 << 16) -> tuple[str, bool]:
    """Returns the first characters of a file, and whether that is all of it; errors as `read_blocks`."""
    head = ""
    for block in read_blocks(path):
        head += block
        if len(head) > characters:
            return head[:characters], False
    return head, True


def files_below(directory: str, skipped_folders: Collection[str] = ()) -> list[str]:
    """Returns all files below a directory, sorted; hidden ones (.DS_Store, .git) and `skipped_folders` are left out."""
    found = []
    for folder, folders, names in os.walk(directory, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in skipped_folders]
        found += [os.path.join(folder, name) for name in names if not name.startswith(".")]
    return sorted(found)
