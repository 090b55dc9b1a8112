"""Both kinds of tokenizer: special tokens, masks, saving, loading and its checks, determinism."""

import json
import os
import pathlib
import random
import subprocess
import sys

import numpy as np
import pytest

from bert_jax.errors import UserError
from bert_jax.text import sentencepiece
from bert_jax.text.tokenizer import DESCRIPTION_FILE, SPECIAL_TOKENS
from bert_jax.text.tokenizers import load_tokenizer, tokenizer_files, train_tokenizer


def made_up_words(count):
    """Words of random syllables, so that there are many pieces to learn."""
    generator = random.Random(0)
    syllables = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
    return ["".join(generator.choices(syllables, k=generator.randint(2, 4))) for _ in range(count)]


SUBJECTS = ["The old baker", "A young sailor", "Her teacher", "Our neighbour", "Émile", "Dr. Weaver", "The king"]
VERBS = ["walked to", "was seen in", "had never left", "wrote 12 letters about", "dreamt of", "returned from"]
PLACES = ["the harbour.", "Paris, the capital of France.", "a village near the sea!", "Zürich?", "the (old) castle;"]
SENTENCES = [f"{subject} {verb} {place}" for subject in SUBJECTS for verb in VERBS for place in PLACES]
TEXTS = [f"{sentence} {word}" for sentence, word in zip(SENTENCES, made_up_words(len(SENTENCES)), strict=True)]

VARIANTS = [
    {"kind": "wordpiece", "vocab_size": 300},
    {"kind": "wordpiece", "vocab_size": 300, "cased": True},
    {"kind": "sentencepiece", "vocab_size": 120},
    {"kind": "sentencepiece", "vocab_size": 180, "algorithm": "bpe", "cased": True},
]


@pytest.fixture(scope="module", params=VARIANTS, ids=lambda v: "-".join(map(str, v.values())))
def tokenizer(request):
    return train_tokenizer(TEXTS, **request.param, training={"documents": 3, "sample": TEXTS[5]})


@pytest.fixture
def saved(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def pieces(tokenizer, text):
    return [tokenizer.id_to_token(index) for index in tokenizer.encode_batch([text])[0]]


def test_special_tokens_come_first(tokenizer):
    assert tokenizer.special_ids == (0, 1, 2, 3, 4)
    assert [tokenizer.id_to_token(index) for index in range(5)] == list(SPECIAL_TOKENS)
    assert [tokenizer.token_to_id(token) for token in SPECIAL_TOKENS] == [0, 1, 2, 3, 4]
    assert tokenizer.token_to_id("no such piece") is None
    for index in (-1, tokenizer.vocab_size):
        with pytest.raises(IndexError):
            tokenizer.id_to_token(index)


def test_a_batch_is_its_texts_one_by_one(tokenizer):
    batch = tokenizer.encode_batch([*TEXTS[:20], "", "  "])
    assert batch == [tokenizer.encode_batch([text])[0] for text in [*TEXTS[:20], "", "  "]]
    assert batch[-2:] == [[], []]
    assert all(5 <= index < tokenizer.vocab_size for ids in batch for index in ids)


def test_a_single_text_is_no_list_of_its_letters(tokenizer):
    for function in (tokenizer.encode_batch, tokenizer.encode_with_offsets):
        with pytest.raises(
            TypeError, match=rf"list of texts, not a single one: write {function.__name__}\(\['hello'\]"
        ):
            function("hello")
        with pytest.raises(TypeError, match="number 1 of these is a NoneType: write str"):
            function(["hello", None])
    with pytest.raises(TypeError, match="train_tokenizer takes a list of texts, not a single one"):
        train_tokenizer("hello", tokenizer.kind)


def test_text_survives_a_round_trip(tokenizer):
    text = "The old baker wrote 12 letters"
    decoded = tokenizer.decode([2, *tokenizer.encode_batch([text])[0], 3, 0, 0])
    assert decoded == (text if tokenizer.settings["cased"] else text.lower())


def test_case_is_kept_only_if_asked_for(tokenizer):
    same = tokenizer.encode_batch(["the teacher"]) == tokenizer.encode_batch(["The Teacher"])
    assert same != tokenizer.settings["cased"]


def test_special_tokens_in_a_text_are_ordinary(tokenizer):
    for token in SPECIAL_TOKENS:
        ids = tokenizer.encode_batch([f"the king {token} walked"])[0]
        assert not {0, 2, 3, 4} & set(ids)
        assert len(ids) > 3


def test_masks_are_placed(tokenizer):
    ids = tokenizer.encode_with_masks("the capital of [MASK].")
    assert ids.count(tokenizer.mask_id) == 1
    # The mask takes the place of a whole word: what follows is what follows a word.
    (with_word,) = tokenizer.encode_batch(["the capital of France."])
    (before,) = tokenizer.encode_batch(["the capital of"])
    assert ids == [*before, tokenizer.mask_id, with_word[-1]]
    assert tokenizer.encode_with_masks("[MASK] [MASK][MASK]") == [tokenizer.mask_id] * 3
    assert tokenizer.encode_with_masks("no mask") == tokenizer.encode_batch(["no mask"])[0]
    assert "[MASK]" in tokenizer.decode(ids)


def test_an_unknown_character_beside_a_mask_stays_unknown(tokenizer):
    ids = tokenizer.encode_with_masks("the ☃[MASK] king")
    assert ids.count(tokenizer.mask_id) == 1
    assert ids.count(tokenizer.unk_id) == 1


def test_words_start_where_whole_word_masking_needs_them(tokenizer):
    assert tokenizer.starts_word.shape == (tokenizer.vocab_size,)
    assert tokenizer.starts_word.dtype == np.bool_
    ids = tokenizer.encode_batch(["The neighbours unwrote castles."])[0]
    assert len(ids) > 5
    # four words and the full stop, however many pieces they are
    assert tokenizer.starts_word[ids].sum() == 5
    assert tokenizer.starts_word[ids[0]] and tokenizer.starts_word[ids[-1]]


def test_a_saved_tokenizer_loads_the_same(tokenizer, saved):
    loaded = load_tokenizer(saved)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.kind == tokenizer.kind
    assert loaded.settings == tokenizer.settings
    assert loaded.training == tokenizer.training
    assert loaded.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)
    assert not list(saved.parent.glob(".*"))  # no temporary sibling stays
    again = saved.parent / "again"
    loaded.save(again)
    assert {p.name: p.read_bytes() for p in saved.iterdir()} == {p.name: p.read_bytes() for p in again.iterdir()}


def test_nothing_is_overwritten(tokenizer, saved):
    with pytest.raises(UserError, match="exists already"):
        tokenizer.save(saved)


def test_fingerprints_tell_tokenizers_apart():
    tokenizers = [train_tokenizer(texts, **variant) for variant in VARIANTS for texts in (TEXTS, TEXTS[:150])]
    assert len({tokenizer.fingerprint for tokenizer in tokenizers}) == len(tokenizers)


def vocabulary_file(directory):
    (file,) = [name for name in ("vocab.txt", "spiece.model") if (directory / name).exists()]
    return directory / file


def test_missing_file_is_named(saved):
    file = vocabulary_file(saved)
    file.unlink()
    with pytest.raises(UserError, match=file.name):
        load_tokenizer(saved)


def test_damaged_file_is_named(saved):
    file = vocabulary_file(saved)
    file.write_bytes(b"[PAD]\n\xff\xfe" + file.read_bytes()[:50])
    with pytest.raises(UserError, match=file.name):
        load_tokenizer(saved)


def test_file_of_another_tokenizer_is_named(saved, tmp_path, tokenizer):
    size = tokenizer.vocab_size - 20
    algorithm = tokenizer.settings.get("algorithm", "unigram")
    train_tokenizer(TEXTS, tokenizer.kind, size, algorithm=algorithm).save(tmp_path / "other")
    file = vocabulary_file(saved)
    file.write_bytes((tmp_path / "other" / file.name).read_bytes())
    with pytest.raises(UserError, match=rf"{file.name} (holds .* tokens|is not the one that)"):
        load_tokenizer(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("sample"), "sample is null, not an object"),
        (lambda d: d.update(version=99), "version 99"),
        (lambda d: d.update(kind="words"), "unknown kind 'words'"),
        (lambda d: d["settings"].pop("cased"), "settings has no 'cased'"),
        (lambda d: d["special_tokens"].update({"[MASK]": 7}), "other ids of special tokens"),
        (lambda d: d["settings"].update(cased=not d["settings"]["cased"]), "fingerprints differ"),
        (lambda d: d["sample"]["ids"].append(1), "ids that .* expects of its sample"),
    ],
)
def test_description_that_does_not_fit_is_named(saved, change, message):
    path = saved / DESCRIPTION_FILE
    description = json.loads(path.read_text(encoding="utf-8"))
    change(description)
    path.write_text(json.dumps(description))
    with pytest.raises(UserError, match=message):
        load_tokenizer(saved)


def test_a_model_with_a_piece_that_is_not_utf_8_is_named(tmp_path):
    tokenizer = train_tokenizer(TEXTS, "sentencepiece", 120)
    model = tokenizer._model.replace("\u2581".encode(), b"\xff\xfe\xfd")
    with pytest.raises(UserError, match=r"spiece\.model is damaged"):
        sentencepiece.load_model(tmp_path / "spiece.model", model, True, "unigram", {})
    tokenizer.save(tmp_path / "saved")
    (tmp_path / "saved" / "spiece.model").write_bytes(model)
    with pytest.raises(UserError, match=r"spiece\.model is not the one that"):
        load_tokenizer(tmp_path / "saved")


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "[" * 100_000])
def test_unreadable_description_is_named(saved, content):
    (saved / DESCRIPTION_FILE).write_text(content)
    with pytest.raises(UserError, match=f"{DESCRIPTION_FILE} is damaged"):
        load_tokenizer(saved)


def test_no_tokenizer_there(tmp_path):
    with pytest.raises(UserError, match="holds no tokenizer"):
        load_tokenizer(tmp_path)
    with pytest.raises(UserError, match="no such tokenizer"):
        load_tokenizer(tmp_path / "nowhere")


@pytest.mark.parametrize("variant", VARIANTS[::2], ids=["wordpiece", "sentencepiece"])
def test_training_is_deterministic_across_processes(variant, tmp_path):
    # The library's hash tables take their seed when a process starts, so another process is the real test.
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS))
    code = (
        "import json, sys; from bert_jax.text.tokenizers import train_tokenizer;"
        "texts = json.load(open(sys.argv[1])); train_tokenizer(texts, **json.loads(sys.argv[2])).save(sys.argv[3])"
    )
    contents = []
    for name in ("one", "two"):
        arguments = [str(tmp_path / "texts.json"), json.dumps(variant), str(tmp_path / name)]
        subprocess.run([sys.executable, "-c", code, *arguments], check=True)
        contents.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert contents[0] == contents[1]


@pytest.mark.parametrize("kind", ["wordpiece", "sentencepiece"])
def test_training_mistakes(kind):
    for texts in ([], ["", "  \n "]):
        with pytest.raises(UserError, match="no text to train"):
            train_tokenizer(texts, kind, 200)
    with pytest.raises(UserError, match="too small"):
        train_tokenizer(TEXTS, kind, 30)
    with pytest.raises(UserError, match="unknown kind"):
        train_tokenizer(TEXTS, "characters", 200)


def test_sentencepiece_says_the_largest_size():
    with pytest.raises(UserError, match=r"larger than this text supports: set vocab_size to \d+ or less"):
        train_tokenizer(TEXTS, "sentencepiece", 5000)


def test_wordpiece_stops_at_the_words_there_are():
    tokenizer = train_tokenizer(TEXTS, "wordpiece", 5000)
    assert tokenizer.vocab_size < 1000
    assert tokenizer.training["requested_vocab_size"] == 5000


def test_forked_workers_do_not_warn():
    code = (
        "import os; from bert_jax.text.tokenizers import train_tokenizer;"
        "t = train_tokenizer(['some words here'] * 50, 'wordpiece', 60); t.encode_batch(['a b'] * 100);"
        "p = os.fork(); t.encode_batch(['a b'] * 100); p and os.wait()"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    root = pathlib.Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=root)
    assert (done.returncode, done.stderr) == (0, "")


def _written(files, folder):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return load_tokenizer(folder / "tokenizer")


def test_a_checkpoint_takes_the_files_of_a_tokenizer_and_no_others(saved, tmp_path):
    tokenizer = load_tokenizer(saved)
    (tmp_path / "key").write_text("secret")
    (saved / "id_rsa").symlink_to(tmp_path / "key")
    (saved / "notes.txt").write_text("secret")
    (saved / "more").mkdir()
    (saved / "more" / "vocab.txt").symlink_to(tmp_path / "key")
    files = tokenizer_files(tokenizer, saved)
    assert all(content == (saved / name.removeprefix("tokenizer/")).read_bytes() for name, content in files.items())
    assert not any(b"secret" in content for content in files.values())
    assert _written(files, tmp_path / "again").fingerprint == tokenizer.fingerprint


@pytest.mark.parametrize("name", ["spiece.model", "tokenizer_config.json"])
def test_a_link_in_a_tokenizers_folder_is_not_followed_into_a_checkpoint(tmp_path, name):
    folder = tmp_path / "downloaded"
    folder.mkdir()
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nword\n")
    (tmp_path / "key").write_text('{"private_key": "secret"}')
    (folder / name).symlink_to(tmp_path / "key")
    tokenizer = load_tokenizer(folder)
    files = tokenizer_files(tokenizer, folder)
    assert not any(b"secret" in content for content in files.values())
    assert _written(files, tmp_path / "again").fingerprint == tokenizer.fingerprint


def test_a_snapshot_of_links_as_hubs_keep_them_opens_and_is_written_anew(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "revision"
    train_tokenizer(TEXTS, "wordpiece", 300).save(blobs)
    snapshot.mkdir(parents=True)
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        (snapshot / name).symlink_to(f"../../blobs/{name}")
    tokenizer = load_tokenizer(snapshot)
    files = tokenizer_files(tokenizer, snapshot)
    assert f"tokenizer/{DESCRIPTION_FILE}" in files
    again = _written(files, tmp_path / "again")
    assert again.fingerprint == tokenizer.fingerprint and again.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)


def test_what_stands_beside_the_files_of_others_is_kept_in_a_checkpoint(tmp_path):
    folder = tmp_path / "google"
    folder.mkdir()
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n##a\n")
    (folder / "bert_config.json").write_text("{}")  # Google's: words may be longer there
    tokenizer = load_tokenizer(folder)
    again = _written(tokenizer_files(tokenizer, folder), tmp_path / "again")
    assert again.fingerprint == tokenizer.fingerprint
    assert again.encode_batch(["a" * 150]) == tokenizer.encode_batch(["a" * 150]) == [[5, *[6] * 149]]
