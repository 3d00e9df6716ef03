"""Feature Scattering, against the released algorithm in NumPy on a network of two layers."""

import numpy as np
import pytest
import tensorflow as tf
from two_layers import Mirror, TwoLayers, ascend, batch, one_step

from madry_cifar.attacks.steps import noisy
from madry_cifar.cli.errors import UsageError
from madry_cifar.randomness import Draws, draw_seed
from rvs_tf.defenses.featscatter import FeatScatter, FeatScatterOptions
from rvs_tf.labels import smooth_labels

STEP = tf.constant(0, tf.int64)


def make(classes=5, **options):
    rates = {"learning_rates": (0.1,), "learning_rate_boundaries": ()}
    return FeatScatter(TwoLayers(classes), FeatScatterOptions(**rates, **options), 3)


def distance(x, y, threshold=0.1, floor=0.0, iterations=100):
    """D of the released code, with its u and v; its floor, 1e-6, is what it adds before a logarithm."""
    x, y = (points / np.linalg.norm(points, axis=1, keepdims=True) for points in (x, y))
    cost = np.maximum(1 - x @ y.T, 0)
    n, m = cost.shape
    u, v = np.zeros(n), np.zeros(m)

    def plan():
        return np.exp((-cost + u[:, np.newaxis] + v) / 0.01)

    for _ in range(iterations):
        before = u
        u = 0.01 * (np.log(1 / n) - np.log(plan().sum(axis=1) + floor)) + u
        v = 0.01 * (np.log(1 / m) - np.log(plan().sum(axis=0) + floor)) + v
        if abs(u - before).sum() < threshold:
            break
    return (plan() * cost).sum()


def gradient(x, y, **settings):
    """Of the distance for y, by central differences."""
    found = np.zeros_like(y)
    for place in np.ndindex(y.shape):
        move = np.zeros_like(y)
        move[place] = 1e-6 * max(1, abs(y[place]))
        found[place] = (distance(x, y + move, **settings) - distance(x, y - move, **settings)) / (2 * move[place])
    return found


@pytest.mark.parametrize("scattered", ["logits", "features"])
@pytest.mark.parametrize(("threshold", "steps"), [(0.1, 1), (0.0, 1), (0.1, 2)])
def test_a_step(scattered, threshold, steps):
    images, labels = batch(6, 5)
    defense = make(scattered=scattered, sinkhorn_threshold=threshold, attack_steps=steps)
    mirror = Mirror(defense.classifier)
    of, back = {"logits": (mirror.logits, mirror.from_logits), "features": (mirror.features, mirror.from_features)}[
        scattered
    ]
    start = noisy(tf.constant(images), 8, Draws(draw_seed(3, 0, "attack start"))).numpy()
    uphill = ascend(
        images,
        start,
        lambda found: back(gradient(of(images), of(found), threshold=threshold)),
        epsilon=8,
        step_size=8,
        steps=steps,
    )
    for any_labels in (labels, 0 * labels):
        shown = defense.adversarial_images(tf.constant(images), tf.constant(any_labels), STEP)
        np.testing.assert_allclose(shown, uphill, atol=1e-12)
    found = defense.distance(tf.constant(of(images)), tf.constant(of(start)))
    np.testing.assert_allclose(found, distance(of(images), of(start), threshold=threshold), rtol=1e-6)
    defense.classifier.passes.clear()
    one_step(defense, images, labels, mirror, uphill, smooth_labels(labels, 5, 0.5, tf.float64).numpy())
    assert [mode for mode, _ in defense.classifier.passes] == ["eval"] * (1 + steps) + ["train"]


def distance_and_gradient(x, y, **options):
    points = tf.constant(y)
    with tf.GradientTape() as tape:
        tape.watch(points)
        value = make(10, **options).distance(tf.constant(x), points)
    return value.numpy(), tape.gradient(value, points).numpy()


def far_points(apart, count=12):
    draws = np.random.default_rng(0)
    x = draws.normal(size=(count, 10))
    return draws, x, x + apart * draws.normal(size=x.shape)


@pytest.mark.parametrize("apart", [0.3, 1.0])
@pytest.mark.parametrize("settings", [{"threshold": 0.1}, {"threshold": 0.0, "iterations": 7}, {"threshold": 0.0}])
def test_with_the_released_codes_floor_it_is_its_distance(apart, settings):
    """And its gradient, by finite differences, whether a threshold ends the iterations, their number or rounding."""
    _, x, y = far_points(apart, count=5)
    options = {f"sinkhorn_{name}": value for name, value in settings.items()}
    value, ours = distance_and_gradient(x, y, sinkhorn_floor=1e-6, **options)
    np.testing.assert_allclose(value, distance(x, y, floor=1e-6, **settings), rtol=1e-10)
    expected = gradient(x, y, floor=1e-6, **settings)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6 * abs(expected).max())
    assert abs(value / distance(x, y, **settings) - 1) > 1e-6  # it does matter here


def test_a_step_with_the_floor_and_compiled():
    """In loops of the graph, as a training step is, and by XLA."""
    images, labels = batch(6, 5)
    defense = make(sinkhorn_floor=1e-2, attack_steps=2)
    eager = defense.adversarial_images(tf.constant(images), tf.constant(labels), STEP)
    for jit_compile in (False, True):
        compiled = tf.function(defense.adversarial_images, autograph=False, jit_compile=jit_compile)
        np.testing.assert_allclose(compiled(tf.constant(images), tf.constant(labels), STEP), eager, atol=1e-12)


@pytest.mark.parametrize(("apart", "lowest", "highest"), [(0.1, 0, 0), (0.3, 0.01, 0.05), (1.0, 0.2, 0.4)])
def test_what_the_released_code_adds_before_its_logarithms(apart, lowest, highest):
    """It adds 1e-6, which is left out by default. That matters where a point is far from its own image: costs as in
    training are below the first one's, 0.006."""
    draws, x, y = far_points(apart)
    ours = distance_and_gradient(x, y)[1]
    to_pixels = draws.normal(size=(10, 3072))
    differ = np.sign(ours @ to_pixels) != np.sign(gradient(x, y, floor=1e-6) @ to_pixels)
    assert lowest <= differ.mean() <= highest


def test_labels_that_tell_nothing_are_refused():
    with pytest.raises(UsageError, match=r"--label_smoothing=0.5: must be below 0.5, or the true one of 2 classes"):
        make(classes=2)
    make(classes=2, label_smoothing=0.4)
    with pytest.raises(UsageError, match=r"--label_smoothing=0.9"):
        make(classes=10, label_smoothing=0.9)
