"""Going on from a model with a vocabulary that has grown: continued pre-training on a new domain."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bert_jax.errors import UserError
from bert_jax.text.added_words import AddedWord, read_added_words
from bert_jax.text.tokenizer import Tokenizer


def words_added_since(older: Tokenizer, tokenizer: Tokenizer, source: str) -> tuple[AddedWord, ...]:
    """Returns the words that a tokenizer has and a model's own has not, in the order in which they were added.

    Args:
        older: the tokenizer of the model.
        tokenizer: that of the rows.
        source: where the model comes from, for messages.

    Raises:
        UserError: they differ in more than added words, so that the model's embeddings would be those of other tokens.
    """
    if older.fingerprint == tokenizer.fingerprint:
        return ()
    differing = [
        index
        for index in range(max(older.vocab_size, tokenizer.vocab_size))
        if index >= min(older.vocab_size, tokenizer.vocab_size)
        or older.id_to_token(index) != tokenizer.id_to_token(index)
    ]
    added = {word.id: word for word in read_added_words(tokenizer)}
    foreign = [index for index in differing if index not in added or index >= tokenizer.vocab_size]
    if foreign or older.settings.get("cased") != tokenizer.settings.get("cased"):
        what = f"{len(foreign)} of the tokens differ" if foreign else "one keeps case, the other does not"
        raise UserError(
            f"the rows were made with another tokenizer than that of {source} ({what}): prepare them with its own, or"
            " with words added to it (python -m launch.train_tokenizer --from=MODEL --add_words=FILE)"
        )
    return tuple(word for word in added.values() if word.id in set(differing))


def grow_vocabulary(
    parameters: Mapping[str, Any], words: Sequence[AddedWord], padded_vocab_size: int
) -> dict[str, Any]:
    """Gives each added word a row of its own: the mean of the rows of the pieces that it was cut into before.

    Args:
        parameters: of a model before the words were added; bert/embeddings/word_embeddings/embedding
            `[padded vocab, hidden]` and, where there is a masked-LM head, masked_lm/bias `[padded vocab]` grow.
        words: in the order in which they were added; pieces may be words before them.
        padded_vocab_size: rows to come to.

    Returns:
        New parameters; those given are not changed.
    """

    def grow(table: Any) -> np.ndarray:
        table = np.asarray(table)
        grown = np.zeros((max(padded_vocab_size, len(table)), *table.shape[1:]), table.dtype)
        grown[: len(table)] = table
        for word in words:
            grown[word.id] = grown[list(word.pieces)].mean(axis=0)
        return grown

    bert = parameters["bert"]
    embeddings = bert["embeddings"]
    words_table = {**embeddings["word_embeddings"], "embedding": grow(embeddings["word_embeddings"]["embedding"])}
    grown = {**parameters, "bert": {**bert, "embeddings": {**embeddings, "word_embeddings": words_table}}}
    if "masked_lm" in parameters:
        grown["masked_lm"] = {**parameters["masked_lm"], "bias": grow(parameters["masked_lm"]["bias"])}
    return grown


def describe_growth(words: Sequence[AddedWord], tokenizer: Tokenizer, most: int = 20) -> list[str]:
    """Returns a line for each added word, at most so many: its id, and whose mean its embedding begins with."""
    lines = [f"{len(words)} added word(s), each beginning with the mean of its pieces:"]
    for word in words[:most]:
        pieces = " ".join(tokenizer.id_to_token(piece) for piece in word.pieces)
        place = f"in the place of {word.unused_slot}" if word.unused_slot else "new"
        lines.append(f"  {word.id} {word.word} ({place}): {pieces}")
    if len(words) > most:
        lines.append(f"  and {len(words) - most} more")
    return lines
