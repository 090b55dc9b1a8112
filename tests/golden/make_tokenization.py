"""Makes tokenization/*.json beside it: ids that transformers' own tokenizers give, for the tests in tests/text.

Run by hand, in a virtual environment of its own (the package and its tests need no transformers):

    python -m venv tokenizer_venv
    tokenizer_venv/bin/pip install transformers==5.23.0 tokenizers==0.23.3
    tokenizer_venv/bin/python tests/golden/make_tokenization.py

It needs the folder `shared` beside the repository (or BERT_JAX_SHARED), takes a minute, and writes

    ids.json        for each of `DIRECTORIES`, the ids of `TEXTS`; and the small vocabulary that some of them have.
    digests.json    for each of `CORPORA`, a sha256 over the ids of each block of lines.

The tests import what is compared (texts, directories, lines) from here, so that it is written once.
"""

import gzip
import hashlib
import itertools
import json
import os
import pathlib
import tempfile
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import Any

RESULTS = pathlib.Path(__file__).resolve().parent / "tokenization"
SHARED = pathlib.Path(os.environ.get("BERT_JAX_SHARED") or pathlib.Path(__file__).resolve().parents[3] / "shared")

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LINES = 20_000
BLOCK = 1_000

# "[MASK]" stands for the mask in the last ones; no other text has a special token in it.
TEXTS = (
    "",
    "   \t\n ",
    "The quick brown fox jumps over the lazy dog.",
    "Héllo WÖRLD, naïve Ångström façade; CAFÉ!",
    "e\u0301te\u0301 n\u0303 o\u0308\u0323 a\u0328\u0301",
    "我爱北京天安门。漢字と仮名、ABC中文123",
    "ひらがな カタカナ ガギグ が ｶﾞ",
    "한국어 문장 각\u1100\u1161\u11a8",
    "\U00020000\U0002a6d6 \U0002a700 \U0002b740 \uf900 \U0002f800 〇 々",
    "zero\u200bwidth\u200djoin\u200cer\ufeff \u2060",
    "con\x00trol\x01 del\x7f bell\x07 nel\x85 fs\x1c us\x1f vt\x0b ff\x0c",
    "tabs\tnew\nlines\r\nnbsp\u00a0wide\u3000thin\u2009ogham\u1680line\u2028para\u2029end",
    "soft\u00adhyphen non\u2011breaking em\u2014dash minus\u2212sign",
    "bad\ufffdcharacter",
    "don't stop-now $5.00 a@b.c x_y 1,000 ~`^+<=>| {}[]()\\/",
    "“quoted” ‘single’ «guillemets» …¿¡ 、。「」 § ¶ · • ° € £ ©",
    "emoji \U0001f600\U0001f44d\U0001f3fd mid\U0001f600dle \U0001f468\u200d\U0001f469 \u2764\ufe0f 1\u20e3",
    "İstanbul ıI Straße STRASSE ẞ ﬁne ﬂag ŉ Ǆ ǅ ǆ",
    "Ωμέγα ὀδύσσεια άλφα; σοφός",
    "ПРИВЕТ Ёлка йод їжак",
    "שָׁלוֹם עולם مَرْحَبًا بالعالم \u202eright-to-left\u202c",
    "नमस्ते दुनिया ไทยภาษา ພາສາລາວ தமிழ்",
    "Ｆｕｌｌ　Ｗｉｄｔｈ！１２３ ｡｢",
    "H₂O x² ½ Ⅷ ⓐ ㎏ ℃ №",
    "a" * 100 + " " + "a" * 101 + " " + "b" * 150 + " " + "c" * 201,
    "unaffable embeddings tokenization WordPiece ##ing # # [ UNK ] mask",
    "http://www.example.org/~user/index.html?q=1&r=2#top v1.2.3-beta",
    "Việt Nam, Đà Nẵng; Łódź; Þórr; Ærø; Œuvre; Ĳssel; naïveté",
    "\u0301leading mark \u0308 alone, trailing mark\u0301",
    "\ufdfa \u01c5 \u1e9b\u0323 \u212b \u2126 \u212a",
    "The [MASK] sat on the [MASK].",
    "[MASK][MASK] 我[MASK]你 Ünder[MASK]lined",
)

_CONFIGS = {
    "uncased": {"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True},
    "cased": {"do_lower_case": False, "strip_accents": None, "tokenize_chinese_chars": True},
    "uncased with accents": {"do_lower_case": True, "strip_accents": False, "tokenize_chinese_chars": True},
    "cased without accents": {"do_lower_case": False, "strip_accents": True, "tokenize_chinese_chars": True},
    "Chinese in words": {"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": False},
}
# (vocabulary, layout, rules, max_input_chars_per_word) of each directory. Layouts: "json", tokenizer.json alone has the
# rules; "text", vocab.txt and tokenizer_config.json; "both".
DIRECTORIES = (
    *((vocabulary, "text", rules, 100) for vocabulary in ("small", "bert-base-uncased") for rules in _CONFIGS),
    *(("small", "json", rules, 100) for rules in _CONFIGS),
    ("small", "json", "uncased", 200),
    ("small", "json", "cased", 20),
    ("small", "both", "cased", 100),
    ("bert-base-uncased", "json", "uncased", 100),
    ("bert-base-chinese", "text", "uncased", 100),
    ("bert-base-chinese", "both", "cased", 100),
)

# (corpus, vocabulary, do_lower_case)
CORPORA = (
    ("wiki_en", "bert-base-uncased", True),
    ("wiki_zh", "bert-base-chinese", True),
    ("wiki_zh", "bert-base-chinese", False),
)


def published_vocabulary(name: str) -> list[str]:
    """Returns the tokens of a published vocabulary; FileNotFoundError where the shared data is absent."""
    text = (SHARED / "data" / "vocab" / name / "vocab.txt").read_text(encoding="utf-8")
    return text.rstrip("\n").split("\n")


def write_directory(path: pathlib.Path, tokens: Sequence[str], layout: str, rules: str, longest_word: int) -> None:
    """Writes a directory as described at `DIRECTORIES`."""
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast" if layout == "json" else "BertTokenizer"}
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    config |= dict(zip(names, SPECIAL_TOKENS, strict=True))
    chosen = _CONFIGS[rules]
    if layout != "json":
        config |= chosen
        (path / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    if layout != "text":
        ids = {token: index for index, token in enumerate(tokens)}
        added = [
            {"id": ids[token], "content": token, "special": True}
            | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            for token in SPECIAL_TOKENS
        ]
        data = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": {
                "type": "BertNormalizer",
                "clean_text": True,
                "handle_chinese_chars": chosen["tokenize_chinese_chars"],
                "strip_accents": chosen["strip_accents"],
                "lowercase": chosen["do_lower_case"],
            },
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": None,
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
            "model": {
                "type": "WordPiece",
                "unk_token": "[UNK]",
                "continuing_subword_prefix": "##",
                "max_input_chars_per_word": longest_word,
                "vocab": ids,
            },
        }
        (path / "tokenizer.json").write_text(json.dumps(data))
    (path / "tokenizer_config.json").write_text(json.dumps(config))


def corpus_lines(corpus: str) -> list[str]:
    """Returns the lines that are compared: a few of each file or article, so that many subjects and scripts occur."""
    lines = itertools.islice((line for line in _read_corpus(corpus) if not _has_special_token(line)), LINES)
    return list(lines)


def digest_blocks(lines: Sequence[str], encode: Callable[[Sequence[str]], list[list[int]]]) -> list[str]:
    """Returns for each block of lines a sha256, in hex, over their ids."""
    digests = []
    for start in range(0, len(lines), BLOCK):
        ids = encode(lines[start : start + BLOCK])
        text = "".join(",".join(map(str, line)) + "\n" for line in ids)
        digests.append(hashlib.sha256(text.encode()).hexdigest())
    return digests


def _read_corpus(corpus: str) -> Iterator[str]:
    folder = SHARED / "data" / "corpora"
    if corpus == "wiki_en":
        for path in sorted((folder / "wiki_en").glob("*.gz")):
            with gzip.open(path, "rt", encoding="utf-8") as file:
                lines = (line for line in map(str.strip, file) if line and not line.startswith(("<doc ", "</doc>")))
                yield from itertools.islice(lines, 400)
    else:
        with gzip.open(folder / "wiki_zh.jsonl.gz", "rt", encoding="utf-8") as file:
            for article in file:
                yield from [line for line in json.loads(article)["text"].split("\n") if line.strip()][:4]


def _has_special_token(line: str) -> bool:
    return any(token in line for token in SPECIAL_TOKENS)


def _small_vocabulary() -> list[str]:
    """Every character of the texts, at the start of a word and inside; some words; so that little is [UNK]."""
    text = "".join(TEXTS)
    forms = {text, text.lower(), unicodedata.normalize("NFD", text.lower()), unicodedata.normalize("NFD", text)}
    characters = sorted({character for form in forms for character in form if character.isprintable()} - {" "})
    words = ["the", "The", "quick", "##ick", "##ing", "hello", "héllo", "Hello", "world", "aa", "##aa", "北京", "##文"]
    return list(dict.fromkeys([*SPECIAL_TOKENS, *words, *characters, *(f"##{character}" for character in characters)]))


def _main() -> None:
    import tokenizers
    import transformers
    from transformers import AutoTokenizer, BertTokenizerFast

    def encoder(tokenizer: Any) -> Callable[[Sequence[str]], list[list[int]]]:
        return lambda texts: tokenizer(list(texts), add_special_tokens=False)["input_ids"]

    RESULTS.mkdir(exist_ok=True)
    small = _small_vocabulary()
    expected = []
    for vocabulary, layout, rules, longest_word in DIRECTORIES:
        tokens = small if vocabulary == "small" else published_vocabulary(vocabulary)
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder)
            write_directory(path, tokens, layout, rules, longest_word)
            (path / "config.json").write_text('{"model_type": "bert"}')
            expected.append(encoder(AutoTokenizer.from_pretrained(folder))(TEXTS))
    versions = {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__}
    _write("ids.json", {"versions": versions, "small_vocabulary": small, "ids": expected})

    digests = []
    for corpus, vocabulary, lowercase in CORPORA:
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder)
            write_directory(path, published_vocabulary(vocabulary), "text", "uncased" if lowercase else "cased", 100)
            tokenizer = BertTokenizerFast.from_pretrained(folder)
        digests.append(digest_blocks(corpus_lines(corpus), encoder(tokenizer)))
    _write("digests.json", {"versions": versions, "lines": LINES, "digests": digests})


def _write(name: str, value: Any) -> None:
    text = json.dumps(value, ensure_ascii=True)
    (RESULTS / name).write_text(text + "\n")
    print(f"{name}: {len(text) // 1000} kB")


if __name__ == "__main__":
    _main()
