"""WordPiece as in the original BERT, through the `tokenizers` library.

Text goes through Google's basic tokenization (control characters removed, Chinese characters set apart, accents
stripped and letters lowered when uncased, split at whitespace and punctuation); each word is then cut greedily into the
longest pieces of the vocabulary, pieces inside a word carrying the prefix "##".
"""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bert_jax.durable_files import library_os_errors
from bert_jax.errors import UserError
from bert_jax.text import tokenizer as base
from bert_jax.text.files import read_bounded
from bert_jax.text.offsets import Pieces, repair

CONTINUATION = "##"
VOCABULARY_FILE = "vocab.txt"

# A word with more characters than this is one [UNK]: 100 for Hugging Face's tokenizers, 200 in Google's code.
LONGEST_WORD = 100
GOOGLES_LONGEST_WORD = 200

# The rules beside `cased`, as they usually are; only what is otherwise stands in a tokenizer's settings.
RULES: Mapping[str, Any] = {
    "strip_accents": None,
    "tokenize_chinese_chars": True,
    "clean_text": True,
    "max_input_chars_per_word": LONGEST_WORD,
}

# Read by the library. Workers of the preparation have one process per core, so threads inside each only cost; and a
# value that is set keeps the library from warning when such workers are forked.
PARALLELISM = "TOKENIZERS_PARALLELISM"
os.environ.setdefault(PARALLELISM, "false")


class WordPieceTokenizer(base.Tokenizer):
    """See the module and `Tokenizer`. Settings: cased (bool), and those of its rules that are not the usual ones."""

    kind = "wordpiece"

    def __init__(
        self,
        tokens: Sequence[str],
        cased: bool,
        training: dict[str, Any] | None = None,
        *,
        rules: Mapping[str, Any] | None = None,
    ):
        """Makes the tokenizer of a vocabulary, `tokens` in order of ids.

        Args:
            tokens: the vocabulary.
            cased: keep case.
            training: see `Tokenizer`.
            rules: those of `RULES` that are not the usual ones: strip_accents (None: unless cased),
                tokenize_chinese_chars, clean_text, max_input_chars_per_word. The names are Hugging Face's.
        """
        from tokenizers import Tokenizer, decoders, models

        chosen = {**RULES, **(rules or {})}
        if chosen["strip_accents"] == (not cased):
            chosen["strip_accents"] = None
        unusual = {name: value for name, value in chosen.items() if value != RULES[name]}
        super().__init__(tokens, {"cased": cased, **unusual}, "\n".join(tokens).encode(), training or {})
        self.rules = chosen
        self._backend = Tokenizer(
            models.WordPiece(
                vocab=self._ids,
                unk_token=base.UNK,
                max_input_chars_per_word=chosen["max_input_chars_per_word"],
                continuing_subword_prefix=CONTINUATION,
            )
        )
        self._backend.normalizer, self._backend.pre_tokenizer = basic_tokenization(cased, chosen)
        self._backend.decoder = decoders.WordPiece(prefix=CONTINUATION)
        # The special tokens are not declared to the backend, so that nothing in a text can turn into one.

    def split_words(self, text: str) -> list[str]:
        """Returns the words of the basic tokenization, each of which is then cut into pieces of its own."""
        words = self._backend.pre_tokenizer.pre_tokenize_str(self._backend.normalizer.normalize_str(repair(text)))
        return [word for word, _ in words]

    def with_tokens(self, tokens: Sequence[str], training: dict[str, Any]) -> "WordPieceTokenizer":
        """Returns a tokenizer of the same rules with another vocabulary."""
        return WordPieceTokenizer(tokens, self.settings["cased"], training, rules=self.rules)

    def with_longest_word(self, characters: int) -> "WordPieceTokenizer":
        """Returns the same tokenizer with another limit, beyond which a word is one [UNK]."""
        rules = {**self.rules, "max_input_chars_per_word": characters}
        return WordPieceTokenizer(self._tokens, self.settings["cased"], self.training, rules=rules)

    def _encode_batch(self, texts: list[str]) -> list[list[int]]:
        try:
            encodings = self._backend.encode_batch_fast(texts, add_special_tokens=False)
        except TypeError:
            # What is no text in Unicode (halves of surrogate pairs, from an argument that is not UTF-8 or from careless
            # JSON) is rare and refused by the library, so that only then each text is looked at.
            encodings = self._backend.encode_batch_fast([repair(text) for text in texts], add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def _encode_with_offsets(self, texts: Sequence[str]) -> list[Pieces]:
        pieces = []
        for encoding in self._backend.encode_batch(list(texts), add_special_tokens=False):
            spans = np.asarray(encoding.offsets, np.int32).reshape(-1, 2)
            pieces.append(Pieces(encoding.ids, spans[:, 0], spans[:, 1]))
        return pieces

    def encode_with_masks(self, text: str) -> list[int]:
        """See `Tokenizer.encode_with_masks`."""
        first, *others = self.encode_batch(text.split(base.MASK))
        for part in others:
            first += [self.mask_id, *part]
        return first

    def _decode_ordinary(self, ids: Sequence[int]) -> str:
        return self._backend.decode(list(ids), skip_special_tokens=False)

    def _starts_word(self, token: str) -> bool:
        return not token.startswith(CONTINUATION)

    def _write_files(self, directory: pathlib.Path) -> None:
        from tokenizers import AddedToken, Tokenizer, processors

        (directory / VOCABULARY_FILE).write_text("".join(f"{token}\n" for token in self._tokens), encoding="utf-8")
        published = Tokenizer.from_str(self._backend.to_str())
        published.add_special_tokens(
            [AddedToken(token, special=True, normalized=False) for token in base.SPECIAL_TOKENS]
        )
        published.post_processor = processors.BertProcessing((base.SEP, self.sep_id), (base.CLS, self.cls_id))
        with library_os_errors():
            published.save(str(directory / "tokenizer.json"))
        base.write_json(
            directory / "tokenizer_config.json",
            {
                "tokenizer_class": self._hugging_face_class(),
                "do_lower_case": not self.settings["cased"],
                "strip_accents": self.rules["strip_accents"],
                "tokenize_chinese_chars": self.rules["tokenize_chinese_chars"],
                "clean_up_tokenization_spaces": True,
                **base.hugging_face_special_tokens(),
            },
        )

    def _hugging_face_class(self) -> str:
        # BertTokenizer takes its vocabulary alone from tokenizer.json, and can be told of fewer rules than that file.
        untold = ("clean_text", "max_input_chars_per_word")
        is_usual = all(self.rules[name] == RULES[name] for name in untold)
        return "BertTokenizer" if is_usual else "PreTrainedTokenizerFast"

    def _library_version(self) -> dict[str, str]:
        import tokenizers

        return {"tokenizers": tokenizers.__version__}


def read_vocabulary(path: str | os.PathLike) -> list[str]:
    """Returns the tokens of a vocab.txt (one a line, in order of ids); UserError names the file and the line."""
    path = pathlib.Path(path)
    try:
        text = read_bounded(path, base.LARGEST_TOKENIZER_FILE, "copy the vocabulary again").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 at byte {error.start}: a vocabulary is a text file, one token a line"
        ) from error
    if (lines_there := text.count("\n")) > base.MOST_TOKENS:
        raise UserError(
            f"{path} has {lines_there:,} lines: a vocabulary has one token a line, {base.MOST_TOKENS:,} at most"
        )
    # Not splitlines(): some vocabularies hold U+2028 and its like as tokens.
    tokens = [line.rstrip("\r") for line in text.split("\n")]
    while tokens and not tokens[-1]:
        tokens.pop()
    if not tokens:
        raise UserError(f"{path} is empty: a vocabulary has one token a line")
    lines: dict[str, int] = {}
    for number, token in enumerate(tokens, start=1):
        if not token:
            raise UserError(f"{path}:{number}: empty line: a vocabulary has one token a line")
        if token in lines:
            raise UserError(f"{path}:{number}: {token!r:.60} is already on line {lines[token]}: tokens must differ")
        lines[token] = number
    missing = [token for token in base.SPECIAL_TOKENS if token not in lines]
    if missing:
        raise UserError(f"{path} has no {', '.join(missing)}: add a line for each, BERT needs them")
    return tokens


def check_rules(values: Mapping[str, Any], path: pathlib.Path) -> dict[str, Any]:
    """Returns those of `RULES` that are among the values of a file; a UserError names it if one is of a wrong type."""
    rules = {name: values[name] for name in RULES if name in values}
    for name, value in rules.items():
        if name == "max_input_chars_per_word":
            is_right = type(value) is int and 0 < value < 2**31
        else:
            is_right = isinstance(value, bool) or (value is None and name == "strip_accents")
        if not is_right:
            raise UserError(f"{path}: {name} is {value!r:.60}, which no tokenizer can have: mend the file")
    return rules


def basic_tokenization(cased: bool, rules: Mapping[str, Any] = RULES) -> tuple[Any, Any]:
    """Returns the library's normalizer and pre-tokenizer for Google's basic tokenization."""
    from tokenizers import normalizers, pre_tokenizers

    normalizer = normalizers.BertNormalizer(
        clean_text=rules["clean_text"],
        handle_chinese_chars=rules["tokenize_chinese_chars"],
        # None means "when lower-casing", as in the original.
        strip_accents=rules["strip_accents"],
        lowercase=not cased,
    )
    return normalizer, pre_tokenizers.BertPreTokenizer()
