"""A tiny architecture, parameters none of which is zero, and the whole of BERT in numpy to compare with."""

import dataclasses
import functools
import math
import zlib

import jax
import numpy as np
import pytest

from bert_jax.config import BertConfig
from bert_jax.models.bert import BertForPreTraining
from bert_jax.models.execution import Execution
from bert_jax.models.parameters import Functional


@pytest.fixture(scope="session")
def config():
    """Two layers of width 16; 50 words, padded to 128."""
    return BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
    )


@pytest.fixture(scope="session")
def build():
    """Makes a pre-training model as functions, once; keywords are those of `Execution`."""
    return functools.cache(
        lambda config, **execution: Functional(
            lambda rngs: BertForPreTraining(config, execution=Execution(**execution), rngs=rngs)
        )
    )


@pytest.fixture(scope="session")
def apply(build):
    """Calls a pre-training model, compiled; arguments are config, parameters, batch, keys, and those of `Execution`."""

    @functools.cache
    def compiled(config, execution):
        return jax.jit(build(config, **dict(execution)).apply)

    return lambda config, parameters, batch, keys=None, **execution: compiled(config, tuple(execution.items()))(
        parameters, batch, keys
    )


@pytest.fixture(scope="session")
def fill():
    """Makes random parameters of a model, zero only where the vocabulary is padded; the same for the same name."""

    def fill_one(path, leaf, vocab_size):
        name = jax.tree_util.keystr(path)
        values = np.random.default_rng(zlib.crc32(name.encode())).normal(0.0, 0.3, leaf.shape)
        if "scale" in name:
            values += 1
        if "word_embeddings" in name or name == "['masked_lm']['bias']":
            values[vocab_size:] = 0
        return jax.numpy.asarray(values, leaf.dtype)

    return lambda model, config: jax.tree_util.tree_map_with_path(
        functools.partial(fill_one, vocab_size=config.vocab_size), model.abstract()
    )


@pytest.fixture(scope="session")
def parameters(build, config, fill):
    """Random parameters of the pre-training model."""
    return fill(build(config), config)


@pytest.fixture(scope="session")
def batch(random_pairs, lay_out, config):
    """Four rows of 24 tokens, of one or two pairs."""
    pairs = random_pairs(6, config.vocab_size)
    return lay_out([pairs[:2], pairs[2:3], pairs[3:5], pairs[5:]], length=24, predictions=6, max_pairs=2)


@dataclasses.dataclass
class Reference:
    """What numpy computes in float64, for all rows.

    Attributes:
        states: of the embeddings and of every layer, `[layers + 1, batch, length, hidden]`.
        attention: weights `[layers, batch, heads, length, length]`.
        output: what the heads read `[batch, length, hidden]`.
        pooled: `[batch, pairs, hidden]`.
        masked_lm: logits `[batch, predictions, vocab]`, without the padding of the vocabulary; None without the head.
        next_sentence: logits `[batch, pairs, 2]`; None without the head.
    """

    states: np.ndarray
    attention: np.ndarray
    output: np.ndarray
    pooled: np.ndarray | None
    masked_lm: np.ndarray | None
    next_sentence: np.ndarray | None


@pytest.fixture(scope="session")
def reference():
    """Computes a `Reference` from parameters, batch and config: from the papers, row by row and head by head."""

    def compute(parameters, batch, config) -> Reference:
        p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), parameters)
        rows = [
            _row(p, {name: array[row] for name, array in batch.items()}, config)
            for row in range(len(batch["input_ids"]))
        ]
        stacked = {}
        for field in dataclasses.fields(Reference):
            values = [getattr(row, field.name) for row in rows]
            axis = 1 if field.name in ("states", "attention") else 0
            stacked[field.name] = None if values[0] is None else np.stack(values, axis)
        return Reference(**stacked)

    return compute


_erf = np.vectorize(math.erf)
_ACTIVATIONS = {
    "gelu": lambda x: x * 0.5 * (1 + _erf(x / math.sqrt(2))),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
}


def _row(p, batch, config) -> Reference:
    """One row of a batch."""
    bert, pre, norm = p["bert"], config.layer_norm_placement != "post", _NORMS[config.norm_type]
    words = bert["embeddings"]["word_embeddings"]["embedding"]
    act = _ACTIVATIONS[config.hidden_act]
    x = words[batch["input_ids"]]
    if config.type_vocab_size:
        x = x + bert["embeddings"]["token_type_embeddings"]["embedding"][batch["token_type_ids"]]
    if config.position_embedding_type == "sinusoidal":
        for place, position in enumerate(batch["position_ids"]):
            for i in range(config.hidden_size // 2):
                x[place, 2 * i] += math.sin(position / 10000 ** (2 * i / config.hidden_size))
                x[place, 2 * i + 1] += math.cos(position / 10000 ** (2 * i / config.hidden_size))
    elif config.position_embedding_type == "learned":
        x = x + bert["embeddings"]["position_embeddings"]["embedding"][batch["position_ids"]]
    if config.layer_norm_placement != "pre":
        x = norm(x, bert["embeddings"]["layer_norm"])
    states, attention = [x], []
    for number in range(config.num_hidden_layers):
        layer = jax.tree.map(lambda leaf, number=number: leaf[number], bert["encoder"]["layers"])
        x, weights = _layer(x, batch, layer, config, act, number)
        states.append(x)
        attention.append(weights)
    if pre:
        states = [norm(state, bert["encoder"]["final_layer_norm"]) for state in states]

    computed = states
    if config.encoder_output == "mixture":
        shares = bert["layer_mixture"]["gamma"] * _softmax(bert["layer_mixture"]["weights"])
        output = sum(share * state for share, state in zip(shares, states, strict=True))
    else:
        number = -1 if config.encoder_output == "last" else config.encoder_output
        output = states[number]
        computed = states[: number % len(states) + 1]

    pooled = next_sentence = masked_lm = None
    if "pooler" in bert:
        vectors = [
            _pool(output, computed, batch["segment_ids"], begin, config.pooling) for begin in batch["cls_positions"]
        ]
        pooled = np.tanh(_affine(np.stack(vectors), bert["pooler"]["dense"]))
    if "next_sentence" in p:
        next_sentence = _affine(pooled, p["next_sentence"]["dense"])
    if "masked_lm" in p:
        head = p["masked_lm"]
        transformed = act(_affine(output[batch["masked_positions"]], head["transform"]))
        scores = norm(transformed, head["layer_norm"]) @ words.T + head["bias"]
        masked_lm = scores[:, : config.vocab_size]
    return Reference(np.stack(states), np.stack(attention), output, pooled, masked_lm, next_sentence)


def _layer(x, batch, p, config, act, number):
    """One layer for a single row `[length, hidden]`, head by head; returns its output and its attention weights."""
    norm, placement, heads = _NORMS[config.norm_type], config.layer_norm_placement, config.num_attention_heads
    p_attention, segments = p["attention"], batch["segment_ids"]
    begins_normalised = placement == "pre_and_embeddings" and number == 0
    inputs = x if placement == "post" or begins_normalised else norm(x, p_attention["layer_norm"])
    query, key, value = (_affine(inputs, p_attention[name]) for name in ("query", "key", "value"))
    size = x.shape[-1] // heads
    visible = (segments[:, None] == segments[None]) & (segments > 0)[None]
    contexts, all_weights = [], []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        queries, keys = query[:, part], key[:, part]
        if config.position_embedding_type == "rotary":
            queries, keys = (_turn(vectors, batch["position_ids"], config.rotary_base) for vectors in (queries, keys))
        scores = queries @ keys.T / math.sqrt(size)
        weights = _softmax(np.where(visible, scores, -1e30))
        contexts.append(weights @ value[:, part])
        all_weights.append(weights)
    attended = _affine(np.concatenate(contexts, -1), p_attention["output"])
    x = norm(x + attended, p_attention["layer_norm"]) if placement == "post" else x + attended
    p = p["feed_forward"]
    inputs = x if placement == "post" else norm(x, p["layer_norm"])
    intermediate = act(_affine(inputs, p["intermediate"]))
    if config.feed_forward_type == "gated":
        intermediate = intermediate * _affine(inputs, p["gate"])
    transformed = _affine(intermediate, p["output"])
    x = norm(x + transformed, p["layer_norm"]) if placement == "post" else x + transformed
    return x, np.stack(all_weights)


def _turn(vectors, positions, base):
    """Multiplies each pair of dimensions, as a complex number, by that of its angle."""
    half = vectors.shape[-1] // 2
    numbers = vectors[:, :half] + 1j * vectors[:, half:]
    for i in range(half):
        numbers[:, i] *= np.exp(1j * positions / base ** (2 * i / vectors.shape[-1]))
    return np.concatenate([numbers.real, numbers.imag], -1)


def _pool(output, computed, segments, begin, pooling):
    """What the pooler reads of the pair that begins at a position; zero for a mean or maximum of no tokens."""
    if pooling == "cls":
        return output[begin]
    if pooling == "last_four":
        return np.concatenate([state[begin] for state in computed[-4:]])
    tokens = output[(segments == segments[begin]) & (segments > 0)]
    if len(tokens) == 0:
        return np.zeros(output.shape[-1])
    return tokens.mean(0) if pooling == "mean" else tokens.max(0)


def _layer_norm(x, p, epsilon=1e-12):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * p["scale"] + p.get("bias", 0)


def _rms_norm(x, p, epsilon=1e-12):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * p["scale"]


_NORMS = {"layer_norm": _layer_norm, "rms_norm": _rms_norm}


def _affine(x, p):
    """A product with a kernel of any number of axes, seen as a matrix."""
    kernel = p["kernel"].reshape(x.shape[-1], -1)
    return x @ kernel + (p["bias"].reshape(-1) if "bias" in p else 0)


def _softmax(x):
    exponentials = np.exp(x - x.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)
