"""The first stage of preparation: text is tokenized once, in parallel, into a token store.

The passages are cut into blocks of about a megabyte, which depend on the text alone; the blocks go to the workers, and
their results are written in the order of the text. So the store is the same for any number of workers.
"""

import collections
import dataclasses
import itertools
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from bert_jax.data.token_store import TokenStoreWriter, token_dtype
from bert_jax.data.workers import ordered_map

if TYPE_CHECKING:
    from bert_jax.text.documents import Passage

# Characters of text in a block. Large enough that handing it over costs nothing, small enough that few megabytes
# of text keep all workers busy.
BLOCK_CHARACTERS = 1 << 20
# Unknown words are looked for in this many sentences of a block, and this many of them are kept.
_SENTENCES_SEARCHED = 20
_UNKNOWN_WORDS_KEPT = 1000


@dataclasses.dataclass(frozen=True)
class TextBlock:
    """Consecutive passages.

    Attributes:
        texts: the passages, [passages].
        are_sentences: whether a passage is one sentence already, [passages].
        start_documents: whether a passage starts a new document, [passages].
    """

    texts: list[str]
    are_sentences: list[bool]
    start_documents: list[bool]


@dataclasses.dataclass(frozen=True)
class TokenBlock:
    """What a worker makes of a TextBlock.

    Attributes:
        tokens: ids of all the sentences, [tokens].
        sentence_lengths: tokens in each sentence, int64 [sentences]; none is 0.
        document_starts: sentences of the block before which a new document starts, int64 [documents].
        passage_starts: sentences of the block with which a passage starts, int64 [passages].
        text_bytes: UTF-8 bytes of the passages.
        unknown_tokens: how many ids are that of the unknown token.
        unknown_words: words that the vocabulary cannot spell, with their counts, from a sample of the sentences.
    """

    tokens: np.ndarray
    sentence_lengths: np.ndarray
    document_starts: np.ndarray
    passage_starts: np.ndarray
    text_bytes: int
    unknown_tokens: int
    unknown_words: dict[str, int]


@dataclasses.dataclass
class CorpusStatistics:
    """What the corpus came to.

    Attributes:
        documents: those read, empty ones among them.
        sentences: those with at least one token.
        tokens: ids, without special tokens.
        text_bytes: UTF-8 bytes of text, without what the file format adds.
        unknown_tokens: ids of the unknown token.
        unknown_words: words that the vocabulary cannot spell, with their counts in a sample of the sentences.
    """

    documents: int = 0
    sentences: int = 0
    tokens: int = 0
    text_bytes: int = 0
    unknown_tokens: int = 0
    unknown_words: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def add(self, block: TokenBlock) -> None:
        """Counts one block."""
        self.documents += len(block.document_starts)
        self.sentences += len(block.sentence_lengths)
        self.tokens += len(block.tokens)
        self.text_bytes += block.text_bytes
        self.unknown_tokens += block.unknown_tokens
        self.unknown_words.update(block.unknown_words)
        if len(self.unknown_words) > 2 * _UNKNOWN_WORDS_KEPT:
            self.unknown_words = collections.Counter(dict(self.unknown_words.most_common(_UNKNOWN_WORDS_KEPT)))


def tokenize_corpus(
    passages: "Iterable[Passage]",
    tokenizer_directory: str | os.PathLike[str],
    vocab_size: int,
    language: str,
    store: pathlib.Path,
    workers: int,
    progress: Any,
) -> CorpusStatistics:
    """Splits passages into sentences, tokenizes them and writes them as a new token store.

    Args:
        passages: the text; read as it is needed.
        tokenizer_directory: each worker loads the tokenizer from it.
        vocab_size: of the tokenizer.
        language: of the text, for splitting sentences.
        store: where the token store is made; must not exist.
        workers: number of processes.
        progress: a tqdm bar, updated in bytes of text.
    """
    statistics = CorpusStatistics()
    arguments = (os.fspath(tokenizer_directory), language)
    with TokenStoreWriter(store, vocab_size) as writer:
        for block in ordered_map(_tokenize_block, cut_blocks(passages), workers, _start_worker, arguments):
            writer.append(block.tokens, block.sentence_lengths, block.document_starts, block.passage_starts)
            statistics.add(block)
            progress.update(block.text_bytes)
    return statistics


def cut_blocks(passages: "Iterable[Passage]", block_characters: int = BLOCK_CHARACTERS) -> Iterator[TextBlock]:
    """Groups consecutive passages into blocks of at least `block_characters` (the last one may have fewer)."""
    texts: list[str] = []
    are_sentences: list[bool] = []
    start_documents: list[bool] = []
    size = 0
    document_id = None
    for passage in passages:
        texts.append(passage.text)
        are_sentences.append(passage.is_sentence)
        start_documents.append(passage.document_id != document_id)
        document_id = passage.document_id
        size += len(passage.text)
        if size >= block_characters:
            yield TextBlock(texts, are_sentences, start_documents)
            texts, are_sentences, start_documents, size = [], [], [], 0
    if texts:
        yield TextBlock(texts, are_sentences, start_documents)


# What a worker process keeps between blocks: loading the tokenizer takes longer than a block.
_tokenizer: Any = None
_language: str = ""


def _start_worker(tokenizer_directory: str, language: str) -> None:
    from bert_jax.text.tokenizers import load_tokenizer

    global _tokenizer, _language
    _tokenizer = load_tokenizer(tokenizer_directory)
    _language = language


def _tokenize_block(block: TextBlock) -> TokenBlock:
    from bert_jax.text.sentences import split_sentences

    sentences: list[str] = []
    document_starts, passage_starts = [], []
    for text, is_sentence, starts in zip(block.texts, block.are_sentences, block.start_documents, strict=True):
        if starts:
            document_starts.append(len(sentences))
        passage_starts.append(len(sentences))
        if is_sentence:
            sentences.append(text)
        else:
            sentences.extend(split_sentences(text, _language))
    ids = _tokenizer.encode_batch(sentences)
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    tokens = np.fromiter(
        itertools.chain.from_iterable(ids), token_dtype(_tokenizer.vocab_size), count=int(lengths.sum())
    )
    unknown = tokens == _tokenizer.unk_id
    unknown_tokens = int(np.count_nonzero(unknown))
    kept_before = np.concatenate([[0], np.cumsum(lengths > 0)])
    return TokenBlock(
        tokens=tokens,
        sentence_lengths=lengths[lengths > 0],
        document_starts=kept_before[np.asarray(document_starts, np.int64)],
        passage_starts=kept_before[np.asarray(passage_starts, np.int64)],
        text_bytes=sum(len(text.encode()) for text in block.texts),
        unknown_tokens=unknown_tokens,
        unknown_words=_unknown_words(sentences, np.cumsum(lengths), np.flatnonzero(unknown)) if unknown_tokens else {},
    )


def _unknown_words(sentences: list[str], ends: np.ndarray, unknown: np.ndarray) -> dict[str, int]:
    """Returns the words behind the unknown tokens at the places `unknown` [unknown] of the first such sentences."""
    places = np.unique(np.searchsorted(ends, unknown, side="right"))[:_SENTENCES_SEARCHED]
    words = list(itertools.chain.from_iterable(sentences[place].split() for place in places))
    ids = _tokenizer.encode_batch(words)
    return collections.Counter(word for word, its_ids in zip(words, ids, strict=True) if _tokenizer.unk_id in its_ids)
