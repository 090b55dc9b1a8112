"""The options beside the published architecture: each against numpy, each with an effect, none breaking a promise.

The promises are that packing and padding change nothing, that dropout belongs to rows, and that types and
recomputation change results by rounding at most.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.models.bert import token_arrays
from bert_jax.models.dropout import row_keys
from bert_jax.models.embeddings import sinusoidal_positions
from bert_jax.models.parameters import count_parameters
from bert_jax.models.rotary import rotate, rotation_of
from bert_jax.training.initialization import paths

OPTIONS = {
    "sinusoidal": {"position_embedding_type": "sinusoidal"},
    "pre": {"layer_norm_placement": "pre"},
    "rotary": {"position_embedding_type": "rotary", "rotary_base": 100.0},
    "pre_and_embeddings": {"layer_norm_placement": "pre_and_embeddings"},
    "rms_norm": {"norm_type": "rms_norm"},
    "no_biases": {"use_bias": False},
    "gated": {"feed_forward_type": "gated"},
    "no_token_types": {"type_vocab_size": 0},
    "modern": {
        "position_embedding_type": "rotary",
        "layer_norm_placement": "pre_and_embeddings",
        "use_bias": False,
        "feed_forward_type": "gated",
        "hidden_act": "silu",
        "type_vocab_size": 0,
    },
    "mixture": {"encoder_output": "mixture"},
    "embeddings": {"encoder_output": 0},
    "layer_-2": {"encoder_output": -2},
    "mean": {"pooling": "mean"},
    "max": {"pooling": "max"},
    "last_four": {"pooling": "last_four"},
    "together": {
        "position_embedding_type": "sinusoidal",
        "layer_norm_placement": "pre",
        "encoder_output": "mixture",
        "pooling": "last_four",
    },
    "pre_layer_4_of_5": {
        "num_hidden_layers": 5,
        "layer_norm_placement": "pre",
        "encoder_output": 4,
        "pooling": "last_four",
    },
}
# Those whose gradients are computed: all that an option does happens in one of them.
DIFFERENTIATED = {
    "together": OPTIONS["together"],
    "modern": OPTIONS["modern"],
    "max_of_layer_3": {"encoder_output": 3, "pooling": "max"},
    "mean_of_mixture": {"encoder_output": "mixture", "pooling": "mean"},
}


@pytest.fixture(scope="module")
def published(config):
    return dataclasses.replace(config, num_hidden_layers=4)


@pytest.fixture(params=OPTIONS)
def option(request, published):
    return dataclasses.replace(published, **OPTIONS[request.param])


@pytest.fixture(params=DIFFERENTIATED)
def differentiated(request, published):
    return dataclasses.replace(published, **DIFFERENTIATED[request.param])


def same_scores(some, others, vocab_size):
    for one, other in zip(some, others, strict=True):
        np.testing.assert_allclose(one[..., :vocab_size], other[..., :vocab_size], rtol=1e-5, atol=2e-5)


def test_forward_against_numpy_and_effect(build, apply, fill, published, option, batch, reference):
    scores = apply(option, fill(build(option), option), batch)
    expected = reference(fill(build(option), option), batch, option)
    same_scores(scores, (expected.masked_lm, expected.next_sentence), option.vocab_size)
    # Parameters of the same name are the same, so that what differs is the option's doing.
    default = reference(fill(build(published), published), batch, published)
    assert np.abs(expected.next_sentence - default.next_sentence).max() > 1e-2
    pooling_alone = dataclasses.replace(option, pooling="cls") == published
    assert (np.abs(expected.masked_lm - default.masked_lm).max() < 1e-6) == pooling_alone


def test_packing_and_padding_change_nothing(build, apply, fill, option, random_pairs, lay_out):
    """Two pairs in a row of 24 tokens, and each alone in such a row, half of which is padding."""
    first, second = random_pairs(2, option.vocab_size, lengths=(11, 12))
    rows = lay_out([[first, second], [first], [second], []], length=24, predictions=6, max_pairs=2)
    # Whatever stands in the padding is not seen.
    rows["input_ids"][rows["segment_ids"] == 0] = 7
    masked_lm, next_sentence = apply(option, fill(build(option), option), rows)
    begin = 0
    for number, pair in enumerate((first, second)):
        end = begin + len(pair.masked)
        same_scores(
            (masked_lm[0, begin:end], next_sentence[0, number]),
            (masked_lm[number + 1, : end - begin], next_sentence[number + 1, 0]),
            option.vocab_size,
        )
        begin = end
    assert np.isfinite(masked_lm[..., : option.vocab_size]).all() and np.isfinite(next_sentence).all()


@pytest.mark.parametrize("name", ["together", "modern", "layer_-2"])
def test_hidden_states_and_attention_weights_against_numpy(build, fill, published, batch, reference, name):
    config = dataclasses.replace(published, **OPTIONS[name])
    model = build(config)
    parameters = fill(model, config)

    @jax.jit
    def observe(parameters):
        return tuple(
            model.apply(parameters, *token_arrays(batch), method=method)
            for method in ("bert", "bert.hidden_states", "bert.attention_weights")
        )

    output, states, weights = observe(parameters)
    expected = reference(parameters, batch, config)
    np.testing.assert_allclose(output, expected.output, rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(states, expected.states, rtol=1e-5, atol=2e-5)
    real = np.broadcast_to((batch["segment_ids"] > 0)[:, None, :, None], weights.shape)
    np.testing.assert_allclose(weights[real], expected.attention[real], rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def gradient(build, fill, random_pairs, lay_out):
    """Gradients of a number that depends on all scores, with dropout; the last row of the batch is padding alone."""

    @functools.cache
    def compute(config, **execution):
        model = build(config, **execution)
        pairs = random_pairs(4, config.vocab_size)
        batch = lay_out([pairs[:2], pairs[2:3], pairs[3:], []], length=24, predictions=6, max_pairs=2)
        keys = row_keys(jax.random.key(5), jnp.arange(4))

        def total(parameters):
            masked_lm, next_sentence = model.apply(parameters, batch, keys)
            return jnp.sum(jnp.sin(masked_lm[..., : config.vocab_size])) + jnp.sum(jnp.sin(next_sentence))

        return jax.jit(jax.grad(total))(fill(model, config))

    return compute


def test_every_parameter_that_is_used_learns(gradient, differentiated):
    gradients = gradient(differentiated)
    for name, leaf in paths(gradients).items():
        assert np.isfinite(leaf).all(), name
        if "/layers/" not in name:
            assert np.abs(leaf).max() > 1e-4, name
            continue
        for number, values in enumerate(leaf):
            # The keys' bias moves all scores of a query alike, which softmax does not see.
            is_used = number < differentiated.num_computed_layers
            if number == 0 and differentiated.layer_norm_placement == "pre_and_embeddings":
                is_used &= "attention/layer_norm" not in name
            if is_used and not name.endswith("attention/key/bias"):
                assert np.abs(values).max() > 1e-4, (name, number)
            if not is_used:
                assert (values == 0).all(), (name, number)


@pytest.mark.parametrize("options", ["together", "modern", "max_of_layer_3"])
def test_recomputing_and_unrolling_change_no_gradient(gradient, published, options):
    config = dataclasses.replace(published, **DIFFERENTIATED[options])
    plain = paths(gradient(config))
    for name, leaf in paths(gradient(config, remat="full", unroll=2)).items():
        tolerance = max(2e-5 * float(np.abs(plain[name]).max()), 1e-4)
        np.testing.assert_allclose(leaf, plain[name], rtol=1e-4, atol=tolerance, err_msg=name)


def test_dropout_reaches_the_layers_and_belongs_to_rows(build, apply, fill, differentiated, batch):
    """Of the attention weights alone, so that no dropout of the embeddings hides that of the layers."""
    config = dataclasses.replace(differentiated, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.5)
    parameters, keys = fill(build(config), config), row_keys(jax.random.key(5), jnp.arange(4))
    scores = apply(config, parameters, batch, keys)
    assert np.abs(scores[1] - apply(config, parameters, batch)[1]).max() > 1e-2
    other_order = np.asarray([2, 0, 3, 1])
    moved = apply(config, parameters, {k: v[other_order] for k, v in batch.items()}, keys[other_order])
    same_scores(moved, [array[other_order] for array in scores], config.vocab_size)


def test_bfloat16_is_close(build, apply, fill, differentiated, batch):
    parameters = fill(build(differentiated), differentiated)
    assert {leaf.dtype for leaf in jax.tree.leaves(build(differentiated, dtype="bfloat16").abstract())} == {
        jnp.dtype("float32")
    }
    masked_lm, next_sentence = apply(differentiated, parameters, batch, dtype="bfloat16")
    assert masked_lm.dtype == next_sentence.dtype == jnp.float32
    for rough, exact in zip((masked_lm, next_sentence), apply(differentiated, parameters, batch), strict=True):
        rough, exact = rough[..., : differentiated.vocab_size], exact[..., : differentiated.vocab_size]
        assert 1e-6 < np.abs(rough - exact).mean() < 0.05 * np.abs(exact).mean()


def test_the_encoder_keeps_the_chosen_type(build, published, batch):
    """A single value in float32 would make all that follows it float32."""
    for options in OPTIONS.values():
        model = build(dataclasses.replace(published, **options), dtype="bfloat16")
        tokens = [*token_arrays(batch), batch["cls_positions"]]
        apply = lambda p, model=model, tokens=tokens: model.apply(p, *tokens, method="bert.encode_and_pool")  # noqa: E731
        hidden, pooled = jax.eval_shape(apply, model.abstract())
        assert hidden.dtype == pooled.dtype == jnp.bfloat16, options


def test_sinusoidal_positions():
    table = sinusoidal_positions(512, 64)
    assert table.shape == (512, 64) and table.dtype == np.float32
    position, i = np.arange(512)[:, None], np.arange(32)
    angles = position / np.power(10000.0, 2 * i / 64)
    np.testing.assert_allclose(table[:, 0::2], np.sin(angles), atol=1e-7)
    np.testing.assert_allclose(table[:, 1::2], np.cos(angles), atol=1e-7)
    # The paper's reason: a step of k positions is the same rotation everywhere.
    products = table @ table.T
    np.testing.assert_allclose(np.diagonal(products, 7), products[0, 7], rtol=1e-5)


def test_rotations_show_differences_of_positions_alone():
    random = np.random.default_rng(0)
    query, key = random.normal(size=(2, 1, 1, 1, 8))
    query, key = (jnp.asarray(np.broadcast_to(one, (1, 20, 1, 8)), jnp.float32) for one in (query, key))
    rotation = rotation_of(jnp.arange(20)[None], 8, 50.0, 32)
    products = np.einsum("bqhd,bkhd->qk", rotate(query, rotation), rotate(key, rotation))
    for difference in range(-19, 20):
        diagonal = np.diagonal(products, difference)
        np.testing.assert_allclose(diagonal, diagonal[0], atol=1e-5)
    assert np.abs(np.diff(products[0])).min() > 1e-3
    # A turn keeps lengths, and a position that there is not has none.
    np.testing.assert_allclose(
        np.linalg.norm(rotate(query, rotation)[0, :, 0], axis=-1), np.linalg.norm(query[0, 0]), rtol=1e-5
    )
    beyond = rotate(query[:, :3], rotation_of(jnp.asarray([[-1, 31, 32]]), 8, 50.0, 32))
    assert np.isnan(beyond).any(axis=(0, 2, 3)).tolist() == [True, False, True]


def test_learned_positions_that_begin_as_sinusoids(build, published):
    config = dataclasses.replace(published, position_embedding_init="sinusoidal")
    tables = build(config).init(jax.random.key(0))["bert"]["embeddings"]
    positions = tables["position_embeddings"]["embedding"]
    expected = sinusoidal_positions(32, 16)
    np.testing.assert_allclose(positions / positions[0, 1], expected, atol=1e-6)
    # The root mean square of words as drawn, but for what is cut off at two standard deviations.
    root_mean_square = np.sqrt(np.mean(np.square(positions)))
    np.testing.assert_allclose(root_mean_square, config.initializer_range, rtol=1e-5)


_PUBLISHED_PARAMETERS = {
    *(f"bert/embeddings/{kind}_embeddings/embedding" for kind in ("word", "position", "token_type")),
    *(
        f"bert/encoder/layers/{name}/{leaf}"
        for name in (
            *(f"attention/{part}" for part in ("query", "key", "value", "output")),
            *(f"feed_forward/{part}" for part in ("intermediate", "output")),
        )
        for leaf in ("kernel", "bias")
    ),
    *(
        f"{place}/layer_norm/{leaf}"
        for place in (
            "bert/embeddings",
            "bert/encoder/layers/attention",
            "bert/encoder/layers/feed_forward",
            "masked_lm",
        )
        for leaf in ("scale", "bias")
    ),
    *(f"{place}/{leaf}" for place in ("bert/pooler/dense", "masked_lm/transform") for leaf in ("kernel", "bias")),
    *(f"next_sentence/dense/{leaf}" for leaf in ("kernel", "bias")),
    "masked_lm/bias",
}
_EMBEDDINGS_NORM = {f"bert/embeddings/layer_norm/{leaf}" for leaf in ("scale", "bias")}
_FINAL_NORM = {f"bert/encoder/final_layer_norm/{leaf}" for leaf in ("scale", "bias")}
_MIXTURE = {f"bert/layer_mixture/{leaf}" for leaf in ("weights", "gamma")}
_GATE = {f"bert/encoder/layers/feed_forward/gate/{leaf}" for leaf in ("kernel", "bias")}
_NORM_BIASES = {name for name in _PUBLISHED_PARAMETERS if name.endswith("layer_norm/bias")}
_BIASES = _NORM_BIASES | {
    name
    for name in _PUBLISHED_PARAMETERS
    if name.endswith("/bias") and ("/layers/" in name or name.startswith("masked_lm/transform"))
}
_TOKEN_TYPES = {"bert/embeddings/token_type_embeddings/embedding"}
_POSITIONS = {"bert/embeddings/position_embeddings/embedding"}


@pytest.mark.parametrize(
    ("options", "more", "less", "count"),
    [
        ({}, set(), set(), 0),
        ({"position_embedding_type": "sinusoidal"}, set(), _POSITIONS, -32 * 16),
        ({"position_embedding_type": "rotary"}, set(), _POSITIONS, -32 * 16),
        ({"position_embedding_init": "sinusoidal"}, set(), set(), 0),
        ({"type_vocab_size": 0}, set(), _TOKEN_TYPES, -2 * 16),
        ({"norm_type": "rms_norm"}, set(), _NORM_BIASES, -(2 + 4 * 2) * 16),
        ({"use_bias": False}, set(), _BIASES, -(2 + 4 * 2 + 4 * 5 + 1) * 16 - 4 * 24),
        ({"feed_forward_type": "gated"}, _GATE, set(), 4 * (16 * 24 + 24)),
        ({"layer_norm_placement": "pre_and_embeddings"}, _FINAL_NORM, set(), 2 * 16),
        ({"layer_norm_placement": "pre"}, _FINAL_NORM, _EMBEDDINGS_NORM, 0),
        ({"encoder_output": "mixture"}, _MIXTURE, set(), 4 + 2),
        ({"encoder_output": 2}, set(), set(), 0),
        ({"pooling": "mean"}, set(), set(), 0),
        ({"pooling": "max"}, set(), set(), 0),
        ({"pooling": "last_four"}, set(), set(), 3 * 16 * 16),
    ],
)
def test_an_option_has_its_parameters_and_no_others(build, published, options, more, less, count):
    config = dataclasses.replace(published, **options)
    parameters = build(config).abstract()
    assert set(paths(parameters)) == (_PUBLISHED_PARAMETERS | more) - less
    published_count = count_parameters(build(published).abstract(), config.vocab_size)
    assert count_parameters(parameters, config.vocab_size) == published_count + count


def test_axes_of_the_new_parameters_are_named(build, published):
    model = build(dataclasses.replace(published, **OPTIONS["together"]))
    is_names = lambda leaf: isinstance(leaf, tuple)  # noqa: E731
    axes, shapes = model.logical_axes(), model.abstract()
    jax.tree.map(lambda names, leaf: np.testing.assert_equal(len(names), leaf.ndim), axes, shapes, is_leaf=is_names)
    assert axes["bert"]["encoder"]["final_layer_norm"] == {"scale": ("embed",), "bias": ("embed",)}
    assert axes["bert"]["layer_mixture"] == {"weights": (None,), "gamma": ()}
    assert axes["bert"]["pooler"]["dense"]["kernel"] == ("embed", None)
    assert shapes["bert"]["pooler"]["dense"]["kernel"].shape == (64, 16)


def test_initial_values_of_the_new_parameters(build, published):
    """The mixture begins as the plain mean of all layers, and the final LayerNorm as every other."""
    config = dataclasses.replace(published, **OPTIONS["together"])
    values = build(config).init(jax.random.key(0))["bert"]
    np.testing.assert_array_equal(values["layer_mixture"]["weights"], np.zeros(5))
    np.testing.assert_array_equal(values["layer_mixture"]["gamma"], 1.0)
    np.testing.assert_array_equal(values["encoder"]["final_layer_norm"]["scale"], np.ones(16))
    np.testing.assert_array_equal(values["encoder"]["final_layer_norm"]["bias"], np.zeros(16))
    assert 0.015 < np.asarray(values["pooler"]["dense"]["kernel"]).std() < 0.02
