"""Files of text: plain or gzip, told apart by their first bytes, decoded strictly, read in blocks."""

import codecs
import gzip
import io
import os
import pathlib
import zlib
from collections.abc import Collection, Iterator

from bert_jax.errors import UserError

# Characters of a line: memory holds one, and a compressed file of a megabyte may hold one of a gigabyte.
LONGEST_LINE = 1 << 24
# Characters of a file that only makes sense as a whole.
LONGEST_WHOLE = 1 << 26

_BLOCK_BYTES = 1 << 20
# Bytes of a file's name, on every system in use.
_LONGEST_NAME = 255
_GZIP_MAGIC = b"\x1f\x8b"
_BYTE_ORDER_MARK = "\ufeff"


def is_file_name(name: str) -> bool:
    """Whether a name can be that of a file beside it: not a path, and no longer than systems allow."""
    is_plain = name not in ("", "..") and pathlib.PurePath(name).name == name and name.isprintable()
    return is_plain and len(os.fsencode(name)) <= _LONGEST_NAME


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
    """Yields (line number from 1, line without its end) of a file.

    Raises:
        UserError: as `read_blocks`, and for a line of more than `LONGEST_LINE` characters.
    """
    pending: list[str] = []
    length = number = 0
    for block in read_blocks(path):
        first, *others = block.split("\n")
        pending.append(first)
        length += len(first)
        if others:
            others.insert(0, "".join(pending))
            pending = [others.pop()]
            length = len(pending[0])
            for number, line in enumerate(others, start=number + 1):  # noqa: B020 (goes on counting)
                yield number, line
        if length > LONGEST_LINE:
            raise UserError(
                f"{path}:{number + 1}: the line is longer than {LONGEST_LINE:,} characters: put line ends into the file"
            )
    if last := "".join(pending):
        yield number + 1, last


def read_whole(path: str) -> str:
    """Returns the text of a file; errors as `read_blocks`, and for one of more than `LONGEST_WHOLE` characters."""
    blocks: list[str] = []
    length = 0
    for block in read_blocks(path):
        blocks.append(block)
        length += len(block)
        if length > LONGEST_WHOLE:
            raise UserError(
                f"{path} holds more than {LONGEST_WHOLE:,} characters, which is too much to be read as one: write it"
                " as JSON lines, one object each"
            )
    return "".join(blocks)


def read_bounded(path: str | os.PathLike[str], largest: int, remedy: str) -> bytes:
    """Returns the bytes of a file that may have so many of them.

    Raises:
        UserError: there is no such file, it cannot be read, or it is larger; with the remedy.
    """
    try:
        # Opening a pipe would wait for who writes into it.
        if os.path.exists(path) and not os.path.isfile(path):
            raise UserError(f"{path} is not a file: {remedy}")
        with open(path, "rb") as file:
            content = file.read(largest + 1)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; {remedy}") from error
    except ValueError as error:  # a NUL byte, or half of a character, in the path
        raise UserError(f"cannot read {str(path)!r}: it is not the name of a file; {remedy}") from error
    if len(content) > largest:
        raise UserError(f"{path} is larger than the {largest >> 20} MiB that such a file may have: {remedy}")
    return content


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
    seen: set[tuple[int, int]] = set()  # a link to a folder above leads round and round
    for folder, folders, names in os.walk(directory, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in skipped_folders)
        found += [os.path.join(folder, name) for name in names if not name.startswith(".")]
    return sorted(found)
