"""The cross-entropy and its gradient against numpy."""

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.tasks.cross_entropy import cross_entropy


def test_cross_entropy_against_numpy():
    random = np.random.default_rng(0)
    logits = (10 * random.normal(size=(4, 3, 8))).astype(np.float32)
    logits[..., 6:] = -np.inf
    # Two equal maxima: the first one counts.
    logits[0, 0, [1, 4]] = 99
    labels = random.integers(0, 6, (4, 3))
    labels[0, 0] = 1
    weights = random.random((4, 3)).astype(np.float32)
    weights[2] = 0
    exact = logits.astype(np.float64)
    losses = np.logaddexp.reduce(exact, -1) - np.take_along_axis(exact, labels[..., None], -1)[..., 0]
    found, correct = cross_entropy(jnp.asarray(logits), jnp.asarray(labels))
    np.testing.assert_allclose(found, losses, rtol=1e-5)
    np.testing.assert_array_equal(correct, exact.argmax(-1) == labels)
    gradient = jax.grad(lambda logits: jnp.sum(weights * cross_entropy(logits, labels)[0]))(jnp.asarray(logits))
    probabilities = np.exp(exact - np.logaddexp.reduce(exact, -1)[..., None])
    expected = (probabilities - np.eye(8)[labels]) * weights[..., None]
    np.testing.assert_allclose(gradient, expected, atol=1e-5)
