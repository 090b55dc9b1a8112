"""Sentence splitting: nothing but whitespace is lost, whatever the language."""

import pytest

from bert_jax.errors import UserError
from bert_jax.text.sentences import split_sentences


def test_english():
    text = 'Dr. Smith went\nto  Washington. "Really?" he asked. It cost 3.50 dollars!'
    sentences = split_sentences(text, "en")
    assert sentences[0] == "Dr. Smith went to Washington."
    assert sentences[-1] == "It cost 3.50 dollars!"
    assert " ".join(sentences) == " ".join(text.split())


def test_chinese():
    assert split_sentences("我们去北京。天气很好！你呢？", "zh") == ["我们去北京。", "天气很好！", "你呢？"]


@pytest.mark.parametrize("text", ["", " \n\t ", "\u3000"])
def test_whitespace_has_no_sentences(text):
    assert split_sentences(text, "en") == []


@pytest.mark.parametrize("language", ["english", "EN", "xx", "", "zh-hans"])
def test_unknown_language(language):
    with pytest.raises(UserError, match="unknown language"):
        split_sentences("A text.", language)
