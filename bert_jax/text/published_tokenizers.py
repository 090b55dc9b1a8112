"""Tokenizers as others publish them: Hugging Face's directories and Google's, opened as WordPiece tokenizers.

What a file says is followed: tokenizer.json, or vocab.txt with tokenizer_config.json. What such files can say and a
`WordPieceTokenizer` cannot do, and files that contradict each other, are errors: ids that are silently not those of the
model's own tokenizer would cost accuracy and never be found.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from bert_jax.errors import UserError
from bert_jax.text import wordpiece
from bert_jax.text.json_files import expect_type, read_json_object, show_json
from bert_jax.text.tokenizer import (
    DESCRIPTION_FILE,
    LARGEST_TOKENIZER_FILE,
    MOST_TOKENS,
    SPECIAL_TOKENS,
    hugging_face_special_tokens,
)
from bert_jax.text.wordpiece import RULES, VOCABULARY_FILE, WordPieceTokenizer, read_vocabulary

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
ADDED_TOKENS_FILE = "added_tokens.json"
_REMEDY = "fetch it again"

# Beside a vocab.txt, these say that it is BERT's; other classes (BertJapaneseTokenizer) find words in another way.
_CLASSES = ("Bert", "DistilBert", "Electra", "MobileBert", "PreTrained")
_CLASS_NAMES = {f"{name}Tokenizer{suffix}" for name in _CLASSES for suffix in ("", "Fast")} | {"TokenizersBackend"}

# A vocabulary is taken for a cased one if more than this share of its pieces have a capital letter: learned from cased
# text, far more have; in an uncased one a few may be words that somebody added.
_CAPITALS_SHARE = 0.01


def load_published_tokenizer(directory: pathlib.Path) -> WordPieceTokenizer:
    """Opens a directory that holds a tokenizer.json, or a vocab.txt (and perhaps a tokenizer_config.json).

    Raises:
        UserError: there is neither; a file is damaged, contradicts another or is not of a WordPiece tokenizer.
    """
    config = _Config(directory / CONFIG_FILE)
    if (directory / TOKENIZER_FILE).exists():
        return _from_tokenizer_file(directory, config)
    if (directory / VOCABULARY_FILE).exists():
        return _from_vocabulary(directory, config)
    others = sorted(path.name for path in directory.glob("*.model"))
    raise UserError(
        f"{directory} holds no tokenizer (no {DESCRIPTION_FILE}, {TOKENIZER_FILE} or {VOCABULARY_FILE}"
        + (f"; {others[0]} of another program cannot be read)" if others else ")")
        + ": make one with launch.train_tokenizer"
    )


class _Config:
    """What a tokenizer_config.json says; nothing, where there is none.

    Attributes:
        path: the file.
        values: all that it says.
        cased: what it says of case, or None.
        rules: what it says of those `wordpiece.RULES` that transformers reads here.
    """

    def __init__(self, path: pathlib.Path):
        """Reads the file; a UserError if it is damaged or asks for what a WordPieceTokenizer does not do."""
        self.path = path
        self.values = _read(path) if path.exists() else {}
        lowercase = self.values.get("do_lower_case")
        if lowercase is not None and not isinstance(lowercase, bool):
            raise UserError(f"{path}: do_lower_case is {show_json(lowercase)}: it must be true or false")
        self.cased = None if lowercase is None else not lowercase
        read = ("strip_accents", "tokenize_chinese_chars")
        self.rules = wordpiece.check_rules({name: self.values[name] for name in read if name in self.values}, path)
        if self.values.get("do_basic_tokenize") is False:
            raise UserError(f"{path}: do_basic_tokenize is false, but bert_jax always splits words at punctuation")
        never_split = expect_type(self.values.get("never_split"), list[str] | None, f"{path}: never_split", _REMEDY)
        kept_whole = sorted(set(never_split or ()) - set(SPECIAL_TOKENS))
        if kept_whole:
            raise UserError(f"{path}: never_split keeps {show_json(kept_whole[0])} whole, which bert_jax cannot do")
        for name, usual in hugging_face_special_tokens().items():
            token = self.values.get(name, usual)
            token = token.get("content") if isinstance(token, dict) else token
            if token != usual:
                raise UserError(
                    f"{path}: {name} is {show_json(token)}, but bert_jax knows BERT's own name for it only: {usual}"
                )


def _from_tokenizer_file(directory: pathlib.Path, config: _Config) -> WordPieceTokenizer:
    path = directory / TOKENIZER_FILE
    data = _read(path)
    model, normalizer, splitter = (data.get(name) or {} for name in ("model", "normalizer", "pre_tokenizer"))
    _check_kind(path, model, normalizer, splitter)

    cased = not normalizer.get("lowercase", True)
    rules = wordpiece.check_rules(
        {
            "strip_accents": normalizer.get("strip_accents"),
            "tokenize_chinese_chars": normalizer.get("handle_chinese_chars", True),
            "clean_text": normalizer.get("clean_text", True),
            "max_input_chars_per_word": model.get("max_input_chars_per_word", wordpiece.LONGEST_WORD),
        },
        path,
    )
    _check_agreement(path, cased, rules, config)

    ids = model["vocab"]
    added = {}
    for token in expect_type(data.get("added_tokens"), list[dict] | None, f"{path}: added_tokens", _REMEDY) or ():
        content = expect_type(token.get("content"), str, f"{path}: content of an added token", _REMEDY)
        added[content] = (token.get("id"), token.get("special"))
    tokens = _in_order({**ids, **_ids_of_special(added, path)}, path)
    vocabulary = directory / VOCABULARY_FILE
    if vocabulary.exists() and read_vocabulary(vocabulary)[: len(ids)] != tokens[: len(ids)]:
        raise UserError(f"{vocabulary} and {path} are different vocabularies: remove the one that is not the model's")
    return _make(tokens, cased, rules, {"tokenizer_file": str(path)}, path)


def _check_kind(path: pathlib.Path, model: Any, normalizer: Any, splitter: Any) -> None:
    """Raises a UserError if the parts of a tokenizer.json are not those of BERT's WordPiece."""
    found = {}
    for name, part in (("model", model), ("normalizer", normalizer), ("pre_tokenizer", splitter)):
        if not isinstance(part, dict):
            raise UserError(f"{path} is damaged ({name} is not a JSON object): fetch it again")
        found[name] = part.get("type")
    # Files of early versions do not name the model's type.
    if found["model"] is None and "max_input_chars_per_word" in model:
        found["model"] = "WordPiece"
    wanted = {"model": "WordPiece", "normalizer": "BertNormalizer", "pre_tokenizer": "BertPreTokenizer"}
    for name, kind in wanted.items():
        if found[name] != kind:
            raise UserError(
                f"{path} is not a WordPiece tokenizer of BERT: its {name} is {_name(found[name])}, not {kind};"
                " bert_jax cannot use the model that it belongs to"
            )
    if not isinstance(model.get("vocab"), dict) or not all(type(index) is int for index in model["vocab"].values()):
        raise UserError(f"{path} is damaged (model.vocab maps no tokens to ids): fetch it again")
    if model.get("continuing_subword_prefix", wordpiece.CONTINUATION) != wordpiece.CONTINUATION:
        prefix = model["continuing_subword_prefix"]
        raise UserError(f"{path}: pieces inside words begin with {show_json(prefix)}, but bert_jax knows ## only")


def _check_agreement(path: pathlib.Path, cased: bool, rules: Mapping[str, Any], config: _Config) -> None:
    """Raises a UserError if a tokenizer.json (`path`) and a tokenizer_config.json would give different ids."""
    ours = {"do_lower_case": not cased, **rules}
    theirs = {**ours, **config.rules}
    if config.cased is not None:
        theirs["do_lower_case"] = not config.cased
    for values in (ours, theirs):
        if values["strip_accents"] is None:
            values["strip_accents"] = values["do_lower_case"]
    for name, value in ours.items():
        if theirs[name] != value:
            raise UserError(
                f"{path} and {config.path.name} contradict each other: {name} is {json.dumps(value)} in the first and"
                f" {json.dumps(theirs[name])} in the second; correct the one that is not the model's"
            )


def _from_vocabulary(directory: pathlib.Path, config: _Config) -> WordPieceTokenizer:
    path = directory / VOCABULARY_FILE
    place = f"{config.path}: tokenizer_class"
    kind = expect_type(config.values.get("tokenizer_class"), str | None, place, _REMEDY)
    if kind is not None and kind not in _CLASS_NAMES:
        raise UserError(f"{config.path}: the tokenizer is a {kind!r:.60}, but bert_jax can only use BERT's WordPiece")
    tokens = read_vocabulary(path)
    ids = {token: index for index, token in enumerate(tokens)}
    added: dict[str, tuple[Any, Any]] = {}
    source = directory / ADDED_TOKENS_FILE
    if source.exists():
        added = {token: (index, False) for token, index in _read(source).items()}
    declared = config.values.get("added_tokens_decoder")
    if isinstance(declared, dict):
        source = config.path
        for index, token in declared.items():
            if not (index.isdecimal() and len(index) < 10 and isinstance(token, dict)):
                raise UserError(f"{source} is damaged (added_tokens_decoder has {show_json(index)}): fetch it again")
            content = expect_type(token.get("content"), str, f"{source}: added_tokens_decoder[{index}]", _REMEDY)
            added[content] = (int(index), token.get("special"))
    tokens = _in_order({**ids, **_ids_of_special(added, source)}, source)

    cased = config.cased
    if cased is None:
        cased = _has_capitals(tokens)
    rules = dict(config.rules)
    if _is_googles(directory):
        rules["max_input_chars_per_word"] = wordpiece.GOOGLES_LONGEST_WORD
    return _make(tokens, cased, rules, {"vocabulary_file": str(path)}, path)


def _ids_of_special(added: Mapping[Any, tuple[Any, Any]], path: pathlib.Path) -> dict[str, int]:
    """Returns the ids of added tokens; a UserError for one that is looked for in texts before words are split.

    Special ones are never looked for in a text here (as [MASK] is not), so they are nothing but ids of the vocabulary.
    """
    for token, (index, special) in added.items():
        if not isinstance(token, str) or type(index) is not int:
            raise UserError(
                f"{path} is damaged (added token {show_json(token)} has the id {show_json(index)}): fetch it again"
            )
        if not special and token not in SPECIAL_TOKENS:
            raise UserError(
                f"{path}: the added token {show_json(token)} is cut out of texts before words are split, which bert_jax"
                " cannot do; if it is a word, take it out and add it with launch.train_tokenizer --add_words"
            )
    return {token: index for token, (index, _) in added.items()}


def _read(path: pathlib.Path) -> dict[str, Any]:
    return read_json_object(path, _REMEDY, largest=LARGEST_TOKENIZER_FILE)


def _name(kind: Any) -> str:
    if not kind:
        return "missing"
    return kind if isinstance(kind, str) and kind.isprintable() and len(kind) < 60 else show_json(kind)


def _in_order(ids: Mapping[str, int], path: pathlib.Path) -> list[str]:
    if len(ids) > MOST_TOKENS:
        raise UserError(f"{path} has {len(ids):,} tokens: a vocabulary has {MOST_TOKENS:,} at most")
    tokens = sorted(ids, key=ids.__getitem__)
    for place, token in enumerate(tokens):
        if ids[token] != place:
            problem = (
                f"no token has the id {place}"
                if ids[token] > place
                else f"two tokens have the id {show_json(ids[token])}"
            )
            raise UserError(f"{path}: {problem}: a vocabulary gives each id from 0 on to one token; fetch it again")
    return tokens


def _make(
    tokens: list[str], cased: bool, rules: Mapping[str, Any], training: dict[str, Any], path: pathlib.Path
) -> WordPieceTokenizer:
    # A vocab.txt, which every saved tokenizer has, cannot say such a token.
    unwritable = next((index for index, token in enumerate(tokens) if not token or {"\n", "\r"} & set(token)), None)
    if unwritable is not None:
        raise UserError(
            f"{path}: the token with the id {unwritable}, {show_json(tokens[unwritable])}, is empty or holds a line"
            " end, which bert_jax cannot use"
        )
    missing = [token for token in SPECIAL_TOKENS if token not in tokens]
    if missing:
        raise UserError(f"{path} has no {', '.join(missing)}: BERT needs {', '.join(SPECIAL_TOKENS)}")
    return WordPieceTokenizer(tokens, cased, training, rules={**RULES, **rules})


def _is_googles(directory: pathlib.Path) -> bool:
    """Whether a directory is laid out as Google published it: there, Google's own limit of a word's length holds."""
    return (directory / "bert_config.json").exists() and not any(
        (directory / name).exists() for name in ("config.json", CONFIG_FILE)
    )


def _has_capitals(tokens: list[str]) -> bool:
    """Whether a vocabulary was learned from text in which case was kept."""
    words = [token for token in (token.removeprefix(wordpiece.CONTINUATION) for token in tokens) if token.isalpha()]
    return sum(word != word.lower() for word in words) > _CAPITALS_SHARE * len(words)
