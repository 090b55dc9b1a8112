"""Offsets: where each piece stands in the text as it was given."""

import itertools
import random

import numpy as np
import pytest

from bert_jax.text.tokenizers import train_tokenizer

TEXTS = [
    "Café, cafe\u0301s and naïve Ångströms in the old town of Zürich.",
    "The ﬁne oﬃce was ﬂat; ① and ½ were there, ＦＵＬＬ width too.",
    "北京大学在中国北京市海淀区，成立于1898年。Peking University 是 the name.",
    "안녕하세요 and हिन्दी and ภาษาไทย beside العربية words.",
    "An emoji 👍🏽 then 👨\u200d👩\u200d👧 and ☆star; the\u00a0no-break\u3000space.",
    "  leading  and   trailing\t\nspaces   ",
]
STRANGE = [
    *TEXTS,
    "a\x00b\u200bc\ufeff \x07x",
    "e\u0301\u0302 \u0301x İstanbul STRASSE ß",
    "pair \ud83d\udc4d joined, half \ud83d alone \udc4d end",
    "supercalifragilisticexpialidocious" * 5,
    "\u200b",
    "",
    "   ",
]
VARIANTS = [
    {"kind": "wordpiece", "vocab_size": 400},
    {"kind": "wordpiece", "vocab_size": 400, "cased": True},
    {"kind": "sentencepiece", "vocab_size": 119},
    {"kind": "sentencepiece", "vocab_size": 190, "cased": True, "algorithm": "bpe"},
]


_GENERATOR = random.Random(1)
_POOL = "".join(TEXTS) + "\x00\u200b\ufeff\u0301\u3000½ﬃİßǅ①㎏\u1100\u1161가\ud83d\udc4d\t\n"
STRANGE += ["".join(_GENERATOR.choices(_POOL, k=_GENERATOR.randint(0, 25))) for _ in range(500)]


@pytest.fixture(scope="module", params=VARIANTS, ids=lambda v: "-".join(map(str, v.values())))
def tokenizer(request):
    return train_tokenizer(TEXTS * 3, **request.param)


def test_ids_are_those_of_encode_batch(tokenizer):
    pieces = tokenizer.encode_with_offsets(STRANGE)
    assert [list(piece.ids) for piece in pieces] == [list(ids) for ids in tokenizer.encode_batch(STRANGE)]
    assert all(len(piece.ids) == len(piece.starts) == len(piece.ends) for piece in pieces)


def test_spans_are_in_order_and_inside_the_text(tokenizer):
    for text, (_, starts, ends) in zip(STRANGE, tokenizer.encode_with_offsets(STRANGE), strict=True):
        assert (np.diff(starts) >= 0).all() and (np.diff(ends) >= 0).all(), text
        assert (starts >= 0).all() and (starts <= ends).all() and (ends <= len(text)).all(), text
        for (start, end), (following, last) in itertools.pairwise(zip(starts, ends, strict=True)):
            # Either apart, or parts of one and the same character.
            assert end <= following or (start, end) == (following, last), (text, start, end, following, last)


def test_spans_cover_every_character_that_is_kept(tokenizer):
    """Of ordinary texts, nothing but spaces is outside of all spans: accents and joiners belong to their letters."""
    for text, (_, starts, ends) in zip(TEXTS, tokenizer.encode_with_offsets(TEXTS), strict=True):
        covered = np.zeros(len(text), bool)
        for start, end in zip(starts, ends, strict=True):
            covered[start:end] = True
        outside = [character for character, inside in zip(text, covered, strict=True) if not inside]
        assert all(character.isspace() for character in outside), (text, outside)


def test_no_span_begins_or_ends_with_a_space(tokenizer):
    for text, (_, starts, ends) in zip(TEXTS, tokenizer.encode_with_offsets(TEXTS), strict=True):
        for start, end in zip(starts, ends, strict=True):
            assert text[start:end] == text[start:end].strip()


def test_only_the_mark_of_a_words_beginning_stands_for_no_character(tokenizer):
    """The halves of a ligature both stand for it."""
    for ids, starts, ends in tokenizer.encode_with_offsets(TEXTS):
        empty = {
            tokenizer.id_to_token(index) for index, start, end in zip(ids, starts, ends, strict=True) if start == end
        }
        assert empty <= {"\u2581"}


def test_a_word_is_cut_out_as_it_was_written(tokenizer):
    """The span from the first to the last piece of a word is the word, accents, case and all."""
    text = "She saw Ångströms, cafe\u0301s and 👍🏽 twice"
    _, starts, ends = tokenizer.encode_with_offsets([text])[0]
    for word in ("Ångströms", "cafe\u0301s", "👍🏽", "twice"):
        at = text.index(word)
        inside = np.flatnonzero((starts >= at) & (ends <= at + len(word)) & (ends > starts))
        assert text[starts[inside[0]] : ends[inside[-1]]] == word


def test_halves_of_surrogate_pairs_do_not_shift_what_follows(tokenizer):
    text = "\ud83d\udc4d and \ud83d alone, the old town"
    _, starts, ends = tokenizer.encode_with_offsets([text])[0]
    at = text.index("town")
    assert at in starts
    assert len(text) == ends[-1]
