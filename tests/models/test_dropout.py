"""Dropout: the right share, the right scale, and masks that belong to rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.models.dropout import dropout, fold_in_each, row_keys


@pytest.fixture(scope="module")
def keys():
    return row_keys(jax.random.key(7), jnp.arange(8))


@pytest.mark.parametrize("shape", [(8, 64, 65), (8, 4, 40, 32), (8, 4001)])
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_rate_and_scale(keys, rate, shape):
    outputs = np.asarray(dropout(jnp.ones(shape), rate, keys))
    assert outputs.shape == shape
    kept = outputs != 0
    # Five deviations of a binomial share.
    assert abs((~kept).mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / outputs.size)
    threshold = round(rate * 65536)
    np.testing.assert_allclose(outputs[kept], 65536 / (65536 - threshold), rtol=1e-6)


def test_elements_are_drawn_apart(keys):
    """Both halves of a 32-bit draw are used, and neighbours, near or half a row away, do not share a fate."""
    kept = np.asarray(dropout(jnp.ones((8, 128, 64)), 0.5, keys)) != 0
    for shift in range(1, 64):
        agreement = (kept == np.roll(kept, shift, axis=-1)).mean()
        assert abs(agreement - 0.5) < 0.02, shift
    for axis, shift in ((1, 1), (0, 1)):
        assert abs((kept == np.roll(kept, shift, axis=axis)).mean() - 0.5) < 0.02
    assert (np.abs(kept.mean((0, 1)) - 0.5) < 0.1).all()


def test_the_rate_is_exact_to_sixteen_bits(keys, monkeypatch):
    """Every 16-bit number drawn once: exactly round(rate * 65536) of them are dropped."""
    words = jnp.arange(32768, dtype=jnp.uint32) * 2
    every_number = words | (words + 1) << 16
    monkeypatch.setattr(jax.random, "bits", lambda key, shape, dtype: every_number.reshape(shape).astype(dtype))
    for rate in (0.1, 0.15, 1 / 65536, 0.999):
        outputs = dropout(jnp.ones((1, 65536)), rate, keys[:1])
        assert int((outputs == 0).sum()) == round(rate * 65536)


def test_no_keys_or_no_rate_is_the_identity(keys):
    inputs = jnp.ones((8, 3))
    assert dropout(inputs, 0.5, None) is inputs
    assert dropout(inputs, 0.0, keys) is inputs
    assert fold_in_each(None, 3) is None


def test_a_row_keeps_its_mask_in_any_batch():
    key = jax.random.key(0)
    rows = jnp.asarray([5, 2, 9])
    inputs = jnp.ones((12, 6, 7))
    whole = dropout(inputs, 0.3, row_keys(key, jnp.arange(12)))
    np.testing.assert_array_equal(dropout(inputs[:3], 0.3, row_keys(key, rows)), whole[rows])


def test_rows_steps_and_places_draw_differently():
    inputs = jnp.ones((4, 200))
    masks = []
    for step in range(2):
        keys = row_keys(jax.random.fold_in(jax.random.key(0), step), jnp.arange(4))
        masks += [dropout(inputs, 0.5, fold_in_each(keys, place)) for place in (0, 1, 1 << 20)]
    rows = np.concatenate(masks)
    assert len(np.unique(rows, axis=0)) == len(rows)


def test_the_type_is_kept(keys):
    outputs = dropout(jnp.ones((8, 100), jnp.bfloat16), 0.1, keys)
    assert outputs.dtype == jnp.bfloat16


def test_gradients_pass_where_the_values_do(keys):
    inputs = jnp.ones((8, 50))
    outputs, pull = jax.vjp(lambda inputs: dropout(inputs, 0.2, keys), inputs)
    np.testing.assert_array_equal(pull(jnp.ones_like(inputs))[0], outputs)
