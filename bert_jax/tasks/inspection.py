"""A look inside a model: how it cuts a text, what it expects at each position, and where its heads look."""

import dataclasses
import pathlib
from collections.abc import Sequence

import jax
import numpy as np

from bert_jax.errors import UserError
from bert_jax.models.parameters import Functional, Parameters
from bert_jax.tasks.fill_mask import Suggestion, likeliest_words
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training.figure_file import replace_figure


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What a model makes of one text.

    Attributes:
        tokens: `[length]`, with [CLS] and [SEP].
        ids: `[length]`.
        predictions: for each position the likeliest words; None for a model without a masked-LM head.
        attention: float32 `[layers, heads, query_length, key_length]`.
    """

    tokens: Sequence[str]
    ids: Sequence[int]
    predictions: Sequence[Sequence[Suggestion]] | None
    attention: np.ndarray


def encode(tokenizer: Tokenizer, text: str, text_pair: str | None, max_length: int) -> tuple[list[int], list[int]]:
    """Returns ids and token types of `[CLS] text [SEP]`, or `[CLS] text [SEP] text_pair [SEP]`.

    Raises:
        UserError: they are longer than `max_length`.
    """
    ids = [tokenizer.cls_id, *tokenizer.encode_with_masks(text), tokenizer.sep_id]
    types = [0] * len(ids)
    if text_pair is not None:
        second = [*tokenizer.encode_with_masks(text_pair), tokenizer.sep_id]
        ids, types = ids + second, types + [1] * len(second)
    if len(ids) > max_length:
        raise UserError(f"the text has {len(ids)} tokens, and the model's longest sequence is {max_length}: shorten it")
    return ids, types


def inspect_text(
    model: Functional,
    parameters: Parameters,
    tokenizer: Tokenizer,
    ids: Sequence[int],
    types: Sequence[int],
    top_k: int,
) -> Inspection:
    """Runs a model on one text.

    Args:
        model: of any class.
        parameters: of the model.
        tokenizer: of the model.
        ids: of the text.
        types: its token types.
        top_k: words for each position.
    """
    length = len(ids)
    arrays = {
        "input_ids": np.asarray([ids], np.int32),
        "token_type_ids": np.asarray([types], np.int32),
        "position_ids": np.arange(length, dtype=np.int32)[None],
        "segment_ids": np.ones((1, length), np.int32),
    }
    attend = jax.jit(lambda parameters: model.apply(parameters, *arrays.values(), method="bert.attention_weights"))
    predictions = None
    if "masked_lm" in parameters:
        batch = {**arrays, "masked_positions": arrays["position_ids"], "cls_positions": np.zeros((1, 1), np.int32)}

        outputs = jax.jit(model.apply)(parameters, batch)
        logits = np.asarray(outputs[0] if isinstance(outputs, tuple) else outputs)[0]
        predictions = likeliest_words(logits, tokenizer, top_k)
    return Inspection(
        tokens=[tokenizer.id_to_token(token) for token in ids],
        ids=list(ids),
        predictions=predictions,
        attention=np.asarray(attend(parameters))[:, 0],
    )


def format_inspection(inspection: Inspection) -> str:
    """Returns one line for each token: position, id, token, and what the model expects there."""
    width = max(len(token) for token in inspection.tokens)
    lines = [f"{'position':>8} {'id':>6}  {'token':<{width}}" + ("  expected" if inspection.predictions else "")]
    for position, (token, index) in enumerate(zip(inspection.tokens, inspection.ids, strict=True)):
        line = f"{position:>8} {index:>6}  {token:<{width}}"
        if inspection.predictions:
            shown = (f"{word.token} {100 * word.probability:.1f} %" for word in inspection.predictions[position])
            line += "  " + ", ".join(shown)
        lines.append(line.rstrip())
    return "\n".join(lines)


def format_parameters(model: Functional, vocab_size: int) -> str:
    """Returns a table of the parameters: shape, number of scalars, and the names of the axes.

    By these names a mesh decides where to cut each axis; a "-" is never cut. What pads the vocabulary's axis is in the
    shape, and not in the number.
    """
    names = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(model.abstract()):
        names[jax.tree_util.keystr(path, simple=True, separator="/")] = leaf
    axes = jax.tree.leaves(model.logical_axes(), is_leaf=lambda leaf: isinstance(leaf, tuple))
    rows = []
    for (name, leaf), of_leaf in zip(names.items(), axes, strict=True):
        true_shape = [vocab_size if axis == "vocab" else size for axis, size in zip(of_leaf, leaf.shape, strict=True)]
        shape = " x ".join(map(str, leaf.shape))
        rows.append((name, shape, int(np.prod(true_shape)), ", ".join(axis or "-" for axis in of_leaf)))
    wide, deep = (max(len(row[column]) for row in rows) for column in (0, 1))
    lines = [f"{'parameter':<{wide}}  {'shape':<{deep}}  {'number':>12}  axes"]
    lines += [f"{name:<{wide}}  {shape:<{deep}}  {number:>12,}  {axis}" for name, shape, number, axis in rows]
    lines.append(f"{'in all':<{wide}}  {'':<{deep}}  {sum(row[2] for row in rows):>12,}")
    return "\n".join(lines)


def draw_attention(inspection: Inspection, layer: int, head: int, path: str | pathlib.Path) -> None:
    """Draws one head's weights as a heat map: a row for each token that looks, a column for each that is looked at.

    Args:
        inspection: of a text.
        layer: from 0.
        head: from 0.
        path: of the PNG; what is there is replaced.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    tokens = inspection.tokens
    side = min(2.0 + 0.28 * len(tokens), 30.0)
    figure = Figure(figsize=(side + 1.0, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(inspection.attention[layer, head], vmin=0.0, vmax=1.0, cmap="viridis")
    axes.set_xticks(range(len(tokens)), tokens, rotation=90)
    axes.set_yticks(range(len(tokens)), tokens)
    axes.set_xlabel("looked at")
    axes.set_ylabel("looks")
    axes.set_title(f"attention of layer {layer}, head {head}")
    figure.colorbar(image, ax=axes, shrink=0.8)
    replace_figure(figure, path, dpi=120)
