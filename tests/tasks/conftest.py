"""A tokenizer that cuts words into letters, so that the pieces of a text can be counted by eye."""

import pytest

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_TOKENS = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "?", *_LETTERS, *(f"##{one}" for one in _LETTERS)]


@pytest.fixture(scope="session")
def letter_tokenizer():
    from bert_jax.text.wordpiece import WordPieceTokenizer

    return WordPieceTokenizer(_TOKENS, cased=False)
