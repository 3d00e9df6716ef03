"""Adversarial vertex mixup, against its formulas in NumPy on a network of two layers."""

import numpy as np
import pytest
import tensorflow as tf
from two_layers import Mirror, TwoLayers, ascend, batch, one_step

from madry_cifar.attacks.steps import random_start
from madry_cifar.cli.errors import UsageError
from madry_cifar.randomness import Draws, draw_seed, uniform
from rvs_tf.defenses.adv_vertex import AdvVertex, AdvVertexOptions


def make(classes=10, **options):
    rates = {"learning_rates": (0.1,), "learning_rate_boundaries": ()}
    return AdvVertex(TwoLayers(classes), AdvVertexOptions(**rates, **options), 3)


@pytest.mark.parametrize(("classes", "scale"), [(10, 2.0), (100, 2.0), (10, 1.0)])
def test_a_step(classes, scale):
    images, labels = batch(6, classes)
    defense = make(classes, vertex_scale=scale)
    mirror = Mirror(defense.classifier)
    start = random_start(tf.constant(images), 8, Draws(draw_seed(3, 0, "attack start"))).numpy()
    one = np.eye(classes)[labels]
    attacked = ascend(
        images,
        start,
        lambda found: mirror.from_logits(mirror.probabilities(found) - one),
        epsilon=8,
        step_size=2,
        steps=10,
    )
    vertex = np.clip(images + scale * (attacked - images), 0, 255)
    assert abs(vertex - images).max() > 8 * scale - 1
    share = uniform([6], draw_seed(3, 0, "interpolation"), 0, 1, tf.float64).numpy()
    weight = share[:, np.newaxis, np.newaxis, np.newaxis]
    mixed = weight * images + (1 - weight) * vertex
    of_vertex = 0.1 * one + 0.9 / (classes - 1) * (1 - one)
    soft = share[:, np.newaxis] * one + (1 - share[:, np.newaxis]) * of_vertex
    shown = defense.adversarial_images(tf.constant(images), tf.constant(labels, tf.int32), tf.constant(0, tf.int64))
    np.testing.assert_allclose(shown, mixed, atol=1e-10)
    one_step(defense, images, labels, mirror, mixed, soft)
    *attack, update = [mode for mode, _ in defense.classifier.passes]
    assert (set(attack), update) == ({"frozen"}, "train")


def test_labels_with_the_true_class_behind_are_refused():
    with pytest.raises(UsageError, match=r"--lambda2=0.1: must be at least 0.5, or the true one of 2 classes"):
        make(classes=2)
    make(classes=2, lambda2=0.5)
    with pytest.raises(UsageError, match=r"--lambda1=0.05: must be at least 0.1"):
        make(lambda1=0.05)


def test_a_preset_of_at_may_say_how_statistics_move():
    """A table's rows share a flag's name, and so its values: `--attack_batch_norm=train` of AT's preset is taken."""
    images, labels = (tf.constant(array) for array in batch(6, 10))
    defense = make(attack_batch_norm="train")
    defense.adversarial_images(images, tf.cast(labels, tf.int32), tf.constant(0, tf.int64))
    assert {mode for mode, _ in defense.classifier.passes} == {"frozen"}  # nothing moves where images are only shown
    defense.examples(images, tf.cast(labels, tf.int32), tf.constant(0, tf.int64))
    assert defense.classifier.passes[-1][0] == "train"
