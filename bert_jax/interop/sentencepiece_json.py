"""A SentencePiece model as tokenizer.json, for families whose tokenizers transformers reads from nothing else.

The ids are those of the model; but where two ways to cut a word are equally probable, rounding may choose another, and
marks that the model does not know, upon letters that it does, are not always kept apart. A blank takes the space before
it, as in `Tokenizer.encode_with_masks`.
"""

import pathlib
from collections.abc import Iterator
from typing import Any

from bert_jax.durable_files import library_os_errors
from bert_jax.text.sentencepiece import MODEL_FILE, WORD_START
from bert_jax.text.tokenizer import CLS, MASK, SEP, SPECIAL_TOKENS, UNK

# Numbers of the fields in the model's messages, from sentencepiece_model.proto.
_TRAINER, _NORMALIZER = 2, 3
_MODEL_TYPE, _BPE = 3, 2
_CHARACTER_MAP = 2


def write_tokenizer_json(directory: pathlib.Path) -> None:
    """Writes DIRECTORY/tokenizer.json for the model in DIRECTORY/spiece.model."""
    from sentencepiece import SentencePieceProcessor
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors

    model = (directory / MODEL_FILE).read_bytes()
    processor = SentencePieceProcessor(model_proto=model)
    number = processor.get_piece_size()
    pieces = [(processor.id_to_piece(index), processor.get_score(index)) for index in range(number)]
    parts = dict(_fields(model))
    is_bpe = dict(_fields(parts[_TRAINER])).get(_MODEL_TYPE) == _BPE
    tokenizer = Tokenizer(_bpe(pieces) if is_bpe else _unigram(pieces))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Precompiled(dict(_fields(parts[_NORMALIZER]))[_CHARACTER_MAP]),
            normalizers.Replace(Regex(" {2,}"), " "),
            normalizers.Strip(left=False, right=True),
        ]
    )
    # What follows a blank without a space goes on with its word.
    mark = {"replacement": WORD_START, "prepend_scheme": "first"}
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(**mark)
    tokenizer.decoder = decoders.Metaspace(**mark)
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False, lstrip=token == MASK) for token in SPECIAL_TOKENS]
    )
    cls_id, sep_id = (processor.piece_to_id(token) for token in (CLS, SEP))
    tokenizer.post_processor = processors.BertProcessing((SEP, sep_id), (CLS, cls_id))
    with library_os_errors():
        tokenizer.save(str(directory / "tokenizer.json"))


def _unigram(pieces: list[tuple[str, float]]) -> Any:
    from tokenizers import models

    return models.Unigram(pieces, unk_id=[piece for piece, _ in pieces].index(UNK), byte_fallback=False)


def _bpe(pieces: list[tuple[str, float]]) -> Any:
    """The library wants merges in order; the model has pieces, whose scores fall with the merge that made each."""
    from tokenizers import models

    ids = {piece: index for index, (piece, _) in enumerate(pieces)}
    merges = []
    for piece, score in pieces:
        if piece in SPECIAL_TOKENS:
            continue
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in ids and right in ids:
                merges.append((-score, ids[left], ids[right], (left, right)))
    return models.BPE(ids, [halves for *_, halves in sorted(merges)], unk_token=UNK, fuse_unk=True)


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a serialized protocol buffer, number and value: ints as such, the rest as bytes."""
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = message[place]
            place, value, shift = place + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while place < len(message):
        number, kind = divmod(varint(), 8)
        if kind == 0:
            yield number, varint()
        else:
            size = {1: 8, 5: 4}.get(kind) or varint()
            yield number, message[place : place + size]
            place += size
