"""tokenizer.json of a SentencePiece model: the ids of the model itself, blanks included."""

import itertools
import random

import pytest
from tokenizers import Tokenizer

from bert_jax.interop.sentencepiece_json import write_tokenizer_json
from bert_jax.text.tokenizers import load_tokenizer, train_tokenizer

_TEXTS = (
    "",
    "   ",
    "  Two   spaces,\ttabs\nand lines ",
    "ＦＵＬＬ Ｗｉｄｔｈ １２３ ﬁne ½ ㎏",
    "Ünknown 我爱北京 \U0001f600\U0001f600 letters",
    "ban-bed (bit) bot; but!",
)
_BLANKS = (
    "[MASK]",
    "ban [MASK] bed.",
    "[MASK] ban",
    "ban [MASK][MASK] bed",
    "ba[MASK]d but",
    "bed[MASK], bit [MASK]!",
    "  ban   [MASK]   bed  ",
)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Words that share their parts, in lines with signs and capitals."""
    words = ["".join(letters) for letters in itertools.product("bdkl", "aeiou", "dnt", ("", "ing", "ed"))]
    draw = random.Random(0)
    lines = [" ".join(draw.choices(words, k=9)) + draw.choice(".,!?") for _ in range(120)]
    return [line.title() if number % 3 else line for number, line in enumerate(lines)]


@pytest.mark.parametrize("cased", [True, False])
@pytest.mark.parametrize("algorithm", ["unigram", "bpe"])
def test_the_same_ids(tmp_path, texts, algorithm, cased):
    tokenizer = train_tokenizer(texts, "sentencepiece", 90, cased=cased, algorithm=algorithm)
    tokenizer.save(tmp_path / "saved")
    write_tokenizer_json(tmp_path / "saved")
    written = Tokenizer.from_file(str(tmp_path / "saved/tokenizer.json"))
    assert written.get_vocab() == {tokenizer.id_to_token(index): index for index in range(tokenizer.vocab_size)}
    ours = tokenizer.encode_batch([*_TEXTS, *texts])
    theirs = written.encode_batch([*_TEXTS, *texts], add_special_tokens=False)
    assert [encoding.ids for encoding in theirs] == ours
    assert any(tokenizer.unk_id in ids for ids in ours) and max(map(len, ours)) > 12
    for text in _BLANKS:
        expected = [tokenizer.cls_id, *tokenizer.encode_with_masks(text), tokenizer.sep_id]
        assert written.encode(text).ids == expected, text
    assert written.decode(ours[-1]) == tokenizer.decode(ours[-1])
    # The model itself stays what is opened here.
    assert load_tokenizer(tmp_path / "saved").fingerprint == tokenizer.fingerprint
