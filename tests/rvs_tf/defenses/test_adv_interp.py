"""Adversarial interpolation, against its formulas in NumPy on a network of two layers."""

import numpy as np
import pytest
import tensorflow as tf
from two_layers import Mirror, TwoLayers, ascend, batch, one_step

from madry_cifar.attacks.steps import noisy
from madry_cifar.cli.errors import UsageError
from madry_cifar.randomness import Draws, draw_seed
from rvs_tf.defenses.adv_interp import AdvInterp, AdvInterpOptions


def make(classes=5, **options):
    rates = {"learning_rates": (0.1,), "learning_rate_boundaries": ()}
    return AdvInterp(TwoLayers(classes), AdvInterpOptions(**rates, **options), 3)


def closeness(features, aim):
    """The gradient of cos(h, h') for h, image by image: (h'/‖h'‖ − cos·h/‖h‖)/‖h‖."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    one, other = features / length, aim / np.linalg.norm(aim, axis=1, keepdims=True)
    return (other - (one * other).sum(axis=1, keepdims=True) * one) / length


@pytest.mark.parametrize(("classes", "count", "share"), [(5, 6, 0.5), (5, 7, 0.5), (2, 6, 0.4)])
def test_a_step(classes, count, share):
    images, labels = batch(count, classes)
    defense = make(classes, label_share=share)
    mirror = Mirror(defense.classifier)
    start = noisy(tf.constant(images), 8, Draws(draw_seed(3, 0, "attack start"))).numpy()
    aim = mirror.features(images[::-1])
    adversarial = ascend(
        images,
        start,
        lambda found: mirror.from_features(closeness(mirror.features(found), aim)),
        epsilon=8,
        step_size=8,
        steps=1,
    )
    one, other = np.eye(classes)[labels], np.eye(classes)[labels[::-1]]
    soft = (1 - share) * one + share * (1 - other) / (classes - 1)
    shown = defense.adversarial_images(tf.constant(images), tf.constant(labels), tf.constant(0, tf.int64))
    np.testing.assert_allclose(shown, adversarial, atol=1e-12)
    defense.classifier.passes.clear()
    one_step(defense, images, labels, mirror, adversarial, soft)
    assert defense.classifier.passes == [("eval", count)] * 2 + [("train", count)]


def test_labels_that_tell_nothing_are_refused():
    with pytest.raises(UsageError, match=r"--label_share=0.5: must be below 0.5, or the true one of 2 classes is not"):
        make(classes=2)
    with pytest.raises(UsageError, match=r"--label_share=0.9: must be below 0.9"):
        make(classes=10, label_share=0.9)
    make(classes=10, label_share=0.89)


def test_the_step_goes_towards_the_partner():
    images, labels = batch(6)
    defense = make()
    mirror = Mirror(defense.classifier)
    shown = defense.adversarial_images(tf.constant(images), tf.constant(labels), tf.constant(0, tf.int64)).numpy()
    start = noisy(tf.constant(images), 8, Draws(draw_seed(3, 0, "attack start"))).numpy()

    def cosine(found):
        first, second = mirror.features(found), mirror.features(images[::-1])
        return (first * second).sum(axis=1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)

    assert (cosine(shown) > cosine(np.clip(start, 0, 255))).all()
