"""TRADES, against its formulas in NumPy on a network of two layers."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import log_softmax, rel_entr, softmax
from two_layers import Mirror, TwoLayers, ascend, batch

from madry_cifar.randomness import draw_seed, normal
from rvs_tf.defenses.trades import Trades, TradesOptions

STEP = tf.constant(0, tf.int64)


def make(classes=5, **options):
    return Trades(TwoLayers(classes), TradesOptions(learning_rates=(0.1,), learning_rate_boundaries=(), **options), 3)


@pytest.fixture
def images():
    return batch()[0]


@pytest.fixture
def labels():
    return batch()[1]


def perturbed(mirror, images, epsilon, step_size, steps):
    noise = normal(images.shape, draw_seed(3, 0, "attack start"), tf.float64).numpy()
    natural = mirror.probabilities(images)

    def uphill(found):
        return mirror.from_logits(mirror.probabilities(found) - natural)

    return ascend(images, images + 0.255 * noise, uphill, epsilon=epsilon, step_size=step_size, steps=steps)


@pytest.mark.parametrize(("epsilon", "step_size", "steps"), [(8, 2, 10), (7.905, 1.785, 3), (20, 30, 1)])
def test_images_have_the_largest_divergence(images, labels, epsilon, step_size, steps):
    trades = make(epsilon=epsilon, attack_step_size=step_size, attack_steps=steps)
    expected = perturbed(Mirror(trades.classifier), images, epsilon, step_size, steps)
    found = trades.adversarial_images(tf.constant(images), tf.constant(labels), STEP)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    without_labels = trades.adversarial_images(tf.constant(images), None, STEP)
    np.testing.assert_array_equal(without_labels, found)


@pytest.mark.parametrize("beta", [0.0, 6.0])
def test_a_step(images, labels, beta):
    trades = make(beta=beta)
    mirror = Mirror(trades.classifier)
    adversarial = perturbed(mirror, images, 8, 2, 10)
    losses = trades.train_step(tf.constant(images), tf.constant(labels), STEP)
    p, q = (mirror.probabilities(x) for x in (images, adversarial))
    truth, count = np.eye(5)[labels], len(images)
    divergence = rel_entr(p, q).sum(axis=1)
    np.testing.assert_allclose(losses["divergence"], divergence.mean(), rtol=1e-9)
    np.testing.assert_allclose(losses["cross_entropy"], mirror.cross_entropy(images, truth), rtol=1e-10)
    total = losses["cross_entropy"] + beta * losses["divergence"] + losses["weight_decay"]
    np.testing.assert_allclose(losses["total"], total, rtol=1e-12)
    # d KL/dz = p∘(log p/q − KL) for the natural logits, and q − p for the perturbed ones
    by_natural = p * (
        log_softmax(mirror.logits(images), 1) - log_softmax(mirror.logits(adversarial), 1) - divergence[:, np.newaxis]
    )
    natural = mirror.gradients(images, (softmax(mirror.logits(images), 1) - truth + beta * by_natural) / count)
    attacked = mirror.gradients(adversarial, beta * (q - p) / count)
    for weight, before, *parts in zip(
        trades.classifier.trainable_variables, mirror.weights(), natural, attacked, strict=True
    ):
        gradient = sum(parts) + (2e-4 * before if before.ndim == 2 else 0)
        np.testing.assert_allclose(weight.numpy(), before - 0.1 * gradient, rtol=1e-9, atol=1e-11)


def test_passes(images, labels):
    for passes in (1, 2):
        trades = make(attack_steps=3, clean_passes=passes)
        trades.train_step(tf.constant(images), tf.constant(labels), STEP)
        modes = [mode for mode, _ in trades.classifier.passes]
        assert modes == ["eval"] * 4 + ["train"] * (1 + passes)
