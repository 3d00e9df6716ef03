"""Cross-entropy of soft labels and Kullback-Leibler divergence, against SciPy."""

import numpy as np
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, rel_entr, softmax

from rvs_tf.losses import kl_divergence, soft_cross_entropy


@given(st.integers(1, 8), st.integers(2, 12), st.sampled_from([0.1, 10.0, 1e4]), st.integers(0, 99))
def test_cross_entropy_is_that_of_scipy(batch, classes, scale, seed):
    rng = np.random.default_rng(seed)
    logits, targets = scale * rng.normal(size=(batch, classes)), rng.dirichlet(np.ones(classes), batch)
    expected = -np.mean(np.sum(targets * log_softmax(logits, axis=1), axis=1))
    loss = soft_cross_entropy(tf.constant(logits), tf.constant(targets))
    assert loss.shape == ()
    np.testing.assert_allclose(loss, expected, rtol=1e-10)


def test_gradient_of_the_cross_entropy():
    rng = np.random.default_rng(0)
    logits, targets = tf.constant(rng.normal(size=(5, 4))), rng.dirichlet(np.ones(4), 5)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = soft_cross_entropy(logits, tf.constant(targets))
    np.testing.assert_allclose(tape.gradient(loss, logits), (softmax(logits, axis=1) - targets) / 5, atol=1e-15)


@given(st.integers(1, 8), st.integers(2, 12), st.sampled_from([0.1, 10.0, 300.0]), st.integers(0, 99))
def test_divergence_is_that_of_scipy(batch, classes, scale, seed):
    rng = np.random.default_rng(seed)
    first, second = (scale * rng.normal(size=(batch, classes)) for _ in range(2))
    logs = log_softmax(first, axis=1) - log_softmax(second, axis=1)
    expected = np.sum(softmax(first, axis=1) * logs, axis=1)
    if scale <= 10:  # else a probability may be 0
        np.testing.assert_allclose(expected, rel_entr(*(softmax(z, axis=1) for z in (first, second))).sum(axis=1))
    np.testing.assert_allclose(kl_divergence(tf.constant(first), tf.constant(second)), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(kl_divergence(tf.constant(first), tf.constant(first)), 0)
