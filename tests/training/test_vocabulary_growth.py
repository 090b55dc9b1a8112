"""Words added to a tokenizer get rows of their own, and only such tokenizers go with a model."""

import numpy as np
import pytest

from bert_jax.errors import UserError
from bert_jax.text.added_words import add_words
from bert_jax.text.wordpiece import WordPieceTokenizer
from bert_jax.training.vocabulary_growth import describe_growth, grow_vocabulary, words_added_since

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused0]", "lock", "##down", "##s", "vi", "##rus"]


@pytest.fixture
def tokenizer():
    return WordPieceTokenizer(TOKENS, cased=False)


def parameters(rows=12):
    random = np.random.default_rng(0)
    return {
        "bert": {
            "embeddings": {"word_embeddings": {"embedding": random.normal(size=(rows, 3))}, "other": 1},
            "encoder": {"kernel": 2},
        },
        "masked_lm": {"bias": random.normal(size=rows), "transform": 3},
    }


def test_rows_are_means_of_the_pieces(tokenizer):
    grown_tokenizer, _ = add_words(tokenizer, ["lockdown", "virus"])
    # Added later, and written with a word added before.
    grown_tokenizer, _ = add_words(grown_tokenizer, ["lockdowns"])
    words = words_added_since(tokenizer, grown_tokenizer, "model")
    assert [(word.word, word.id) for word in words] == [("lockdown", 5), ("virus", 11), ("lockdowns", 12)]
    before = parameters()
    after = grow_vocabulary(before, words, 16)
    table, old = (tree["bert"]["embeddings"]["word_embeddings"]["embedding"] for tree in (after, before))
    bias, old_bias = after["masked_lm"]["bias"], before["masked_lm"]["bias"]
    for new, previous in ((table, old), (bias, old_bias)):
        assert new.shape == (16, *previous.shape[1:])
        np.testing.assert_array_equal(new[:5], previous[:5])
        np.testing.assert_array_equal(new[6:11], previous[6:11])
        np.testing.assert_allclose(new[5], (previous[6] + previous[7]) / 2)
        np.testing.assert_allclose(new[11], (previous[9] + previous[10]) / 2)
        np.testing.assert_allclose(new[12], (new[5] + previous[8]) / 2)
        assert not new[13:].any()
    assert after["bert"]["encoder"] is before["bert"]["encoder"] and after["masked_lm"]["transform"] == 3
    # From the model that already knew the first two, only the last is new.
    middle, _ = add_words(tokenizer, ["lockdown", "virus"])
    assert [word.word for word in words_added_since(middle, grown_tokenizer, "model")] == ["lockdowns"]


def test_without_a_masked_lm_head(tokenizer):
    grown_tokenizer, _ = add_words(tokenizer, ["virus"])
    words = words_added_since(tokenizer, grown_tokenizer, "model")
    before = parameters()
    del before["masked_lm"]
    assert grow_vocabulary(before, words, 12).keys() == {"bert"}


def test_the_listing(tokenizer):
    grown_tokenizer, _ = add_words(tokenizer, ["lockdown", "virus"])
    words = words_added_since(tokenizer, grown_tokenizer, "model")
    assert describe_growth(words, grown_tokenizer)[1:] == [
        "  5 lockdown (in the place of [unused0]): lock ##down",
        "  11 virus (new): vi ##rus",
    ]
    assert describe_growth(words, grown_tokenizer, most=1)[2:] == ["  and 1 more"]


def test_the_same_tokenizer_adds_nothing(tokenizer):
    assert words_added_since(tokenizer, WordPieceTokenizer(TOKENS, cased=False), "model") == ()


@pytest.mark.parametrize(
    "other",
    [
        WordPieceTokenizer([*TOKENS[:-1], "##ruses"], cased=False),
        WordPieceTokenizer([*TOKENS, "new"], cased=False),
        WordPieceTokenizer(TOKENS[:-1], cased=False),
        WordPieceTokenizer(TOKENS, cased=True),
    ],
    ids=["another token", "one more", "one less", "cased"],
)
def test_other_tokenizers_do_not_go_with_the_model(tokenizer, other):
    with pytest.raises(UserError, match="another tokenizer than that of model"):
        words_added_since(tokenizer, other, "model")
