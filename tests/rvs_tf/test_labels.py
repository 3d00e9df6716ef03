"""Soft labels, against the methods' formulas written out image by image."""

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from rvs_tf.labels import bilateral_labels, interpolation_labels, smooth_labels, vertex_labels

CLASSES = st.sampled_from([2, 3, 10, 100])


@given(CLASSES, st.floats(0, 0.999), st.integers(0, 99))
def test_smooth_labels_are_those_of_the_released_formula(classes, smoothing, seed):
    labels = np.random.default_rng(seed).integers(0, classes, 7)
    share = smoothing / (classes - 1)
    expected = (1 - smoothing - share) * np.eye(classes)[labels] + share
    result = smooth_labels(labels, classes, smoothing, tf.float64)
    np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(np.sum(result, axis=1), 1, rtol=1e-12)


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_true_class_has_half_of_a_smooth_label_whatever_their_number(classes):
    labels = np.arange(classes)
    result = smooth_labels(labels, classes).numpy()
    assert result.dtype == np.float32
    np.testing.assert_array_equal(np.diag(result), 0.5)
    others = result[~np.eye(classes, dtype=bool)]
    np.testing.assert_allclose(others, 0.5 / (classes - 1), rtol=1e-6)


def bilateral(probabilities, true, beta, gamma):
    """The label of one image, as Wang and Zhang's code has it."""
    classes = range(len(probabilities))
    v = [-math.log(p + 1e-8) for p in probabilities]
    m, largest = min(v[k] for k in classes if k != true), max(v[k] for k in classes if k != true)
    whole = sum(v[k] - m + gamma for k in classes if k != true)
    delta = 1 / (1 + beta * (largest - m + gamma) / whole)
    return [1 - delta if k == true else delta * (v[k] - m + gamma) / whole for k in classes]


@given(CLASSES, st.floats(0.5, 99), st.floats(1e-3, 1), st.floats(0.01, 5), st.integers(0, 99))
def test_bilateral_labels(classes, ratio, gamma, concentration, seed):
    draws = np.random.default_rng(seed)
    probabilities = draws.dirichlet(np.full(classes, concentration), 5)
    labels = draws.integers(0, classes, 5)
    result = bilateral_labels(tf.constant(probabilities), tf.constant(labels), ratio=ratio, gamma=gamma).numpy()
    expected = [bilateral(p, label, ratio, gamma) for p, label in zip(probabilities, labels, strict=True)]
    np.testing.assert_allclose(result, expected, rtol=1e-9)
    np.testing.assert_allclose(result.sum(axis=1), 1, rtol=1e-12)
    true = np.eye(classes, dtype=bool)[labels]
    wrong = np.where(true, -1, result)
    np.testing.assert_allclose(result[true], ratio * wrong.max(axis=1), rtol=1e-9)
    least_likely = np.where(true, 2, probabilities).argmin(axis=1)
    np.testing.assert_allclose(wrong.max(axis=1), wrong[np.arange(5), least_likely], rtol=1e-6)


def test_bilateral_labels_of_equal_wrong_classes_are_smooth_labels():
    probabilities = np.full((1, 10), 0.01)
    probabilities[0, 3] = 0.91
    result = bilateral_labels(tf.constant(probabilities), tf.constant([3]))
    np.testing.assert_allclose(result, smooth_labels([3], 10, 0.5, tf.float64), rtol=1e-12)


def test_bilateral_labels_of_a_certain_network_are_finite():
    certain = tf.constant([[1.0, 0, 0, 0], [0, 1, 0, 0]])
    result = bilateral_labels(certain, tf.constant([0, 0])).numpy()
    np.testing.assert_allclose(result.sum(axis=1), 1, rtol=1e-6)
    assert (result > 0).all()


@given(CLASSES, st.floats(0, 1), st.integers(0, 99))
def test_interpolation_labels(classes, share, seed):
    labels, partners = np.random.default_rng(seed).integers(0, classes, (2, 9))
    result = interpolation_labels(tf.constant(labels), tf.constant(partners), classes, share, tf.float64).numpy()
    one, other = np.eye(classes)[labels], np.eye(classes)[partners]
    np.testing.assert_allclose(result, (1 - share) * one + share * (1 - other) / (classes - 1), atol=1e-15)
    np.testing.assert_allclose(result.sum(axis=1), 1, rtol=1e-12)
    apart = labels != partners
    np.testing.assert_array_equal(result[apart, partners[apart]], 0)


@pytest.mark.parametrize(("classes", "kept"), [(10, 0.1), (100, 0.1)])
def test_vertex_labels_at_the_ends(classes, kept):
    labels = np.arange(classes)
    natural = vertex_labels(tf.constant(labels), tf.ones(classes, tf.float64), classes).numpy()
    np.testing.assert_allclose(natural, np.eye(classes), atol=1e-15)
    vertex = vertex_labels(tf.constant(labels), tf.zeros(classes, tf.float64), classes).numpy()
    np.testing.assert_allclose(np.diag(vertex), kept, rtol=1e-12)
    np.testing.assert_allclose(vertex[~np.eye(classes, dtype=bool)], 0.9 / (classes - 1), rtol=1e-12)


@given(CLASSES, st.floats(0, 1), st.floats(0, 1), st.integers(0, 99))
def test_vertex_labels_between(classes, lambda1, lambda2, seed):
    draws = np.random.default_rng(seed)
    labels, share = draws.integers(0, classes, 4), draws.random(4)
    result = vertex_labels(tf.constant(labels), tf.constant(share), classes, lambda1, lambda2).numpy()
    for label, alpha, row in zip(labels, share, result, strict=True):
        one = np.eye(classes)[label]
        phi1, phi2 = (kept * one + (1 - kept) / (classes - 1) * (1 - one) for kept in (lambda1, lambda2))
        np.testing.assert_allclose(row, alpha * phi1 + (1 - alpha) * phi2, atol=1e-14)
    np.testing.assert_allclose(result.sum(axis=1), 1, rtol=1e-12)
