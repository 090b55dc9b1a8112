"""WordPiece: the pieces, given vocabularies, and Hugging Face's conventions (the rules: test_reference_rules.py)."""

import json
import os
import pathlib

import pytest
from tokenizers import Tokenizer

from bert_jax.errors import UserError
from bert_jax.text.tokenizer import SPECIAL_TOKENS
from bert_jax.text.tokenizers import load_tokenizer, train_tokenizer, wrap_vocabulary
from bert_jax.text.wordpiece import LONGEST_WORD, RULES, WordPieceTokenizer

SHARED = pathlib.Path(
    os.environ.get("BERT_JAX_SHARED") or pathlib.Path(__file__).resolve().parents[2].parent / "shared"
)


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


def test_a_vocabulary_alone(tmp_path):
    # Ids are those of the file, in which unused lines and U+2028 may stand, and special tokens anywhere.
    tokens = ["[PAD]", "[unused0]", "\u2028", "[UNK]", "[CLS]", "the", "The", "[SEP]", "[MASK]"]
    write_vocabulary(tmp_path / "v", tokens)
    tokenizer = load_tokenizer(tmp_path / "v")
    assert tokenizer.special_ids == (0, 3, 4, 7, 8)
    assert tokenizer.encode_batch(["The the"]) == [[6, 5]]
    tokenizer.save(tmp_path / "copy")
    assert load_tokenizer(tmp_path / "copy").fingerprint == tokenizer.fingerprint


def test_fingerprints_stay_what_they_were():
    """Rows on disk name them: a new rule must not change those of tokenizers that do not have it."""
    tokens = [*SPECIAL_TOKENS, "word"]
    uncased = "f8807213fd9026f9ab97a97eaeddbf244318225e66c4531510bffda4a10c7267"
    cased = "0f0a55a0912357075778a345139309d268fee7f1236c78b866a2e70d160b178f"
    assert WordPieceTokenizer(tokens, cased=False).fingerprint == uncased
    assert WordPieceTokenizer(tokens, cased=True).fingerprint == cased
    # What is said, and is the usual, is not another tokenizer; what is not the usual is.
    assert WordPieceTokenizer(tokens, False, rules={**RULES, "strip_accents": True}).fingerprint == uncased
    assert WordPieceTokenizer(tokens, True, rules={"strip_accents": False}).fingerprint == cased
    others = {"strip_accents": False, "tokenize_chinese_chars": False, "clean_text": False}
    others["max_input_chars_per_word"] = 200
    fingerprints = {WordPieceTokenizer(tokens, False, rules={name: others[name]}).fingerprint for name in others}
    assert len(fingerprints | {uncased}) == 5


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
