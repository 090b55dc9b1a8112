"""The token store: a tokenized corpus on disk, from which sentences and documents are taken by index.

Flat files, memory-mapped when read, so that a corpus larger than memory costs no memory: the token ids of all sentences
one after the other, where each sentence starts among the tokens, and where each document and each paragraph starts
among the sentences. It is temporary: rows are made from it, and then it is removed.
"""

import contextlib
import pathlib
from typing import IO

import numpy as np

_TOKENS_FILE = "tokens.bin"
_SENTENCES_FILE = "sentence_offsets.bin"
_DOCUMENTS_FILE = "document_offsets.bin"
_PASSAGES_FILE = "passage_offsets.bin"


def token_dtype(vocab_size: int) -> np.dtype:
    """Returns the smallest type of the store that holds every id of the vocabulary."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.int32)


class TokenStoreWriter:
    """Appends tokenized text to a new store; to be used as a context manager.

    Documents without a sentence leave no trace.
    """

    def __init__(self, directory: pathlib.Path, vocab_size: int):
        directory.mkdir()
        self.num_tokens = 0
        self.num_sentences = 0
        self._dtype = token_dtype(vocab_size)
        self._files = contextlib.ExitStack()
        self._tokens = self._files.enter_context(_create(directory / _TOKENS_FILE))
        self._sentences = self._files.enter_context(_create(directory / _SENTENCES_FILE))
        self._documents = self._files.enter_context(_create(directory / _DOCUMENTS_FILE))
        self._passages = self._files.enter_context(_create(directory / _PASSAGES_FILE))
        # Where the newest document starts. It is written once the next one starts further on: until then the document
        # may turn out to be empty.
        self._newest_start = 0
        self._sentences.write(np.zeros(1, np.int64).tobytes())

    def append(
        self,
        tokens: np.ndarray,
        sentence_lengths: np.ndarray,
        document_starts: np.ndarray,
        passage_starts: np.ndarray,
    ) -> None:
        """Appends sentences.

        Args:
            tokens: ids of all the sentences, [sum of sentence_lengths].
            sentence_lengths: tokens in each sentence, each at least one, [sentences].
            document_starts: the sentences, counted from the first of this call, before which a new document starts,
                [documents], in order; equal ones mean empty documents. What comes before the first belongs to the
                document that the calls before left open.
            passage_starts: the sentences, counted likewise, with which a paragraph starts, or a sentence where the text
                has no paragraphs, [passages], in order; equal ones mean empty passages.
        """
        starts = np.unique(np.append(np.int64(self._newest_start), self.num_sentences + document_starts))
        self._documents.write(starts[:-1].tobytes())
        self._newest_start = int(starts[-1])
        passage_starts = np.unique(passage_starts[passage_starts < len(sentence_lengths)]).astype(np.int64)
        self._passages.write((self.num_sentences + passage_starts).tobytes())
        ends = self.num_tokens + np.cumsum(sentence_lengths, dtype=np.int64)
        self._sentences.write(ends.tobytes())
        self._tokens.write(np.ascontiguousarray(tokens, self._dtype).tobytes())
        self.num_tokens += len(tokens)
        self.num_sentences += len(sentence_lengths)

    def __enter__(self) -> "TokenStoreWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        with self._files:
            if self._newest_start < self.num_sentences:
                self._documents.write(np.int64(self._newest_start).tobytes())
            self._documents.write(np.int64(self.num_sentences).tobytes())


class TokenStore:
    """A tokenized corpus, memory-mapped.

    Attributes:
        tokens: ids of all sentences, [tokens].
        sentence_offsets: where each sentence starts in `tokens`, and the end of the last, int64 [sentences + 1].
        document_offsets: where each document starts in the sentences, and the end of the last, int64 [documents + 1].
        passage_offsets: where each paragraph starts in the sentences, int64 [passages].
    """

    def __init__(self, directory: pathlib.Path, vocab_size: int, cuts: np.ndarray | None = None):
        """Opens a store.

        Args:
            directory: of its files.
            vocab_size: number of ids.
            cuts: sentences before which a document is cut in two, int64 [cuts].
        """
        self.tokens = _map(directory / _TOKENS_FILE, token_dtype(vocab_size))
        self.sentence_offsets = _map(directory / _SENTENCES_FILE, np.dtype(np.int64))
        self.document_offsets = _map(directory / _DOCUMENTS_FILE, np.dtype(np.int64))
        self.passage_offsets = _map(directory / _PASSAGES_FILE, np.dtype(np.int64))
        if cuts is not None and len(cuts):
            self.document_offsets = np.union1d(self.document_offsets, cuts)

    @property
    def num_tokens(self) -> int:
        """Tokens of the corpus."""
        return len(self.tokens)

    @property
    def num_sentences(self) -> int:
        """Sentences of the corpus."""
        return len(self.sentence_offsets) - 1

    @property
    def num_documents(self) -> int:
        """Documents of the corpus, each with at least one sentence."""
        return len(self.document_offsets) - 1

    def document_sentences(self, document: int) -> np.ndarray:
        """Returns where each sentence of a document starts in `tokens`, and the last one's end, [sentences + 1]."""
        return self.sentence_offsets[self.document_offsets[document] : self.document_offsets[document + 1] + 1]

    def document_lengths(self, documents: np.ndarray) -> np.ndarray:
        """Returns the number of tokens of each of the given documents, int64 [documents]."""
        starts = self.sentence_offsets[self.document_offsets[documents]]
        return self.sentence_offsets[self.document_offsets[documents + 1]] - starts


def _create(path: pathlib.Path) -> IO[bytes]:
    return open(path, "wb")


def _map(path: pathlib.Path, dtype: np.dtype) -> np.ndarray:
    # A plain array over the map: np.memmap itself makes each access to a single element ten times slower. An empty file
    # cannot be mapped.
    if path.stat().st_size == 0:
        return np.zeros(0, dtype)
    return np.asarray(np.memmap(path, dtype, mode="r"))
