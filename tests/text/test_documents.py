"""The --input flag: what it means, and what is wrong with it."""

import gzip
import subprocess
import sys

import pytest

from bert_jax.errors import UserError
from bert_jax.text.documents import check_inputs, describe_inputs, find_files, read_passages


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.txt").write_text("Text of b goes here and\nis wrapped")
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"One sentence.\n\nAnother one.\n"))
    (tmp_path / "sub" / "c [x].txt").write_text('{"text": "in json"}\n')
    return tmp_path


def test_globs_directories_and_lists_are_sorted_and_deduplicated(corpus):
    everything = [str(corpus / name) for name in ("a.txt.gz", "b.txt", "sub/c [x].txt")]
    assert find_files(str(corpus)) == everything
    assert find_files(f"{corpus}/**") == everything
    assert find_files(f"{corpus}/b.txt, {corpus}/*.txt*, {corpus}/sub/../b.txt") == everything[:2]
    # A name that exists is not taken for a glob.
    assert find_files(f"{corpus}/sub/c [x].txt") == everything[2:]


def test_every_file_takes_its_own_reader(corpus):
    texts = [passage.text for passage in read_passages(str(corpus))]
    assert texts == ["One sentence.", "Another one.", "Text of b goes here and is wrapped", "in json"]
    assert describe_inputs(str(corpus)) == "1 file, format sentences; 1 file, format plain; 1 file, format jsonl"


def test_format_overrides_what_the_file_looks_like(corpus):
    passages = list(read_passages(f"{corpus}/b.txt", "sentences"))
    assert [passage.text for passage in passages] == ["Text of b goes here and", "is wrapped"]
    assert describe_inputs(f"{corpus}/b.txt", "sentences") == "1 file, format sentences"


@pytest.mark.parametrize(
    ("inputs", "format", "message"),
    [
        ("{}/missing.txt", "auto", "no such file or directory: .*missing.txt"),
        ("{}/*.none", "auto", "no file matches .*none"),
        ("{}/b.txt,{}/gone", "auto", "no such file or directory: .*gone"),
        ("", "auto", "no input"),
        ("{}/empty", "auto", "no files in .*empty"),
        ("{}/b.txt", "xml", "unknown format 'xml'"),
        ("pydocs", "plain", "does not go with"),
        ("tfds:", "auto", "cannot read the input 'tfds:'"),
        ("tfds:wiki:text:more", "auto", "cannot read the input"),
    ],
)
def test_mistakes_are_found_before_reading(corpus, inputs, format, message):
    (corpus / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        check_inputs(inputs.replace("{}", str(corpus)), format)


def test_no_heavy_library_is_imported():
    code = (
        "import sys, bert_jax.text.documents as d; d.check_inputs('tfds:wikipedia/20230601.en');"
        "print([m for m in ('jax', 'tensorflow', 'tensorflow_datasets') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
