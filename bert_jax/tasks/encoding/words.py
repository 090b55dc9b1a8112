"""Sentences of words as rows: the label on the first piece of a word, long sentences in windows of whole words."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from bert_jax.errors import UserError
from bert_jax.tasks.encoding.chunks import in_chunks
from bert_jax.tasks.encoding.encoded_rows import NO_LABEL, EncodedRows, Row
from bert_jax.tasks.examples.example_types import TaggedExample
from bert_jax.tasks.examples.tag_schemes import predicted_entities
from bert_jax.text.sentencepiece import WORD_START
from bert_jax.text.tokenizer import Tokenizer

# Of token targets: the word of the example that is predicted at a token, and the number of its tag.
WORDS, LABELS = "words", "labels"
# Sentences are tokenized in batches, each word of a batch once. No row reaches over more sentences than that.
_BATCH = 512


class WordEncoder:
    """Turns tagged sentences into rows; see `ExampleEncoder`.

    Every word is predicted exactly once: at its first piece, in the window where it has most context. Around a sentence
    that fits, its neighbours in the document may be read too (Devlin et al. 2018, section 5.3, has as much of the
    document as there is); they are predicted in rows of their own.

    Attributes:
        sentences, long: how many were encoded, and how many of them were over the limit.
        long_words: words with more pieces than a row holds; their last pieces are left out.
        empty_words: words that the tokenizer turns into nothing; [UNK] keeps their place.
    """

    rows_per_unit = 1

    def __init__(self, tokenizer: Tokenizer, max_seq_len: int, tags: Sequence[str] = (), context_len: int = 0):
        """Makes the encoder.

        Args:
            tokenizer: gives the ids.
            max_seq_len: tokens of a row at most, [CLS] and [SEP] among them.
            tags: the names of the tags, in order of their numbers; none to encode without labels.
            context_len: tokens of the document, at most, that are read on either side of a sentence.

        Raises:
            UserError: rows so short hold no word.
        """
        if max_seq_len < 3:
            raise UserError(f"max_seq_len is {max_seq_len}: a row holds [CLS], [SEP] and a piece at least")
        self._tokenizer = tokenizer
        self._max_seq_len = max_seq_len
        self._tag_ids = {tag: index for index, tag in enumerate(tags)}
        self._context_len = context_len
        self.sentences = self.long = self.long_words = self.empty_words = 0

    def encode(self, examples: Iterable[TaggedExample]) -> Iterator[tuple[TaggedExample, list[Row]]]:
        """Yields each example with its rows: one, or the windows of a long sentence.

        Their token targets are WORDS and, if encoder and example have tags, LABELS; NO_LABEL where no word is
        predicted.

        Raises:
            KeyError: an example has a tag that is not among those of the encoder.
        """
        batches = in_chunks(examples, _BATCH)
        numbers = itertools.count()
        last, batch = [], next(batches, [])
        while batch:
            following = next(batches, [])
            around, first = ([*last, *batch, *following], len(last)) if self._context_len else (batch, 0)
            unique = list({word for example in around for word in example.words})
            pieces = dict(zip(unique, self._tokenizer.encode_batch(unique), strict=True))
            for place, example in enumerate(batch, start=first):
                before, after = self._neighbours(around, place, pieces)
                yield example, self._rows(example, next(numbers), pieces, before, after)
            last, batch = batch, following

    def report(self) -> list[str]:
        """Returns lines for people on what was encoded so far."""
        line = f"{self.long:,} of {self.sentences:,} sentences are longer than {self._max_seq_len} tokens"
        lines = [f"{line}; they are read in windows" if self.long else line]
        if self.long_words:
            lines.append(f"{self.long_words:,} words have more pieces than a row; their last ones are left out")
        if self.empty_words:
            lines.append(f"{self.empty_words:,} words hold nothing that the tokenizer keeps; each is [UNK]")
        return lines

    def _words(self, example: TaggedExample, pieces: dict[str, list[int]]) -> list[list[int]]:
        """Returns the pieces of each word, none for a word that the tokenizer turns into nothing."""
        words = []
        before = None
        for word, (start, end) in zip(example.words, example.word_spans, strict=True):
            words.append(pieces[word] if start != before else self._continued(pieces[word]))
            before = end
        return words

    def _neighbours(
        self, examples: Sequence[TaggedExample], at: int, pieces: dict[str, list[int]]
    ) -> tuple[list[int], list[int]]:
        """Returns what stands before and after an example in its document, as far as it may be read."""
        document = examples[at].document
        sides: list[list[int]] = []
        for direction in (-1, 1):
            found: list[int] = []
            place = at + direction
            while document is not None and len(found) < self._context_len and 0 <= place < len(examples):
                if examples[place].document != document:
                    break
                flat = [index for ids in self._words(examples[place], pieces) for index in ids]
                found = flat + found if direction < 0 else found + flat
                place += direction
            sides.append(found)
        before, after = sides
        return before[max(0, len(before) - self._context_len) :], after[: self._context_len]

    def _rows(
        self, example: TaggedExample, number: int, pieces: dict[str, list[int]], before: list[int], after: list[int]
    ) -> list[Row]:
        limit = self._max_seq_len - 2
        words = []
        for ids in self._words(example, pieces):
            self.empty_words += not ids
            self.long_words += len(ids) > limit
            words.append(ids[:limit] or [self._tokenizer.unk_id])
        labels = self._labels(example)
        edges = np.concatenate([[0], np.cumsum([len(ids) for ids in words])]).astype(np.int64)
        windows = word_windows(edges, limit)
        self.sentences += 1
        self.long += len(windows) > 1
        chosen = _most_context(edges, windows)
        # What is left of the row goes to both sides alike, and what one does not need to the other.
        room = limit - int(edges[-1]) if len(windows) == 1 else 0
        before = before[len(before) - min(len(before), max(room // 2, room - len(after))) :]
        after = after[: room - len(before)]
        rows = []
        for window, (first, last) in enumerate(windows):
            flat = [index for ids in words[first:last] for index in ids]
            tokens = [self._tokenizer.cls_id, *before, *flat, *after, self._tokenizer.sep_id]
            predicted = first + np.flatnonzero(chosen[first:last] == window)
            places = 1 + len(before) + edges[predicted] - edges[first]
            targets = {WORDS: np.full(len(tokens), NO_LABEL, np.int32)}
            targets[WORDS][places] = predicted
            if labels is not None:
                targets[LABELS] = np.full(len(tokens), NO_LABEL, np.int32)
                targets[LABELS][places] = labels[predicted]
            rows.append(Row(tokens, len(tokens), number, token_targets=targets))
        return rows

    def _labels(self, example: TaggedExample) -> np.ndarray | None:
        if not self._tag_ids or example.tags is None:
            return None
        return np.array([self._tag_ids[tag] for tag in example.tags], np.int32)

    def _continued(self, ids: list[int]) -> list[int]:
        """Returns the pieces of a word that no space parts from the one before it.

        Alone, a word gets SentencePiece's mark of a beginning; in the text it would not have it.
        """
        if self._tokenizer.kind != "sentencepiece" or not ids:
            return ids
        first = self._tokenizer.id_to_token(ids[0])
        if first == WORD_START:
            return ids[1:] or ids
        continued = self._tokenizer.token_to_id(first.removeprefix(WORD_START))
        return ids if continued is None else [continued, *ids[1:]]


def tag_names(examples: Iterable[TaggedExample]) -> list[str]:
    """Returns the tags of a training set in order of their numbers: `O`, then for every type `B-` and `I-`.

    Both are there for every type, even if one never occurs, so that every entity of dev can be written.
    """
    types = {tag.partition("-")[1:] for example in examples for tag in example.tags or () if tag != "O"}
    return ["O", *(prefix + dash + label for dash, label in sorted(types) for prefix in ("B", "I"))]


def word_windows(edges: np.ndarray, limit: int) -> list[tuple[int, int]]:
    """Returns windows of whole words, as (first, last + 1), that overlap by about a half and together hold all.

    Args:
        edges: int64 `[words + 1]`, where each word begins among the sentence's pieces, and the end; no word has more
            than `limit`.
        limit: pieces of a window at most.
    """
    count = len(edges) - 1
    windows = []
    first = 0
    while True:
        last = int(np.searchsorted(edges, edges[first] + limit, side="right")) - 1
        windows.append((first, last))
        if last == count:
            return windows
        following = int(np.searchsorted(edges, edges[first] + max(1, limit // 2)))
        # No word between two windows may be left out; and the last window is filled from its beginning.
        filled = int(np.searchsorted(edges, edges[count] - limit))
        first = min(following, last, filled)


def gather_words(
    examples: Sequence[TaggedExample], rows: EncodedRows, values: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Returns what was predicted of the words of every example.

    Args:
        examples: all that the rows are of.
        rows: as the encoder made them.
        values: for every row an array `[tokens, ...]`, such as tags' numbers or probabilities; padding may follow.

    Returns:
        For every example `[words, ...]`.
    """
    shape, dtype = (np.shape(values[0])[1:], np.asarray(values[0]).dtype) if len(values) else ((), np.int32)
    gathered = [np.zeros((len(example.words), *shape), dtype) for example in examples]
    for row, value in enumerate(values):
        words = rows.token_targets[WORDS][rows.offsets[row] : rows.offsets[row + 1]]
        places = np.flatnonzero(words != NO_LABEL)
        gathered[rows.examples[row]][words[places]] = np.asarray(value)[places]
    return gathered


def tagging_prediction(
    example: TaggedExample, tags: Sequence[str], probabilities: Sequence[float] | None = None
) -> dict[str, Any]:
    """Returns a prediction as JSON values: words with tags, and entities as spans of characters of the text.

    Args:
        example: what was predicted.
        tags: IOB2 tags of its words, whatever a model gave; read as conlleval does.
        probabilities: of these tags; an entity's is that of its least certain word.
    """
    entities = []
    for entity in predicted_entities(tags):
        start, end = example.word_spans[entity.start][0], example.word_spans[entity.end - 1][1]
        found = {"start": start, "end": end, "label": entity.label, "text": example.text[start:end]}
        if probabilities is not None:
            found["probability"] = float(min(probabilities[entity.start : entity.end]))
        entities.append(found)
    prediction = {"id": example.id, "text": example.text, "words": list(example.words), "tags": list(tags)}
    if probabilities is not None:
        prediction["probabilities"] = [float(probability) for probability in probabilities]
    return {**prediction, "entities": entities}


def _most_context(edges: np.ndarray, windows: Sequence[tuple[int, int]]) -> np.ndarray:
    """Returns for every word the window where the smaller of its left and right contexts is largest, the first such."""
    if len(windows) == 1:
        return np.zeros(len(edges) - 1, np.int64)
    context = np.full((len(windows), len(edges) - 1), -1, np.int64)
    for index, (first, last) in enumerate(windows):
        left = edges[first:last] - edges[first]
        right = edges[last] - edges[first + 1 : last + 1]
        context[index, first:last] = np.minimum(left, right)
    return context.argmax(axis=0)
