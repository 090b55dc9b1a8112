"""Which part of a corpus is held out for validation: documents as a whole, or, of a few long ones, a part of each.

Documents are drawn whole, so that nothing of them is trained on. Where those drawn are much more than the share that
is asked for, as two of five books are, a stretch of each long one is held out instead, from a paragraph to a paragraph,
and the rest of it is trained on.
"""

import dataclasses
import random

import numpy as np

from bert_jax.data import rows
from bert_jax.data.token_store import TokenStore

# Whole documents may be so many times the share that is asked for before they are cut.
MOST_OVERSHOOT = 2
# A stretch that is held out of a document is enough for about so many rows, or all of it.
LEAST_ROWS = 16
# A stretch may be so much longer or shorter than wanted for the sake of paragraphs; else it ends between two sentences.
_PARAGRAPH_TOLERANCE = 0.5


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """The split of a corpus.

    Attributes:
        cuts: sentences before which documents are cut, besides where they begin, int64 [cuts] in increasing order; what
            lies between counts as a document of its own.
        documents: for each split the indices of its documents in the store that is cut so, increasing, int64
            [documents].
        drawn: number of documents that are held out.
        cut: of these, how many only in part.
        tokens: held out.
        whole_tokens: of the drawn documents, held out or not.
    """

    cuts: np.ndarray
    documents: dict[str, np.ndarray]
    drawn: int
    cut: int
    tokens: int
    whole_tokens: int


def least_documents(pairs: str) -> int:
    """Returns how many documents a split needs: random second segments come from another document of it."""
    return 2 if pairs == "nsp" else 1


def draw_documents(num_documents: int, recipe: rows.Recipe) -> np.ndarray:
    """Draws the documents for validation.

    They are `validation_fraction` of the documents and at least as many as its pairs need, or none where that would
    leave training without enough.

    Returns:
        Their indices in increasing order, int64 [documents].
    """
    least = least_documents(recipe.pairs)
    wanted = max(round(recipe.validation_fraction * num_documents), least) if recipe.validation_fraction else 0
    if num_documents - wanted < least:
        wanted = 0
    generator = random.Random(f"{recipe.seed} validation")
    return np.array(sorted(generator.sample(range(num_documents), wanted)), np.int64)


def hold_out(store: TokenStore, recipe: rows.Recipe) -> HeldOut:
    """Splits a corpus; the same tokens and the same recipe are split alike.

    With n documents drawn, at most MOST_OVERSHOOT * max(validation_fraction * tokens of the corpus, n * LEAST_ROWS *
    seq_len) + n * (tokens of the longest sentence) tokens are held out.

    Args:
        store: the corpus, with its documents whole.
        recipe: of the rows.
    """
    drawn = draw_documents(store.num_documents, recipe)
    lengths = store.document_lengths(drawn)
    wanted = max(recipe.validation_fraction * store.num_tokens, len(drawn) * LEAST_ROWS * recipe.seq_len)
    starts, ends = store.document_offsets[drawn], store.document_offsets[drawn + 1]
    cuts: list[int] = []
    if lengths.sum() > MOST_OVERSHOOT * wanted:
        most = _level(lengths, wanted)
        for place in np.flatnonzero(lengths > most).tolist():
            generator = random.Random(f"{recipe.seed} part of document {drawn[place]}")
            stretch = _stretch(store, int(drawn[place]), most, generator)
            cuts += set(stretch) - {int(starts[place]), int(ends[place])}
            starts[place], ends[place] = stretch
    offsets = np.union1d(store.document_offsets, np.array(cuts, np.int64)) if cuts else store.document_offsets
    validation = np.searchsorted(offsets, starts)
    in_train = np.ones(len(offsets) - 1, bool)
    in_train[validation] = False
    tokens = store.sentence_offsets[ends] - store.sentence_offsets[starts]
    return HeldOut(
        cuts=np.array(sorted(cuts), np.int64),
        documents={rows.TRAIN: np.flatnonzero(in_train), rows.VALIDATION: validation},
        drawn=len(drawn),
        cut=int(np.count_nonzero(tokens < lengths)),
        tokens=int(tokens.sum()),
        whole_tokens=int(lengths.sum()),
    )


def _level(lengths: np.ndarray, total: float) -> float:
    """Returns the length that all are cut to which are longer, for the sum of `lengths` [documents] to be `total`."""
    ascending = np.sort(lengths)
    left = total
    for place, length in enumerate(ascending.tolist()):
        if length * (len(ascending) - place) >= left:
            return left / (len(ascending) - place)
        left -= length
    return float(ascending[-1])


def _stretch(store: TokenStore, document: int, tokens: float, generator: random.Random) -> tuple[int, int]:
    """Draws a stretch of about so many tokens of a longer document; returns its first sentence, and the one after it.

    It begins and ends with a paragraph where that gives about the wanted length, else with a sentence. One sentence at
    least is left over, unless the document has no other.
    """
    first, end = store.document_offsets[document : document + 2].tolist()
    wanted_start = store.sentence_offsets[first] + generator.random() * (
        store.sentence_offsets[end] - store.sentence_offsets[first] - tokens
    )
    between = np.searchsorted(store.passage_offsets, [first, end])
    paragraphs = np.union1d(store.passage_offsets[between[0] : between[1]], [first, end])
    for bounds in (paragraphs, np.arange(first, end + 1)):
        places = store.sentence_offsets[bounds]
        start = min(_nearest(places, wanted_start), len(bounds) - 2)
        stop = max(_nearest(places, places[start] + tokens), start + 1)
        if stop - start == len(bounds) - 1 and len(bounds) > 2:
            stop -= 1
        if abs(places[stop] - places[start] - tokens) <= _PARAGRAPH_TOLERANCE * tokens:
            break
    return int(bounds[start]), int(bounds[stop])


def _nearest(places: np.ndarray, wanted: float) -> int:
    """Returns the index of the element of an increasing array [places] that is nearest to a number."""
    after = min(int(np.searchsorted(places, wanted)), len(places) - 1)
    return after - int(after > 0 and wanted - places[after - 1] <= places[after] - wanted)
