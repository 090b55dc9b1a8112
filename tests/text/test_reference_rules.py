"""WordPiece against the rules of Google's original code, written out here; and the known differences of rule.

docs/tokenization.md lists the differences; each has its test at the end of this file.
"""

import gzip
import itertools
import json
import random
import sys
import unicodedata

import pytest

from bert_jax.text.tokenizer import MASK, SPECIAL_TOKENS, UNK
from bert_jax.text.tokenizers import load_tokenizer
from bert_jax.text.wordpiece import GOOGLES_LONGEST_WORD, LONGEST_WORD, WordPieceTokenizer

CHINESE = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


def is_control(character):
    return character not in "\t\n\r" and unicodedata.category(character) in ("Cc", "Cf")


def is_chinese(character):
    return any(first <= ord(character) <= last for first, last in CHINESE)


def is_punctuation(character):
    # All symbols of ASCII count, also those that are no punctuation in Unicode, such as "^", "$" and "`".
    if character.isascii():
        return character.isprintable() and not character.isalnum() and character != " "
    return unicodedata.category(character).startswith("P")


def basic_tokenization(text, cased):
    """Clean the text, set Chinese characters apart, split at white space; lower and strip; split at punctuation."""
    cleaned = ""
    for character in text:
        if character in "\0\ufffd" or is_control(character):
            continue
        is_space = character in " \t\n\r" or unicodedata.category(character) == "Zs"
        cleaned += " " if is_space else f" {character} " if is_chinese(character) else character
    words = []
    for word in cleaned.split():
        if not cased:
            word = unicodedata.normalize("NFD", word.lower())
            word = "".join(character for character in word if unicodedata.category(character) != "Mn")
        words.append("")
        for character in word:
            if is_punctuation(character):
                words += [character, ""]
            else:
                words[-1] += character
    return [word for word in words if word]


def wordpiece(word, vocabulary, longest_word):
    """The longest piece first, again and again; a word that cannot be written to its end is [UNK] as a whole."""
    if len(word) > longest_word:
        return [UNK]
    pieces = []
    while word:
        prefix = "##" if pieces else ""
        length = next((n for n in range(len(word), 0, -1) if prefix + word[:n] in vocabulary), 0)
        if not length:
            return [UNK]
        pieces.append(prefix + word[:length])
        word = word[length:]
    return pieces


def reference_pieces(text, vocabulary, cased, longest_word=LONGEST_WORD):
    words = basic_tokenization(text, cased)
    return [piece for word in words for piece in wordpiece(word, vocabulary, longest_word)]


def pieces(tokenizer, text):
    return [tokenizer.id_to_token(index) for index in tokenizer.encode_batch([text])[0]]


STRESS = {
    "empty": "",
    "white space": "  \t\r\n \u00a0\u3000 ",
    "accents": "Héllo WÖRLD naïve Ångström Việt Nam Łódź",
    "combining": "e\u0301te\u0301 o\u0308\u0323 a\u0328\u0301 \u0301leading trailing\u0301 \u0308 alone",
    "Chinese": "中文字 and 漢字。mixed中words 〇々",
    "Chinese of the extensions": "\u3400\u4dbf\U00020000\U0002a6d6x\U0002a700\U0002b740\uf900\U0002f800 \U00030000",
    "Japanese": "ひらがな カタカナ ガギ か\u3099 ｶﾞ 漢字かな交じり",
    "Korean": "한국어 각 \u1100\u1161\u11a8",
    "control": "con\x01trol\x7f nul\0l fs\x1cgs\x1d us\x1f nel\x85 vt\x0b ff\x0c esc\x1b[0m",
    "white space between": "tabs\tlines\nreturn\r\nnbsp\u00a0wide\u3000thin\u2009ogham\u1680line\u2028paragraph\u2029",
    "zero width": "zero\u200bwidth\u200djoin\u200cers\ufeff \u2060word",
    "soft hyphen": "soft\u00adhyphen non\u2011breaking",
    "emoji": "emoji \U0001f600\U0001f44d\U0001f3fd mid\U0001f600dle \U0001f468\u200d\U0001f469 \u2764\ufe0f 1\u20e3",
    "punctuation": "don't stop-now $5.00 a@b.c x_y 1,000 ~`^+<=>| {}[]()\\/ “quoted” – dash… ‘single’ §¶·•°€©",
    "special tokens": "a [MASK] b[SEP] [CLS][PAD] [UNK] [unused1] ##ing",
    "right to left": "שָׁלוֹם עולם مَرْحَبًا \u202eoverride\u202c \u200fmark",
    "full width": "Ｆｕｌｌ　Ｗｉｄｔｈ！１２３｡",
    "Turkish": "İstanbul Iğdır ısı",
    "German": "Straße STRASSE ẞ groß",
    "Greek": "Ωμέγα ὀδύσσεια σοφός Σας",
    "ligatures and the like": "ﬁne ŉ Ǆ ǅ ǆ ½ Ⅷ ⓐ ㎏ ℃ № x² H₂O \ufdfa \u212b \u1e9b\u0323",
    "Indic and Thai": "नमस्ते दुनिया ภาษาไทย தமிழ்",
    "replacement": "bad\ufffdcharacter",
    "very long words": f"{'a' * 99} {'a' * 100} {'a' * 101} {'ä' * 100} {'ä' * 101} {'b' * 5000}",
}


@pytest.fixture(scope="module", params=[False, True], ids=["uncased", "cased"])
def cased(request):
    return request.param


@pytest.mark.parametrize("name", STRESS)
def test_stress_list(name, cased):
    text = STRESS[name]
    words = basic_tokenization(text, cased)
    # With every word in the vocabulary, the pieces are the words (but for those of more than 100 characters) ...
    tokenizer = WordPieceTokenizer(list(dict.fromkeys([*SPECIAL_TOKENS, *words])), cased)
    assert tokenizer.split_words(text) == words
    assert pieces(tokenizer, text) == [word if len(word) <= LONGEST_WORD else UNK for word in words]
    # ... and with half of the characters, words are cut, and some are unknown.
    characters = sorted(set("".join(words)))
    vocabulary = [*SPECIAL_TOKENS, *characters, *(f"##{character}" for character in characters[::2])]
    tokenizer = WordPieceTokenizer(list(dict.fromkeys(vocabulary)), cased)
    assert pieces(tokenizer, text) == reference_pieces(text, set(vocabulary), cased)


def test_random_mixtures(cased):
    """Characters of every kind beside each other, as no list of examples has them."""
    draw = random.Random(0)
    characters = sorted(set("".join(STRESS.values())) - set("Σ"))  # the capital sigma is a known difference
    tokenizer = WordPieceTokenizer(SPECIAL_TOKENS, cased)
    for _ in range(20_000):
        text = "".join(draw.choices(characters, k=draw.randint(2, 8)))
        assert tokenizer.split_words(text) == basic_tokenization(text, cased), ascii(text)


def test_every_character_of_old(cased):
    """All characters of Unicode 3.2 that are still of the same kind; newer ones are a known difference."""
    old = unicodedata.ucd_3_2_0
    tokenizer = WordPieceTokenizer(SPECIAL_TOKENS, cased)
    compared = 0
    for character in map(chr, range(sys.maxunicode + 1)):
        kind = old.category(character)
        if kind in ("Cn", "Cs", "Co") or kind != unicodedata.category(character):
            continue
        compared += 1
        text = f"x{character}y"
        assert tokenizer.split_words(text) == basic_tokenization(text, cased), ascii(text)
    assert compared > 90_000


@pytest.mark.parametrize("vocabulary", ["bert-base-uncased", "bert-base-chinese"])
def test_stress_list_with_the_published_vocabularies(shared_data, vocabulary, cased):
    path = shared_data / "vocab" / vocabulary / "vocab.txt"
    tokens = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    tokenizer = WordPieceTokenizer(tokens, cased)
    known = set(tokens)
    for name, text in STRESS.items():
        assert pieces(tokenizer, text) == reference_pieces(text, known, cased), name


@pytest.mark.parametrize(("corpus", "vocabulary"), [("wiki_en", "bert-base-uncased"), ("wiki_zh", "bert-base-chinese")])
def test_real_text(shared_data, corpus, vocabulary):
    texts = read_lines(shared_data / "corpora", corpus, 1500)
    tokenizer = load_tokenizer(shared_data / "vocab" / vocabulary)
    known = {tokenizer.id_to_token(index) for index in range(tokenizer.vocab_size)}
    for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
        if has_known_difference(text):
            continue
        assert [tokenizer.id_to_token(index) for index in ids] == reference_pieces(text, known, cased=False), text
    assert sum(map(has_known_difference, texts)) < 5


def read_lines(folder, corpus, number):
    if corpus == "wiki_zh":
        with gzip.open(folder / "wiki_zh.jsonl.gz", "rt", encoding="utf-8") as file:
            return [json.loads(line)["text"][:2000] for line in itertools.islice(file, number)]
    lines = []
    for path in sorted((folder / "wiki_en").glob("*.gz"))[::4]:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            lines += [line for line in itertools.islice(file, 400) if line.strip()]
    return lines[:number]


def has_known_difference(text):
    return "Σ" in text or any(unicodedata.category(character) == "Co" for character in text)


# The known differences, each with what the original does (by the reference) and what is done here.


def check_difference(text, original, ours, cased=False):
    assert basic_tokenization(text, cased) == original
    assert WordPieceTokenizer(SPECIAL_TOKENS, cased).split_words(text) == ours


def test_difference_of_the_longest_word():
    tokens = [*SPECIAL_TOKENS, "a", "##a"]
    usual = WordPieceTokenizer(tokens, cased=False)
    googles = WordPieceTokenizer(tokens, cased=False, rules={"max_input_chars_per_word": GOOGLES_LONGEST_WORD})
    assert googles.fingerprint != usual.fingerprint
    for length in (100, 101, 200, 201):
        written = ["a", *["##a"] * (length - 1)]
        assert pieces(usual, "a" * length) == (written if length <= 100 else [UNK])
        assert pieces(googles, "a" * length) == (written if length <= 200 else [UNK])
        assert pieces(googles, "a" * length) == reference_pieces("a" * length, set(tokens), False, 200)


def test_difference_of_the_final_sigma():
    check_difference("ΟΔΟΣ ΟΔΟΣ.", ["οδος", "οδος", "."], ["οδοσ", "οδοσ", "."])
    # Nothing else differs: elsewhere in a word, and where it is small already.
    for text in ("ΣΟΦΙΑ", "Σας", "οδος", "Σ"):
        check_difference(text, basic_tokenization(text, False), basic_tokenization(text, False))
    check_difference("ΟΔΟΣ", ["ΟΔΟΣ"], ["ΟΔΟΣ"], cased=True)


@pytest.mark.parametrize("character", ["\ue000", "\uf8ff", "\U000f0000", "\U0010fffd"], ids=ascii)
def test_difference_of_private_characters(character):
    check_difference(f"a{character}b", [f"a{character}b"], ["ab"])


def test_difference_of_a_block_of_chinese_extension_e():
    # U+2B820 to U+2B91F; from U+2B920 on they are apart in both.
    for character in ("\U0002b820", "\U0002b91f"):
        check_difference(f"x{character}y", ["x", character, "y"], [f"x{character}y"])
    for character in ("\U0002b81d", "\U0002b920", "\U0002cea1"):
        check_difference(f"x{character}y", ["x", character, "y"], ["x", character, "y"])


@pytest.mark.parametrize(
    ("text", "original", "ours"),
    [
        ("a\u2e4eb", ["a", "\u2e4e", "b"], ["a\u2e4eb"]),  # punctuation of Unicode 11
        ("a\u08e2b", ["ab"], ["a\u08e2b"]),  # a format character of Unicode 9
        ("a\U00011c36b", ["ab"], ["a\U00011c36b"]),  # a combining mark of Unicode 9
        ("a\u166db", ["a\u166db"], ["a", "\u166d", "b"]),  # punctuation until Unicode 12, since then a symbol
    ],
)
def test_difference_of_newer_characters(text, original, ours):
    """The original follows the Unicode version of the running Python, the library the one that it was built with."""
    check_difference(text, original, ours)


def test_difference_of_half_surrogate_pairs():
    # No text in UTF-8 holds one, but an argument of a command can. The original keeps it, transformers fails.
    check_difference("a\ud800b", ["a\ud800b"], ["ab"])
    tokenizer = WordPieceTokenizer([*SPECIAL_TOKENS, "ab", "\U0001f600"], cased=False)
    assert tokenizer.encode_batch(["ab", "a\ud800b", "\udfff", "\ud83d\ude00"]) == [[5], [5], [], [6]]


def test_difference_of_special_tokens():
    # Here and in the original they are text like any other; a prediction asks for masks by another method.
    words = ["[", "mask", "]", "[", "sep", "]"]
    check_difference("[MASK] [SEP]", words, words)
    tokenizer = WordPieceTokenizer([*SPECIAL_TOKENS, *words[:3], "sep"], cased=False)
    assert tokenizer.encode_batch([MASK]) == [[5, 6, 7]]
    assert tokenizer.encode_with_masks(f"{MASK} [SEP]") == [tokenizer.mask_id, 5, 8, 7]
