"""The report counts rightly, and warns of what ruins a run."""

import json

import pytest

from bert_jax.data import preparation, rows
from bert_jax.data.report import format_report
from bert_jax.text.tokenizers import WordPieceTokenizer

WORDS = ["one", "two", "three", "four", "five"]


@pytest.fixture
def prepare(tmp_path):
    directory = tmp_path / "tokenizer"
    WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS], cased=False).save(directory)

    def run(text, **recipe):
        (tmp_path / "corpus.txt").write_text(text)
        return preparation.prepare(
            inputs=str(tmp_path / "corpus.txt"),
            tokenizer_directory=str(directory),
            output=tmp_path / "rows",
            recipe=rows.Recipe(**{"seq_len": 32, **recipe}),
            text_format="sentences",
        )

    return run


def _document(sentences=6, sentence="one two three four five"):
    return "\n".join([sentence] * sentences)


def test_counts(prepare, tmp_path):
    report = prepare("\n\n".join([_document()] * 10), short_seq_probability=0.0)
    corpus = report["corpus"]
    assert (corpus["documents"], corpus["sentences"], corpus["tokens"]) == (10, 60, 300)
    assert corpus["text_bytes"] == 60 * len("one two three four five")
    assert corpus["unknown_token_rate"] == 0
    store = rows.open_rows(tmp_path / "rows")
    for split in rows.SPLITS:
        its = report["rows"][split]
        assert its["rows"] == its["pairs"] == store.num_rows(split) > 0
        assert its["tokens_per_row"] + its["padding_per_row"] == pytest.approx(32)
        assert its["filled"] == pytest.approx(its["tokens"] / (32 * its["rows"]))
    # Of the tokens of the training rows, those of the corpus were counted, and three frame each pair.
    train = report["rows"]["train"]
    assert store.token_counts.sum() == train["tokens"] - 3 * train["pairs"]
    assert report["warnings"] == []


def test_it_is_kept_and_readable(prepare, tmp_path):
    report = prepare("\n\n".join([_document()] * 10))
    assert json.loads((tmp_path / "rows" / "report.json").read_text()) == report
    text = (tmp_path / "rows" / "report.txt").read_text()
    assert text == format_report(report)
    for word in ("documents       10", "sentences       60", "unknown tokens", "random next", "filled", "MB of text/s"):
        assert word in text
    assert max(map(len, text.splitlines())) < 160


def test_unknown_tokens(prepare):
    (warning,) = prepare("\n\n".join([_document(sentence="one two zebra four five six")] * 10))["warnings"]
    assert "33.3% of the tokens are unknown" in warning and "six zebra" in warning


def test_a_few_unknown_tokens_are_no_warning(prepare):
    text = "\n\n".join([_document(20)] * 9 + [_document(20) + "\nzebra"])
    report = prepare(text)
    assert 0 < report["corpus"]["unknown_token_rate"] < 0.01 and report["warnings"] == []
    assert report["corpus"]["unknown_words"] == ["zebra"]


def test_a_blank_line_after_every_sentence(prepare):
    (warning,) = prepare("\n\n".join(["one two three four five one two three four"] * 60))["warnings"]
    assert "blank line after every sentence" in warning


def test_stubs(prepare):
    (warning,) = prepare("\n\n".join(["one two\nthree four\nfive"] * 60))["warnings"]
    assert "fewer than 8 tokens" in warning and "--packing" in warning


def test_too_few_documents_for_validation(prepare):
    (warning,) = prepare("\n\n".join([_document()] * 3))["warnings"]
    assert "no validation split" in warning


def test_no_validation_split_asked_for(prepare):
    report = prepare("\n\n".join([_document()] * 10), validation_fraction=0.0)
    assert report["warnings"] == [] and report["rows"]["validation"]["rows"] == 0


def test_sentence_order_names_its_label(prepare):
    report = prepare("\n\n".join([_document()] * 10), pairs="sop")
    assert "swapped" in report["rows"]["train"] and "swapped" in format_report(report)
