"""Fill in the blanks: the words that a pre-trained model puts in the place of [MASK]."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from bert_jax.config import BertConfig
from bert_jax.errors import UserError
from bert_jax.models.registry import build_model
from bert_jax.parallel.sharding import param_shardings
from bert_jax.text.tokenizer import MASK, Tokenizer

# Lengths are rounded up to a multiple of this, so that texts of similar length share a compiled program.
_LENGTH_MULTIPLE = 32


@dataclasses.dataclass(frozen=True)
class Suggestion:
    """A word for a blank, and its probability."""

    token: str
    probability: float


def encode_text(tokenizer: Tokenizer, text: str, max_length: int) -> list[int]:
    """Returns `[CLS] text [SEP]` as ids; a text without a blank, or too long for the model, is a UserError."""
    ids = [tokenizer.cls_id, *tokenizer.encode_with_masks(text), tokenizer.sep_id]
    if tokenizer.mask_id not in ids:
        raise UserError(f"no {MASK} in {text!r}: put it where a word is wanted, such as 'The sky is {MASK}.'")
    if len(ids) > max_length:
        raise UserError(f"the text has {len(ids)} tokens, and the model's longest sequence is {max_length}: shorten it")
    return ids


def fill_masks(
    config: BertConfig, parameters: Any, tokenizer: Tokenizer, text: str, top_k: int
) -> list[list[Suggestion]]:
    """Suggests words for each [MASK] of a text.

    Args:
        config: the architecture.
        parameters: of any model with a masked-LM head.
        tokenizer: of the model.
        text: with one or several blanks.
        top_k: suggestions per blank.

    Returns:
        For each blank in order, the likeliest first.
    """
    ids = encode_text(tokenizer, text, config.max_position_embeddings)
    positions = [position for position, token in enumerate(ids) if token == tokenizer.mask_id]
    length = min(-(-len(ids) // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE, config.max_position_embeddings)
    input_ids = np.zeros((1, length), np.int32)
    input_ids[0, : len(ids)] = ids
    used = np.arange(length)[None] < len(ids)
    batch = {
        "input_ids": input_ids,
        "token_type_ids": np.zeros_like(input_ids),
        "position_ids": np.where(used, np.arange(length)[None], 0).astype(np.int32),
        "segment_ids": used.astype(np.int32),
        "masked_positions": np.asarray([positions], np.int32),
    }
    return likeliest_words(np.asarray(_compiled(config)(_used(parameters), batch))[0], tokenizer, top_k)


def place_parameters(mesh: Mesh, config: BertConfig, parameters: Any) -> Any:
    """Returns the parameters that `fill_masks` uses, cut over the mesh by the same rules as in training."""
    used = _used(parameters)
    axes = build_model("BertForMaskedLM", config).logical_axes()
    return jax.device_put(used, param_shardings(mesh, axes, used))


def _used(parameters: Any) -> Any:
    # Pooler and next-sentence head have no part in it.
    encoder = {name: part for name, part in parameters["bert"].items() if name != "pooler"}
    return {"bert": encoder, "masked_lm": parameters["masked_lm"]}


def likeliest_words(logits: np.ndarray, tokenizer: Tokenizer, top_k: int) -> list[list[Suggestion]]:
    """Returns for each row of masked-LM logits `[positions, vocab]` its best words, the likeliest first."""
    # Some models have embeddings for more ids than their tokenizer. In float32 the sum over a vocabulary is off by
    # more than a thousandth.
    logits = logits[:, : tokenizer.vocab_size].astype(np.float64)
    probabilities = np.exp(logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True))
    best = np.argsort(-probabilities, axis=-1, kind="stable")[:, :top_k]
    return [
        [Suggestion(tokenizer.id_to_token(int(token)), float(row[token])) for token in tokens]
        for tokens, row in zip(best, probabilities, strict=True)
    ]


@functools.cache
def _compiled(config: BertConfig) -> Any:
    return jax.jit(build_model("BertForMaskedLM", config).apply)


def format_suggestions(text: str, suggestions: Sequence[Sequence[Suggestion]]) -> str:
    """Returns the text, and below it one line for each suggestion."""
    lines = [text]
    for number, blank in enumerate(suggestions, start=1):
        if len(suggestions) > 1:
            lines.append(f"  blank {number}")
        lines += [f"  {100 * suggestion.probability:5.1f} %  {suggestion.token}" for suggestion in blank]
    return "\n".join(lines)
