"""Soft labels and their cross-entropy, against the released formula and SciPy."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from rvs_tf.losses import smooth_labels, soft_cross_entropy


@given(st.sampled_from([2, 3, 10, 100]), st.floats(0, 0.999), st.integers(0, 99))
def test_soft_labels_are_those_of_the_released_formula(classes, smoothing, seed):
    labels = np.random.default_rng(seed).integers(0, classes, 7)
    share = smoothing / (classes - 1)
    expected = (1 - smoothing - share) * np.eye(classes)[labels] + share
    result = smooth_labels(labels, classes, smoothing, tf.float64)
    np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(np.sum(result, axis=1), 1, rtol=1e-12)


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_true_class_has_half_of_the_label_whatever_their_number(classes):
    labels = np.arange(classes)
    result = smooth_labels(labels, classes).numpy()
    assert result.dtype == np.float32
    np.testing.assert_array_equal(np.diag(result), 0.5)
    others = result[~np.eye(classes, dtype=bool)]
    np.testing.assert_allclose(others, 0.5 / (classes - 1), rtol=1e-6)


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
