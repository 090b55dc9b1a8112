"""Words of a new domain, added whole to a WordPiece vocabulary for continued pre-training.

The slots that the published vocabularies left free ([unused0], [unused1], ...) are taken first, in order, so that a
model keeps its size as long as there are any; further words get new ids at the end. The listing of what was added, with
the pieces that each word was cut into before, stays with the tokenizer: the mean of the pieces' embeddings is where a
new word's embedding should start.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from bert_jax.errors import UserError
from bert_jax.text.json_files import expect_type, show_json
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.wordpiece import WordPieceTokenizer

# The entry of `Tokenizer.training` that holds the listing.
TRAINING_ENTRY = "added_words"

_ENTRY = {"word": str, "id": int, "unused_slot": str | None, "pieces": list[int]}

_UNUSED = re.compile(r"\[unused\d+\]")


@dataclasses.dataclass(frozen=True)
class AddedWord:
    """A word that became a token.

    Attributes:
        word: the token.
        id: its id.
        unused_slot: the token whose id it took, such as "[unused0]"; None for an id at the end.
        pieces: ids that the word was cut into before; one [UNK] if it could not be written.
    """

    word: str
    id: int
    unused_slot: str | None
    pieces: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Listing:
    """What adding words did.

    Attributes:
        added: the new tokens, in the order of the words.
        left_out: words that were whole in the vocabulary already, or repeated.
    """

    added: tuple[AddedWord, ...]
    left_out: tuple[str, ...]


def add_words(
    tokenizer: Tokenizer, words: Sequence[str], source: str = "words", training: dict[str, Any] | None = None
) -> tuple[WordPieceTokenizer, Listing]:
    """Returns a tokenizer in which each word is one token, and what was added; ids of other tokens stay.

    Args:
        tokenizer: a WordPiece tokenizer; it is not changed.
        words: as the lines of a file: white space around a word is dropped, blank ones are skipped.
        source: the file's name for error messages.
        training: entries for the new tokenizer's `training`, beside those of `tokenizer` and the listing. Words that
            were added earlier stay in the listing, before the new ones.

    Raises:
        UserError: not a WordPiece tokenizer, nothing to add, or a word that no text would give whole, as the basic
            tokenization splits or changes it.
    """
    if not isinstance(tokenizer, WordPieceTokenizer):
        raise UserError(f"words can be added to a wordpiece tokenizer only, and this one is {tokenizer.kind}")
    new_words: dict[str, None] = {}  # in order, each once
    left_out: list[str] = []
    for number, line in enumerate(words, start=1):
        word = line.strip()
        if not word:
            continue
        _check_word(tokenizer, word, f"{source}:{number}")
        if tokenizer.token_to_id(word) is not None or word in new_words:
            left_out.append(word)
        else:
            new_words[word] = None
    if not new_words:
        raise UserError(
            f"nothing to add from {source}: "
            + ("each of its words is whole in the vocabulary already" if left_out else "it holds no words")
        )

    changed, added = _with_words(tokenizer, list(new_words), training or {})
    return changed, Listing(added, tuple(left_out))


def add_markers(tokenizer: Tokenizer, markers: Sequence[str]) -> Tokenizer:
    """Returns a tokenizer with a token for each marker, such as "[E1]", that no text gives.

    Texts are split at the brackets, so that a marker has to be put between their pieces by its id. Like added words,
    markers are listed and begin with the mean of their pieces' embeddings.

    Args:
        tokenizer: a WordPiece tokenizer; it is not changed, and returned if it has all of them.
        markers: words that the basic tokenization splits.

    Raises:
        UserError: not a WordPiece tokenizer.
    """
    missing = [marker for marker in markers if tokenizer.token_to_id(marker) is None]
    if not missing:
        return tokenizer
    if not isinstance(tokenizer, WordPieceTokenizer):
        raise UserError(
            f"the markers {', '.join(missing)} can be added to a wordpiece tokenizer only, and this one is"
            f" {tokenizer.kind}: take a model with a wordpiece vocabulary"
        )
    return _with_words(tokenizer, missing, {})[0]


def _with_words(
    tokenizer: WordPieceTokenizer, words: Sequence[str], training: dict[str, Any]
) -> tuple[WordPieceTokenizer, tuple[AddedWord, ...]]:
    """Returns a tokenizer with these tokens, all of them new, and what was added."""
    tokens = [tokenizer.id_to_token(index) for index in range(tokenizer.vocab_size)]
    unused = (index for index, token in enumerate(tokens) if _UNUSED.fullmatch(token))
    added = []
    for word, pieces in zip(words, tokenizer.encode_batch(words), strict=True):
        index = next(unused, None)
        slot = None
        if index is None:
            index = len(tokens)
            tokens.append(word)
        else:
            slot, tokens[index] = tokens[index], word
        added.append(AddedWord(word, index, slot, tuple(pieces)))
    entries = [
        {**dataclasses.asdict(word), "pieces": list(word.pieces)} for word in (*read_added_words(tokenizer), *added)
    ]
    changed = tokenizer.with_tokens(tokens, {**tokenizer.training, **training, TRAINING_ENTRY: entries})
    return changed, tuple(added)


def read_added_words(tokenizer: Tokenizer) -> tuple[AddedWord, ...]:
    """Returns all words that were ever added to a tokenizer, in order.

    A word's pieces can be ids of words before it. To start from weights of a model, take those words in order whose id
    means another token, or none, in that model's own tokenizer.
    """
    place, remedy = "the tokenizer's listing of added words is damaged", "add them again"
    found = []
    for entry in expect_type(tokenizer.training.get(TRAINING_ENTRY, []), list[dict], f"{place}: it", remedy):
        word, index, slot, pieces = (
            expect_type(entry.get(name), kind, f"{place}: {name}", remedy) for name, kind in _ENTRY.items()
        )
        if not all(0 <= one < tokenizer.vocab_size for one in (index, *pieces)):
            raise UserError(f"{place}: {show_json(word)} has ids that the vocabulary does not have: {remedy}")
        found.append(AddedWord(word, index, slot, tuple(pieces)))
    return tuple(found)


def _check_word(tokenizer: WordPieceTokenizer, word: str, place: str) -> None:
    """Raises a UserError unless the basic tokenization of a text can give this very word."""
    parts = tokenizer.split_words(word)
    if len(parts) > 1:
        shown = " ".join(parts)
        raise UserError(
            f"{place}: {word!r} is not one word: texts are split into {shown!r} (at spaces, punctuation, Chinese"
            " characters); add its parts, one a line"
        )
    if not parts:
        raise UserError(f"{place}: {word!r} holds nothing that is kept of a text: remove the line")
    if parts[0] != word:
        raise UserError(
            f"{place}: {word!r} never occurs, as this tokenizer makes it {parts[0]!r} (case, accents, characters that"
            f" are removed); write {parts[0]!r}"
        )
    longest = tokenizer.rules["max_input_chars_per_word"]
    if len(word) > longest:
        raise UserError(f"{place}: a word of {len(word)} characters is always [UNK]: at most {longest} are allowed")
