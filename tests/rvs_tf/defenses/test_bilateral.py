"""Bilateral adversarial training, against its formulas in NumPy on a network of two layers."""

import numpy as np
import pytest
import tensorflow as tf
from two_layers import Mirror, TwoLayers, ascend, batch, one_step

from madry_cifar.attacks.steps import noisy
from madry_cifar.randomness import Draws, draw_seed
from rvs_tf.defenses.bilateral import Bilateral, BilateralOptions
from rvs_tf.labels import bilateral_labels

STEP = tf.constant(0, tf.int64)


def make(classes=5, **options):
    rates = {"learning_rates": (0.1,), "learning_rate_boundaries": ()}
    return Bilateral(TwoLayers(classes), BilateralOptions(**rates, **options), 3)


def nearest(mirror, logits, true):
    """argmin_k (z_y − z_k)/‖w_y − w_k‖ over the classes behind; None without any."""
    found = {
        k: (logits[true] - z) / np.linalg.norm(mirror.top[:, true] - mirror.top[:, k])
        for k, z in enumerate(logits)
        if k != true and logits[true] - z > 1e-4
    }
    return min(found, key=found.get) if found else None


def confusing(logits, true):
    return max((k for k in range(len(logits)) if k != true), key=lambda k: logits[k])


def targets(defense, images, labels):
    natural = defense.classifier(tf.constant(images))
    return defense.targets(natural, tf.constant(labels), STEP).numpy()


@pytest.mark.parametrize("classes", [2, 5, 100])
def test_targets(classes):
    images, labels = batch(40, classes)
    mirror = Mirror(make(classes).classifier)
    logits = mirror.logits(images)
    labels[::2] = logits[::2].argmax(axis=1)  # every other image is classified rightly
    mc = [confusing(*pair) for pair in zip(logits, labels, strict=True)]
    near = [nearest(mirror, *pair) for pair in zip(logits, labels, strict=True)]
    mosa = [other if found is None else found for found, other in zip(near, mc, strict=True)]
    mix = np.where(logits.argmax(axis=1) == labels, mosa, mc)
    for rule, expected in (("mc", mc), ("mosa", mosa), ("mix", mix)):
        np.testing.assert_array_equal(targets(make(classes, target=rule), images, labels), expected)


def test_random_targets_are_wrong_classes_each_as_often_as_the_others():
    images, labels = batch(4000)
    found = targets(make(target="random"), images, labels)
    counts = np.bincount((found - labels) % 5, minlength=5)
    assert counts[0] == 0
    assert abs(counts[1:] - 1000).max() < 5 * np.sqrt(1000 * 0.75)


@pytest.mark.parametrize(("classes", "steps", "step_size"), [(5, 1, 8), (5, 7, 2), (2, 1, 8)])
def test_a_step(classes, steps, step_size):
    images, labels = batch(6, classes)
    defense = make(classes, attack_steps=steps, attack_step_size=step_size)
    mirror = Mirror(defense.classifier)
    targets = np.eye(classes)[[confusing(*pair) for pair in zip(mirror.logits(images), labels, strict=True)]]
    start = noisy(tf.constant(images), 8, Draws(draw_seed(3, 0, "attack start"))).numpy()
    assert 0 < abs(start - images).max() <= 8
    adversarial = ascend(
        images,
        start,
        lambda found: mirror.from_logits(targets - mirror.probabilities(found)),
        epsilon=8,
        step_size=step_size,
        steps=steps,
    )
    soft = bilateral_labels(tf.constant(mirror.probabilities(images)), labels).numpy()
    shown = defense.adversarial_images(tf.constant(images), tf.constant(labels), STEP)
    np.testing.assert_allclose(shown, adversarial, atol=1e-12)
    defense.classifier.passes.clear()
    one_step(defense, images, labels, mirror, adversarial, soft)
    assert [mode for mode, _ in defense.classifier.passes] == ["eval"] * (1 + steps) + ["train"]
