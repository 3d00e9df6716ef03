"""Carlini and Wagner's L2 attack on classifiers whose nearest errors are known, and beside Foolbox's."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from linear import Linear

from madry_cifar import attacks
from rvs_tf.attacks.carlini_wagner import carlini_wagner


def attacked(model, images, labels, **settings):
    run = tf.function(functools.partial(carlini_wagner, model, **settings), autograph=False)
    return [values.numpy() for values in run(tf.constant(images), tf.constant(labels))]


def norms(values):
    return np.linalg.norm(values.reshape(len(values), -1), axis=1)


def is_wrong(model, images, labels):
    return np.argmax(model(tf.constant(images)).logits, axis=1) != labels


def two_classes(count, least=2.0, **settings):
    """A linear classifier of two classes (of more, the runner-up may be farther than another), images, distances."""
    model = Linear(classes=2)
    images, labels = model.images(4 * count, **settings)
    exact = model.distances(images, labels, norm=2)
    chosen = np.flatnonzero(exact > least)[:count]  # a first step of Adam already goes as far as to the others
    return model, images[chosen], labels[chosen], exact[chosen]


def test_the_nearest_error_of_a_linear_classifier():
    model, images, labels, exact = two_classes(24)
    found, distances = attacked(model, images, labels, steps=200)
    assert is_wrong(model, found, labels).all()
    np.testing.assert_allclose(norms(found - images), distances, rtol=1e-5)
    assert (distances >= exact * (1 - 1e-4)).all()
    assert (distances <= exact * 1.02).all()
    # the direction, too: along the difference of the two classes' weights
    normal = model.weights[:, 1] - model.weights[:, 0]
    cosines = np.abs((found - images).reshape(24, -1) @ normal) / np.linalg.norm(normal) / distances
    assert (cosines > 0.99).all()
