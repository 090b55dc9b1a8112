"""Added words: unused slots first, then new ids; every other id stays; words that could never occur are refused."""

import pytest

from bert_jax.errors import UserError
from bert_jax.text.added_words import AddedWord, add_markers, add_words, read_added_words
from bert_jax.text.tokenizer import SPECIAL_TOKENS
from bert_jax.text.tokenizers import WordPieceTokenizer, load_tokenizer, train_tokenizer

PIECES = ["angio", "##plast", "##y", "graft", "##s", "the", ".", "心", "cafe"]
TOKENS = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[unused1]", "[SEP]", "[MASK]", *PIECES]
ANGIO, PLAST, Y, GRAFT, S, THE = range(7, 13)


@pytest.fixture
def tokenizer():
    return WordPieceTokenizer(TOKENS, cased=False, training={"documents": 3})


def test_unused_slots_first_then_new_ids(tokenizer):
    changed, listing = add_words(tokenizer, ["angioplasty", "", " grafts ", "stent", "the", "stent"])
    assert listing.added == (
        AddedWord("angioplasty", 1, "[unused0]", (ANGIO, PLAST, Y)),
        AddedWord("grafts", 4, "[unused1]", (GRAFT, S)),
        AddedWord("stent", len(TOKENS), None, (tokenizer.unk_id,)),
    )
    assert listing.left_out == ("the", "stent")
    assert changed.encode_batch(["Angioplasty grafts, the stent."]) == [[1, 4, tokenizer.unk_id, THE, len(TOKENS), 13]]
    # All other ids are what they were, and so is the tokenizer that was given.
    assert changed.vocab_size == len(TOKENS) + 1
    for index, token in enumerate(TOKENS):
        if index not in (1, 4):
            assert (changed.id_to_token(index), changed.token_to_id(token)) == (token, index)
    assert changed.special_ids == tokenizer.special_ids
    assert [tokenizer.id_to_token(index) for index in range(tokenizer.vocab_size)] == TOKENS
    assert changed.fingerprint != tokenizer.fingerprint


def test_a_new_word_is_a_piece_for_others(tokenizer):
    changed, _ = add_words(tokenizer, ["stent"])
    assert changed.encode_batch(["stents"]) == [[1, S]]


def test_the_listing_is_saved_and_goes_on(tokenizer, tmp_path):
    first, listing = add_words(tokenizer, ["stent"], training={"request": {"from": "x"}})
    first.save(tmp_path / "first")
    loaded = load_tokenizer(tmp_path / "first")
    assert loaded.training == first.training
    assert loaded.training["documents"] == 3 and loaded.training["request"] == {"from": "x"}
    assert read_added_words(loaded) == listing.added
    second, more = add_words(loaded, ["stents", "angioplasty"])
    # Its pieces hold the word that was added before, so that in order each one's embedding can be computed.
    assert more.added[0] == AddedWord("stents", 4, "[unused1]", (1, S))
    assert read_added_words(second) == (*listing.added, *more.added)
    assert read_added_words(tokenizer) == ()


def test_rules_of_the_tokenizer_are_kept():
    rules = {"strip_accents": False, "max_input_chars_per_word": 5}
    tokenizer = WordPieceTokenizer(TOKENS, cased=False, rules=rules)
    changed, _ = add_words(tokenizer, ["café"])
    assert changed.settings == tokenizer.settings
    assert changed.encode_batch(["CAFÉ cafe"]) == [[1, 15]]
    with pytest.raises(UserError, match="a word of 6 characters is always"):
        add_words(tokenizer, ["stents"])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("Stent", "makes it 'stent' .*; write 'stent'"),
        ("naïve", "makes it 'naive' .*; write 'naive'"),
        ("soft\u00adhyphen", "write 'softhyphen'"),
        ("covid-19", "not one word: texts are split into 'covid - 19'"),
        ("heart rate", "split into 'heart rate'"),
        ("心臟", "split into '心 臟'"),
        ("##ing", "split into '# # ing'"),
        ("[MASK]", r"split into '\[ mask \]'"),
        ("[unused1]", r"split into"),
        ("\u200b", "holds nothing that is kept"),
        ("a" * 101, "a word of 101 characters is always"),
    ],
)
def test_words_that_could_never_occur(tokenizer, word, message):
    with pytest.raises(UserError, match=rf"^words\.txt:3: .*{message}") as error:
        add_words(tokenizer, ["stent", "", word], "words.txt")
    assert "\n" not in str(error.value)


def test_case_matters_where_it_is_kept():
    tokenizer = WordPieceTokenizer([*SPECIAL_TOKENS, "covid"], cased=True)
    changed, listing = add_words(tokenizer, ["COVID", "naïve"])
    assert [word.word for word in listing.added] == ["COVID", "naïve"]
    assert changed.encode_batch(["COVID covid naïve"]) == [[6, 5, 7]]


def test_nothing_to_add(tokenizer):
    with pytest.raises(UserError, match=r"nothing to add from w\.txt: it holds no words"):
        add_words(tokenizer, ["", "  "], "w.txt")
    with pytest.raises(UserError, match="each of its words is whole in the vocabulary already"):
        add_words(tokenizer, ["the", "graft"], "w.txt")


def test_sentencepiece_is_refused():
    texts = [f"the word {number} of a text" for number in range(100)]
    tokenizer = train_tokenizer(texts, "sentencepiece", 35)
    with pytest.raises(UserError, match="to a wordpiece tokenizer only, and this one is sentencepiece"):
        add_words(tokenizer, ["stent"])


def test_a_damaged_listing_is_said(tokenizer):
    tokenizer.training["added_words"] = [{"word": "x"}]
    with pytest.raises(UserError, match="listing of added words is damaged"):
        read_added_words(tokenizer)


def test_the_published_vocabulary_has_room(shared_data):
    tokenizer = load_tokenizer(shared_data / "vocab" / "bert-base-uncased")
    words = [f"newword{'abcdefghij'[n % 10]}{'abcdefghij'[n // 10 % 10]}{'abcdefghij'[n // 100]}" for n in range(1000)]
    changed, listing = add_words(tokenizer, words)
    # 994 slots lie in two stretches around the special tokens.
    assert [word.id for word in listing.added] == [*range(1, 100), *range(104, 999), *range(30522, 30528)]
    assert [word.unused_slot for word in listing.added[:2]] == ["[unused0]", "[unused1]"]
    assert changed.special_ids == tokenizer.special_ids
    assert changed.encode_batch([" ".join(words)]) == [[word.id for word in listing.added]]


def test_markers_take_unused_slots_and_no_text_gives_them(tokenizer, tmp_path):
    changed = add_markers(tokenizer, ["[E1]", "[/E1]", "[E2]"])
    assert [changed.token_to_id(marker) for marker in ("[E1]", "[/E1]", "[E2]")] == [1, 4, len(TOKENS)]
    assert changed.encode_batch(["the [E1] graft"]) == [[THE, *[tokenizer.unk_id] * 3, GRAFT]]
    assert [word.unused_slot for word in read_added_words(changed)] == ["[unused0]", "[unused1]", None]
    assert add_markers(changed, ["[E2]", "[E1]"]) is changed
    changed.save(tmp_path / "saved")
    loaded = load_tokenizer(tmp_path / "saved")
    assert loaded.fingerprint == changed.fingerprint and loaded.token_to_id("[/E1]") == 4
