"""WordPiece against Google's rules of basic tokenization, given vocabularies, and Hugging Face's conventions."""

import json
import os
import pathlib
import unicodedata

import pytest
from tokenizers import Tokenizer

from bert_jax.errors import UserError
from bert_jax.text.tokenizer import SPECIAL_TOKENS
from bert_jax.text.tokenizers import load_tokenizer, train_tokenizer, wrap_vocabulary
from bert_jax.text.wordpiece import LONGEST_WORD, WordPieceTokenizer

SHARED = pathlib.Path(
    os.environ.get("BERT_JAX_SHARED") or pathlib.Path(__file__).resolve().parents[2].parent / "shared"
)


def is_control(character):
    return character not in "\t\n\r" and unicodedata.category(character) in ("Cc", "Cf")


def is_chinese(character):
    ranges = [(0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0xF900, 0xFAFF)]
    return any(first <= ord(character) <= last for first, last in ranges)


def is_punctuation(character):
    symbol = character.isascii() and not character.isalnum() and not character.isspace()
    return symbol or unicodedata.category(character).startswith("P")


def basic_tokenization(text, cased):
    """The rules of the original, character by character: the reference for the library's fast version."""
    words = [""]
    text = "".join(c for c in text if c not in "\0\ufffd" and not is_control(c))
    if not cased:
        text = unicodedata.normalize("NFD", text.lower())
        text = "".join(c for c in text if unicodedata.category(c) != "Mn")
    for character in text:
        if character.isspace():
            words.append("")
        elif is_chinese(character) or is_punctuation(character):
            words += [character, ""]
        else:
            words[-1] += character
    return [word for word in words if word]


STRESS = [
    "Héllo WÖRLD naïve Ångström",
    "e\u0301te\u0301 combining",
    "中文字 and 漢字。mixed中words",
    "zero\u200bwidth\u200djoin\ufeffers",
    "con\x01trol\x7f and\ttabs\nlines\u00a0nbsp\u3000wide",
    "don't stop-now $5.00 a@b.c x_y 1,000 [MASK] ~`^+<=>|",
    "“quoted” – dash… ‘single’",
    "emoji \U0001f600\U0001f44d\U0001f3fd mid\U0001f600dle",
    "İstanbul ß ﬁ Σας Ωmega",
    "ひらがな カタカナ 한국어",
    "bad\ufffdcharacter soft\u00adhyphen",
    "",
    "   ",
]


@pytest.mark.parametrize("cased", [False, True], ids=["uncased", "cased"])
@pytest.mark.parametrize("text", STRESS)
def test_basic_tokenization_is_googles(text, cased):
    words = basic_tokenization(text, cased)
    # With every word in the vocabulary, the pieces are the words.
    vocabulary = list(dict.fromkeys([*SPECIAL_TOKENS, *words]))
    tokenizer = WordPieceTokenizer(vocabulary, cased)
    assert [tokenizer.id_to_token(index) for index in tokenizer.encode_batch([text])[0]] == words


def test_longest_pieces_first_and_very_long_words():
    tokenizer = WordPieceTokenizer([*SPECIAL_TOKENS, "un", "una", "##aff", "##able", "##a", "a"], cased=False)
    encoded = tokenizer.encode_batch(["unaffable", "unaff", "unable", "a" * LONGEST_WORD, "a" * (LONGEST_WORD + 1)])
    pieces = [[tokenizer.id_to_token(index) for index in ids] for ids in encoded]
    # Greedy: "una" wins although "un ##aff ##able" would have fitted.
    assert pieces[0] == ["[UNK]"]
    assert pieces[2] == ["un", "##able"] or pieces[2] == ["[UNK]"]
    assert pieces[3] == ["a"] + ["##a"] * (LONGEST_WORD - 1)
    assert pieces[4] == ["[UNK]"]


def test_trained_pieces_cover_every_character():
    texts = ["lower words Only and 中文 punctuation!"] * 3 + ["xyz? été"] * 2
    tokenizer = train_tokenizer(texts, "wordpiece", 150)
    assert tokenizer.training["character_coverage"] == 1.0
    for character in "lowerdsnyaputci!?xz中文":
        assert tokenizer.token_to_id(character) is not None
    # Punctuation and Chinese characters are never inside a word.
    for character in "!?中文":
        assert tokenizer.token_to_id("##" + character) is None
    assert tokenizer.unk_id not in tokenizer.encode_batch(["zyx rowel 文中 ete"])[0]
    # Any text of known letters can be written, whatever the order of its letters.
    assert tokenizer.decode(tokenizer.encode_batch(["zyx rowel"])[0]) == "zyx rowel"


@pytest.mark.parametrize("cased", [False, True], ids=["uncased", "cased"])
def test_files_follow_hugging_face(tmp_path, cased):
    tokenizer = train_tokenizer(["Some Words of an Éxample, with more words"] * 5, "wordpiece", 120, cased=cased)
    tokenizer.save(tmp_path / "t")
    vocabulary = (tmp_path / "t" / "vocab.txt").read_text(encoding="utf-8").split("\n")
    assert vocabulary == [tokenizer.id_to_token(index) for index in range(tokenizer.vocab_size)] + [""]

    config = json.loads((tmp_path / "t" / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "BertTokenizer"
    assert config["do_lower_case"] is not cased
    assert [config[f"{name}_token"] for name in ("pad", "unk", "cls", "sep", "mask")] == list(SPECIAL_TOKENS)

    data = json.loads((tmp_path / "t" / "tokenizer.json").read_text(encoding="utf-8"))
    assert data["normalizer"] == {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": True,
        "strip_accents": None,
        "lowercase": not cased,
    }
    assert data["pre_tokenizer"] == {"type": "BertPreTokenizer"}
    assert data["post_processor"] == {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}
    assert data["model"]["type"] == "WordPiece"
    assert (data["model"]["continuing_subword_prefix"], data["model"]["max_input_chars_per_word"]) == ("##", 100)
    assert [(token["id"], token["content"], token["special"]) for token in data["added_tokens"]] == [
        (index, token, True) for index, token in enumerate(SPECIAL_TOKENS)
    ]

    # What Hugging Face's fast tokenizer does with the file is what this package does.
    published = Tokenizer.from_file(str(tmp_path / "t" / "tokenizer.json"))
    first, second = tokenizer.encode_batch(["Some words", "an éxample"])
    encoding = published.encode("Some words", "an éxample")
    assert encoding.ids == [2, *first, 3, *second, 3]
    assert encoding.type_ids == [0] * (len(first) + 2) + [1] * (len(second) + 1)
    masked = "some [MASK] words"
    assert published.encode(masked, add_special_tokens=False).ids == tokenizer.encode_with_masks(masked)


def write_vocabulary(directory, tokens):
    directory.mkdir(exist_ok=True)
    path = directory / "vocab.txt"
    path.write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "config", "cased"),
    [
        ("bert-base-uncased", None, False),
        ("bert-base-cased", None, True),
        ("model", None, False),
        ("model", {"do_lower_case": False}, True),
        ("bert-cased", {"do_lower_case": True}, False),
        ("bert-cased", {}, True),
    ],
)
def test_bare_vocabulary(tmp_path, name, config, cased):
    # Ids are those of the file, in which unused lines and U+2028 may stand, and special tokens anywhere.
    tokens = ["[PAD]", "[unused0]", "\u2028", "[UNK]", "[CLS]", "the", "The", "[SEP]", "[MASK]"]
    write_vocabulary(tmp_path / name, tokens)
    if config is not None:
        (tmp_path / name / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = load_tokenizer(tmp_path / name)
    assert tokenizer.settings["cased"] is cased
    assert tokenizer.special_ids == (0, 3, 4, 7, 8)
    assert tokenizer.encode_batch(["The the"]) == [[6, 5] if cased else [5, 5]]
    tokenizer.save(tmp_path / "copy")
    assert load_tokenizer(tmp_path / "copy").fingerprint == tokenizer.fingerprint


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([], "vocab.txt is empty"),
        ([*SPECIAL_TOKENS, "a", "b", "a"], r"vocab.txt:8: 'a' is already on line 6"),
        ([*SPECIAL_TOKENS, "", "b"], r"vocab.txt:6: empty line"),
        (["[PAD]", "[UNK]", "a"], r"vocab.txt has no \[CLS\], \[SEP\], \[MASK\]"),
    ],
)
def test_bad_vocabulary_is_named(tmp_path, tokens, message):
    path = write_vocabulary(tmp_path / "v", tokens)
    with pytest.raises(UserError, match=message):
        wrap_vocabulary(path, cased=False)


def test_vocabulary_with_windows_line_ends(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_bytes("\r\n".join([*SPECIAL_TOKENS, "word"]).encode("utf-8-sig"))
    assert wrap_vocabulary(path, cased=False).encode_batch(["word"]) == [[5]]


@pytest.mark.parametrize(
    ("name", "size", "text", "decoded"),
    [
        ("bert-base-uncased", 30522, "Héllo, unaffable World!", "hello, unaffable world!"),
        ("bert-base-chinese", 21128, "我爱北京天安门", "我 爱 北 京 天 安 门"),
    ],
)
def test_published_vocabularies(name, size, text, decoded):
    directory = SHARED / "data" / "vocab" / name
    if not directory.exists():
        pytest.skip(f"{directory} is not here")
    tokenizer = load_tokenizer(directory)
    assert tokenizer.vocab_size == size
    assert tokenizer.special_ids == (0, 100, 101, 102, 103)
    assert tokenizer.decode(tokenizer.encode_batch([text])[0]) == decoded
