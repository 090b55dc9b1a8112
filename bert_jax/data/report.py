"""The report of a preparation: what the corpus came to, and warnings of what ruins a run without a word."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from bert_jax.data import rows
from bert_jax.data.held_out import HeldOut
from bert_jax.data.row_building import RowStatistics
from bert_jax.data.token_store import TokenStore
from bert_jax.data.tokenization import CorpusStatistics

REPORT_JSON = "report.json"
REPORT_TEXT = "report.txt"

# Shares above which the report warns.
MOST_SINGLE_SENTENCE_DOCUMENTS = 0.9
MOST_UNKNOWN_TOKENS = 0.01
MOST_STUBS = 0.9
# A document shorter than this part of a row is a stub.
STUB_PART_OF_ROW = 0.25

_UNKNOWN_WORDS_SHOWN = 10
_DOCUMENTS_AT_ONCE = 1 << 20


def make_report(
    recipe: rows.Recipe,
    corpus: CorpusStatistics,
    store: TokenStore,
    statistics: Mapping[str, RowStatistics],
    seconds: Mapping[str, float],
    workers: int,
    held_out: HeldOut,
) -> dict[str, Any]:
    """Returns the report as JSON values.

    "corpus", "rows" and "warnings" are decided by the text and the recipe; "timing" differs from run to run.

    Args:
        recipe: how the rows were made.
        corpus: what tokenization counted.
        store: the token store.
        statistics: for each split what became of its documents.
        seconds: duration of "tokenization" and of "rows".
        workers: processes at work.
        held_out: how the corpus was split.
    """
    single_sentences, stubs = _document_shares(store, STUB_PART_OF_ROW * recipe.seq_len)
    unknown_words = sorted(corpus.unknown_words.items(), key=lambda item: (-item[1], item[0]))
    report = {
        "corpus": {
            "text_bytes": corpus.text_bytes,
            "documents": store.num_documents,
            "empty_documents": corpus.documents - store.num_documents,
            "sentences": corpus.sentences,
            "tokens": corpus.tokens,
            "unknown_token_rate": corpus.unknown_tokens / max(corpus.tokens, 1),
            "unknown_words": [word for word, _ in unknown_words[:_UNKNOWN_WORDS_SHOWN]],
            "single_sentence_documents": single_sentences,
            "stubs": stubs,
        },
        "held_out": {
            "documents": held_out.drawn,
            "cut_documents": held_out.cut,
            "token_share": held_out.tokens / max(store.num_tokens, 1),
            "token_share_of_whole_documents": held_out.whole_tokens / max(store.num_tokens, 1),
        },
        "rows": {split: _describe_rows(recipe, its) for split, its in statistics.items()},
    }
    total = sum(seconds.values())
    megabytes_per_second = corpus.text_bytes / 1e6 / max(total, 1e-9)
    return {
        **report,
        "warnings": _warnings(recipe, report),
        "timing": {
            "seconds": {**seconds, "total": total},
            "workers": workers,
            "megabytes_per_second": megabytes_per_second,
            "megabytes_per_second_per_worker": megabytes_per_second / workers,
        },
    }


def write_report(directory: pathlib.Path, report: Mapping[str, Any]) -> None:
    """Keeps the report in the directory, as JSON and as text."""
    (directory / REPORT_JSON).write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (directory / REPORT_TEXT).write_text(format_report(report), encoding="utf-8")


def format_report(report: Mapping[str, Any]) -> str:
    """Returns the report for people to read."""
    corpus, timing = report["corpus"], report["timing"]
    empty = f" ({corpus['empty_documents']:,} more were empty)" if corpus["empty_documents"] else ""
    lines = [
        f"text            {corpus['text_bytes'] / 1e6:,.1f} MB",
        f"documents       {corpus['documents']:,}{empty}",
        f"sentences       {corpus['sentences']:,}",
        f"tokens          {corpus['tokens']:,}",
        f"unknown tokens  {corpus['unknown_token_rate']:.3%}",
        f"held out        {_describe_held_out(report['held_out'])}",
    ]
    for split, its in report["rows"].items():
        lines += [
            f"{split + ' rows':15} {its['rows']:,} ({its['pairs']:,} pairs,"
            f" {its['pairs'] / max(its['rows'], 1):.2f} a row)",
            f"  tokens a row  {its['tokens_per_row']:.1f} used, {its['padding_per_row']:.1f} padding:"
            f" {its['filled']:.1%} filled",
        ]
        if "random_next" in its:
            lines.append(f"  random next   {its['random_next']:.1%} of the pairs")
        if "swapped" in its:
            lines.append(f"  swapped       {its['swapped']:.1%} of the pairs")
    seconds = timing["seconds"]
    lines.append(
        f"time            {seconds['total']:.1f} s (tokenization {seconds['tokenization']:.1f} s, rows"
        f" {seconds['rows']:.1f} s), {timing['megabytes_per_second']:.2f} MB of text/s,"
        f" {timing['megabytes_per_second_per_worker']:.2f} for each of {timing['workers']} workers"
    )
    lines += [f"warning: {warning}" for warning in report["warnings"]]
    return "\n".join(lines) + "\n"


def _describe_held_out(held_out: Mapping[str, Any]) -> str:
    """Says what is held out: how many documents, and whether as a whole."""
    number, cut = held_out["documents"], held_out["cut_documents"]
    if not cut:
        return f"{number:,} documents, {held_out['token_share']:.1%} of the tokens"
    return (
        f"a part of {cut:,} documents" + (f", and {number - cut:,} as a whole" if number > cut else "") + ":"
        f" {held_out['token_share']:.1%} of the tokens (as a whole, they are"
        f" {held_out['token_share_of_whole_documents']:.1%})"
    )


def _describe_rows(recipe: rows.Recipe, statistics: RowStatistics) -> dict[str, Any]:
    num_rows = max(statistics.rows, 1)
    description = {
        "rows": statistics.rows,
        "pairs": statistics.pairs,
        "tokens": statistics.tokens,
        "tokens_per_row": statistics.tokens / num_rows,
        "padding_per_row": recipe.seq_len * (statistics.rows > 0) - statistics.tokens / num_rows,
        "filled": statistics.tokens / (num_rows * recipe.seq_len),
    }
    label = {"nsp": "random_next", "sop": "swapped"}.get(recipe.pairs)
    if label:
        description[label] = statistics.label_ones / max(statistics.pairs, 1)
    return description


def _document_shares(store: TokenStore, stub_tokens: float) -> tuple[float, float]:
    """Returns the shares of the documents that have a single sentence, and fewer than `stub_tokens` tokens."""
    single_sentences = stubs = 0
    for first in range(0, store.num_documents, _DOCUMENTS_AT_ONCE):
        end = min(first + _DOCUMENTS_AT_ONCE, store.num_documents)
        single_sentences += np.count_nonzero(np.diff(store.document_offsets[first : end + 1]) == 1)
        stubs += np.count_nonzero(store.document_lengths(np.arange(first, end)) < stub_tokens)
    return single_sentences / store.num_documents, stubs / store.num_documents


def _warnings(recipe: rows.Recipe, report: Mapping[str, Any]) -> list[str]:
    corpus = report["corpus"]
    warnings = []
    if corpus["single_sentence_documents"] > MOST_SINGLE_SENTENCE_DOCUMENTS:
        warnings.append(
            f"{corpus['single_sentence_documents']:.0%} of the documents have a single sentence: is there a blank line"
            " after every sentence? Put blank lines between documents only, or give the right --format"
        )
    if corpus["unknown_token_rate"] > MOST_UNKNOWN_TOKENS:
        words = " ".join(corpus["unknown_words"])
        warnings.append(
            f"{corpus['unknown_token_rate']:.1%} of the tokens are unknown to the tokenizer"
            + (f" (such as {words})" if words else "")
            + ": train one on this text (python -m launch.train_tokenizer)"
        )
    if corpus["stubs"] > MOST_STUBS:
        warnings.append(
            f"{corpus['stubs']:.0%} of the documents have fewer than {STUB_PART_OF_ROW * recipe.seq_len:.0f} tokens:"
            " rows will be mostly padding; use --packing or a smaller --seq_len"
        )
    if recipe.validation_fraction and not report["rows"][rows.VALIDATION]["rows"]:
        warnings.append(f"{corpus['documents']:,} documents are too few to hold any out: there is no validation split")
    return warnings
