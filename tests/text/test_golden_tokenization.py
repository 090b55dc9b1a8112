"""Ids of transformers' own tokenizers: on a stress list for directories of every layout, and on lines of Wikipedia.

The golden files are made by tests/golden/make_tokenization.py, which also holds what is compared.
"""

import importlib.util
import json
import pathlib

import pytest

from bert_jax.text.tokenizer import MASK
from bert_jax.text.tokenizers import WordPieceTokenizer, load_tokenizer

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden"


def load_script():
    specification = importlib.util.spec_from_file_location("make_tokenization", GOLDEN / "make_tokenization.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


script = load_script()
IDS = json.loads((GOLDEN / "tokenization" / "ids.json").read_text())
DIGESTS = json.loads((GOLDEN / "tokenization" / "digests.json").read_text())


def encode(tokenizer, texts):
    return [tokenizer.encode_with_masks(text) if MASK in text else tokenizer.encode_batch([text])[0] for text in texts]


@pytest.fixture
def vocabulary(request):
    if request.param == "small":
        return IDS["small_vocabulary"]
    request.getfixturevalue("shared_data")  # skips where the published vocabularies are absent
    return script.published_vocabulary(request.param)


@pytest.mark.parametrize(
    ("vocabulary", "layout", "rules", "longest_word", "expected"),
    [(*directory, ids) for directory, ids in zip(script.DIRECTORIES, IDS["ids"], strict=True)],
    indirect=["vocabulary"],
    ids=["-".join(map(str, directory)) for directory in script.DIRECTORIES],
)
def test_directories_of_transformers(tmp_path, vocabulary, layout, rules, longest_word, expected):
    script.write_directory(tmp_path, vocabulary, layout, rules, longest_word)
    tokenizer = load_tokenizer(tmp_path)
    for text, ids, wanted in zip(script.TEXTS, encode(tokenizer, script.TEXTS), expected, strict=True):
        assert ids == wanted, ascii(text)
    # It is the same tokenizer once it is saved as one of ours, which again is a directory of transformers' layout.
    tokenizer.save(tmp_path / "saved")
    saved = load_tokenizer(tmp_path / "saved")
    assert (saved.fingerprint, encode(saved, script.TEXTS)) == (tokenizer.fingerprint, expected)
    (tmp_path / "saved" / "bert_jax_tokenizer.json").unlink()
    assert load_tokenizer(tmp_path / "saved").fingerprint == tokenizer.fingerprint


def test_rules_differ_in_the_golden_ids():
    """Each rule changes some ids, so that a rule that is not followed is found above."""
    small = [ids for (vocabulary, *_), ids in zip(script.DIRECTORIES, IDS["ids"], strict=True) if vocabulary == "small"]
    assert len({json.dumps(ids) for ids in small}) == 7  # five sets of rules, and two other longest words


@pytest.mark.parametrize(
    ("corpus", "vocabulary", "lowercase", "expected"),
    [(*corpus, digests) for corpus, digests in zip(script.CORPORA, DIGESTS["digests"], strict=True)],
    ids=["-".join(map(str, corpus)) for corpus in script.CORPORA],
)
@pytest.mark.usefixtures("shared_data")
def test_twenty_thousand_lines(corpus, vocabulary, lowercase, expected):
    lines = script.corpus_lines(corpus)
    assert len(lines) == DIGESTS["lines"] == 20_000
    tokenizer = WordPieceTokenizer(script.published_vocabulary(vocabulary), cased=not lowercase)
    assert script.digest_blocks(lines, tokenizer.encode_batch) == expected
