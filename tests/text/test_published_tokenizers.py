"""Directories of others: what their files say is followed, and what cannot be followed is said.

That the ids are those of transformers is in test_golden_tokenization.py.
"""

import json

import pytest

from bert_jax.errors import UserError
from bert_jax.text.tokenizer import SPECIAL_TOKENS
from bert_jax.text.tokenizers import WordPieceTokenizer, holds_tokenizer, load_tokenizer

TOKENS = [*SPECIAL_TOKENS, "the", "café", "cafe", "The", "a", "##a", "中", "##文", "文"]


def tokenizer_file(**changes):
    """The content of a tokenizer.json, with changes of its parts."""
    parts = {
        "added_tokens": [],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {token: index for index, token in enumerate(TOKENS)},
        },
    }
    for name, change in changes.items():
        parts[name] = {**parts[name], **change} if isinstance(change, dict) else change
    return parts


@pytest.fixture
def directory(tmp_path):
    """Writes files, by name: text, or JSON; `vocab.txt` and `config` for short."""

    def write(vocabulary=None, config=None, **files):
        if vocabulary is not None:
            (tmp_path / "vocab.txt").write_text("".join(f"{token}\n" for token in vocabulary), encoding="utf-8")
        if config is not None:
            (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        for name, content in files.items():
            (tmp_path / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("words", "config", "cased"),
    [
        (["the", "fox"], None, False),
        (["the", "The", "Fox"], None, True),
        (["the", "The"], {"do_lower_case": True}, False),
        (["the", "fox"], {"do_lower_case": False}, True),
        (["the", "The"], {}, True),
        # Markers in brackets and one word that somebody added make no cased vocabulary.
        (["<S>", "[unused1]", *(f"word{'x' * n}" for n in range(150)), "Covid"], None, False),
        # Neither do scripts without cases.
        (["中", "##文"], None, False),
    ],
)
def test_case_is_told_by_the_files(directory, words, config, cased):
    assert load_tokenizer(directory([*SPECIAL_TOKENS, *words], config)).settings == {"cased": cased}


def test_published_vocabularies_are_uncased(shared_data):
    for name in ("bert-base-uncased", "bert-base-chinese"):
        assert load_tokenizer(shared_data / "vocab" / name).settings == {"cased": False}


def test_googles_directory_has_googles_longest_word(directory):
    path = directory(TOKENS[:8] + TOKENS[9:])
    long = "a" * 150
    assert load_tokenizer(path).encode_batch([long]) == [[1]]
    directory(bert_config={})
    tokenizer = load_tokenizer(path)
    assert tokenizer.settings == {"cased": False, "max_input_chars_per_word": 200}
    assert len(tokenizer.encode_batch([long])[0]) == 150
    # Saved as a directory of transformers', it asks for a class that keeps to tokenizer.json (BertTokenizer would not).
    tokenizer.save(path / "saved")
    config = json.loads((path / "saved" / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert load_tokenizer(path / "saved").fingerprint == tokenizer.fingerprint
    # A directory of the early days of transformers has such a file too, beside its own.
    directory(config={})
    assert load_tokenizer(path).settings == {"cased": False}


def test_a_file_of_an_early_version(directory):
    content = tokenizer_file()
    del content["model"]["type"]
    assert load_tokenizer(directory(tokenizer=content)).encode_batch(["The café"]) == [[5, 7]]


def test_special_tokens_beyond_the_vocabulary_are_ids_of_it(directory):
    added = [{"id": 4, "content": "[MASK]", "special": True}, {"id": len(TOKENS), "content": "<e1>", "special": True}]
    tokenizer = load_tokenizer(directory(tokenizer=tokenizer_file(added_tokens=added)))
    assert (tokenizer.vocab_size, tokenizer.token_to_id("<e1>")) == (len(TOKENS) + 1, len(TOKENS))
    declared = {str(token["id"]): {"content": token["content"], "special": True} for token in added}
    (directory() / "tokenizer.json").unlink()
    again = load_tokenizer(directory(TOKENS, {"do_lower_case": True, "added_tokens_decoder": declared}))
    assert again.fingerprint == tokenizer.fingerprint


def test_ours_comes_before_the_files_of_others(directory):
    tokenizer = WordPieceTokenizer(TOKENS, cased=False)
    path = directory()
    tokenizer.save(path / "saved")
    (path / "saved" / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert load_tokenizer(path / "saved").fingerprint == tokenizer.fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"type": "BPE"}}, "its model is BPE, not WordPiece"),
        ({"model": {"type": "Unigram", "vocab": [["a", -1.0]]}}, "its model is Unigram, not WordPiece"),
        ({"model": None}, "its model is missing"),
        ({"model": []}, "its model is missing"),
        ({"model": "WordPiece"}, "model is not a JSON object"),
        ({"normalizer": {"type": "Lowercase"}}, "its normalizer is Lowercase, not BertNormalizer"),
        ({"normalizer": None}, "its normalizer is missing"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "its pre_tokenizer is Whitespace"),
        ({"model": {"continuing_subword_prefix": "@@"}}, "begin with '@@'"),
        ({"model": {"max_input_chars_per_word": "many"}}, "max_input_chars_per_word is 'many'"),
        ({"normalizer": {"strip_accents": "no"}}, "strip_accents is 'no'"),
        ({"model": {"vocab": {"[PAD]": 0, "[UNK]": 2}}}, "no token has the id 1"),
        ({"model": {"vocab": {"[PAD]": 0, "[UNK]": 0}}}, "two tokens have the id 0"),
        ({"model": {"vocab": {"a": "0"}}}, "maps no tokens to ids"),
        ({"model": {"vocab": {"[PAD]": 0, "[UNK]": 1}}}, r"has no \[CLS\], \[SEP\], \[MASK\]"),
        ({"added_tokens": [{"id": 14, "content": "word", "special": False}]}, "the added token 'word' is cut out"),
        ({"added_tokens": [{"id": 99, "content": "<x>", "special": True}]}, "no token has the id 14"),
        ({"added_tokens": ["x"]}, r"added_tokens\[0\] is 'x', not an object"),
        ({"added_tokens": [{"id": 1, "content": ["x"]}]}, "content of an added token is a list"),
        ({"model": {"max_input_chars_per_word": 10**400}}, "max_input_chars_per_word is 1000"),
        ({"model": {"vocab": {"a\nb": 0}}}, "'a.nb', is empty or holds a line end"),
        ({"added_tokens": [{"id": None, "content": "<x>", "special": True}]}, "has the id null"),
    ],
)
def test_tokenizer_file_that_is_not_bert(directory, change, message):
    path = directory(tokenizer=tokenizer_file(**change))
    with pytest.raises(UserError, match=message) as error:
        load_tokenizer(path)
    assert "tokenizer.json" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"do_lower_case": False}, "do_lower_case is true in the first and false in the second"),
        ({"strip_accents": False}, "strip_accents is true in the first and false in the second"),
        ({"tokenize_chinese_chars": False}, "tokenize_chinese_chars is true in the first and false"),
    ],
)
def test_files_that_contradict_each_other(directory, config, message):
    with pytest.raises(UserError, match=f"tokenizer.json and tokenizer_config.json contradict each other: {message}"):
        load_tokenizer(directory(config=config, tokenizer=tokenizer_file()))


def test_files_that_say_the_same_in_other_words(directory):
    path = directory(TOKENS, {"do_lower_case": True, "strip_accents": True}, tokenizer=tokenizer_file())
    assert load_tokenizer(path).settings == {"cased": False}
    directory([*TOKENS[:-1], "other"])
    with pytest.raises(UserError, match=r"vocab\.txt and .*tokenizer\.json are different vocabularies"):
        load_tokenizer(path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"tokenizer_class": "BertJapaneseTokenizer"}, "the tokenizer is a 'BertJapaneseTokenizer'"),
        ({"do_lower_case": "yes"}, "do_lower_case is 'yes'"),
        ({"strip_accents": 1}, "strip_accents is 1"),
        ({"tokenize_chinese_chars": None}, "tokenize_chinese_chars is None"),
        ({"do_basic_tokenize": False}, "do_basic_tokenize is false"),
        ({"never_split": ["[MASK]", "<x>"]}, "keeps '<x>' whole"),
        ({"mask_token": "<mask>"}, "mask_token is '<mask>'"),
        ({"mask_token": {"content": "<mask>"}}, "mask_token is '<mask>'"),
        ({"added_tokens_decoder": {"14": {"content": "word", "special": False}}}, "the added token 'word' is cut out"),
        ({"added_tokens_decoder": {"x": {}}}, "added_tokens_decoder has 'x'"),
        ([], "no JSON object"),
        ({"never_split": 5}, "never_split is 5, not a list of strings"),
        ({"never_split": [[1]]}, r"never_split\[0\] is a list"),
        ({"tokenizer_class": []}, "tokenizer_class is a list, not a string"),
        ({"mask_token": 10**400}, "mask_token is a number of more than 64 bits"),
        ({"added_tokens_decoder": {"14": {"content": ["x"]}}}, "is a list, not a string"),
        ({"added_tokens_decoder": {"1" * 5000: {}}}, "added_tokens_decoder has '111"),
        ({"x": "\ud800"}, "half of a character"),
    ],
)
def test_configuration_that_cannot_be_followed(directory, config, message):
    with pytest.raises(UserError, match=rf"tokenizer_config\.json.*{message}"):
        load_tokenizer(directory(TOKENS, config))


def test_other_files(directory):
    path = directory(TOKENS, added_tokens={"word": len(TOKENS)})
    with pytest.raises(UserError, match=r"added_tokens\.json: the added token 'word' is cut out"):
        load_tokenizer(path)
    (path / "added_tokens.json").write_text("{")
    with pytest.raises(UserError, match=r"added_tokens\.json is damaged"):
        load_tokenizer(path)


def test_a_sentencepiece_model_of_others(tmp_path):
    (tmp_path / "spiece.model").write_bytes(b"model")
    assert not holds_tokenizer(tmp_path)
    with pytest.raises(UserError, match=r"holds no tokenizer .*spiece\.model of another program cannot be read"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_file_that_is_nested_too_deeply(directory):
    with pytest.raises(UserError, match=r"tokenizer\.json is damaged .*nested too deeply"):
        load_tokenizer(directory(tokenizer='{"a":' * 100_000))


@pytest.mark.parametrize("name", ["vocab.txt", "tokenizer.json"])
def test_a_vocabulary_of_too_many_words_is_refused(directory, monkeypatch, name):
    for module in ("published_tokenizers", "tokenizer"):
        monkeypatch.setattr(f"bert_jax.text.{module}.MOST_TOKENS", 5)
    path = directory(TOKENS) if name == "vocab.txt" else directory(tokenizer=tokenizer_file())
    with pytest.raises(UserError, match=rf"{name} has 14 .*: a vocabulary has .*5 at most"):
        load_tokenizer(path)
