"""Decoding: offsets of bad bytes, byte-order marks, line ends, gzip; all of it across the borders of blocks."""

import gzip

import pytest

from bert_jax.errors import UserError
from bert_jax.text import files


@pytest.fixture(autouse=True, params=[3, 1 << 20], ids=["tiny blocks", "real blocks"])
def block_bytes(request, monkeypatch):
    monkeypatch.setattr(files, "_BLOCK_BYTES", request.param)


def write(path, data: bytes, compress: bool):
    path.write_bytes(gzip.compress(data) if compress else data)
    return str(path)


@pytest.mark.parametrize("compress", [False, True], ids=["raw", "gzip"])
@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        ("\ufeffa\r\nb\rc\n\r\n".encode(), "a\nb\nc\n\n"),
        ("中文字é\U0001f600 end\r".encode(), "中文字é\U0001f600 end\n"),
        (b"\r\r\n\r", "\n\n\n"),
        ("x\ufeffy".encode(), "x\ufeffy"),
    ],
)
def test_text_is_decoded(tmp_path, data, text, compress):
    # The name says nothing: gzip is recognised by its first bytes.
    assert "".join(files.read_blocks(write(tmp_path / "file.txt", data, compress))) == text


@pytest.mark.parametrize("compress", [False, True], ids=["raw", "gzip"])
@pytest.mark.parametrize(
    ("before", "bad"),
    [
        ("plain ", b"\xff rest"),
        ("\ufeff中文中文", b"\xe9a"),
        ("", b"\x80"),
        ("é" * 50, b"\xe4\xb8"),
    ],
    ids=["ascii", "after a byte-order mark", "first byte", "cut character at the end"],
)
def test_bad_byte_is_named_with_its_offset(tmp_path, before, bad, compress):
    path = write(tmp_path / "bad.txt", before.encode() + bad, compress)
    with pytest.raises(UserError, match=rf"bad\.txt is not UTF-8.* at byte {len(before.encode())};"):
        list(files.read_blocks(path))


def test_binary_file_is_named(tmp_path):
    path = write(tmp_path / "picture.png", "é".encode() + b"12345\x00\xff", False)
    with pytest.raises(UserError, match=r"picture\.png is not text.* byte 7"):
        list(files.read_blocks(path))


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data[:-8] + b"junk" + data[-4:]])
def test_damaged_gzip_is_named(tmp_path, damage):
    path = tmp_path / "cut.gz"
    path.write_bytes(damage(gzip.compress(bytes(range(32, 127)) * 40)))
    with pytest.raises(UserError, match=r"cut\.gz is cut short or damaged"):
        list(files.read_blocks(str(path)))


def test_lines_are_numbered_and_whole(tmp_path):
    lines = ["", "one", "", "zwei é", "x" * 40, "", "last"]
    path = write(tmp_path / "lines", "\r\n".join(lines).encode(), False)
    # A file without a final line end has the same lines as one with it.
    assert list(files.read_lines(path)) == list(enumerate(lines, start=1))
    path = write(tmp_path / "lines", "".join(f"{line}\n" for line in lines).encode(), False)
    assert list(files.read_lines(path)) == list(enumerate(lines, start=1))


def test_files_below_are_sorted_and_visible(tmp_path):
    for name in ("b/2.txt", "b/1.txt", "a.txt", ".git/config", ".hidden", "skip/x.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    found = files.files_below(str(tmp_path), {"skip"})
    assert found == [str(tmp_path / name) for name in ("a.txt", "b/1.txt", "b/2.txt")]


def test_a_line_or_a_whole_that_does_not_fit_in_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LONGEST_LINE", 10)
    monkeypatch.setattr(files, "LONGEST_WHOLE", 20)
    path = write(tmp_path / "a.txt", b"0123456789\n" + b"0123456789", True)
    assert [len(line) for _, line in files.read_lines(path)] == [10, 10]
    with pytest.raises(UserError, match=r"a\.txt holds more than 20 characters"):
        files.read_whole(path)
    path = write(tmp_path / "b.txt", b"first\n" + b"x" * 1000, True)
    read = []
    with pytest.raises(UserError, match=r"b\.txt:2: the line is longer than 10 characters"):
        read.extend(files.read_lines(path))
    assert files.read_whole(write(tmp_path / "c.txt", b"a\r\nb", True)) == "a\nb"


def test_links_that_lead_round_and_round_end(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.txt").write_text("x")
    for number in range(20):
        (tmp_path / "a" / f"loop{number}").symlink_to(tmp_path)
    assert files.files_below(str(tmp_path)) == [str(tmp_path / "a" / "x.txt")]


@pytest.mark.parametrize("name", ["rows.array_record", "données", "x" * 255, "..x", "a b"])
def test_names_of_files_beside(name):
    assert files.is_file_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a\0", "a\nb", "x" * 256, "é" * 128, "\udc80"])
def test_what_no_file_beside_is_called(name):
    assert not files.is_file_name(name)
