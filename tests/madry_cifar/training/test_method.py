"""Updates by a method's optimizers, against gradients in NumPy on a network of two layers."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import softmax

from madry_cifar.training.adversarial import Natural
from madry_cifar.training.optimizers import Adam, Momentum, PiecewiseConstant
from tests.two_layers import Mirror, TwoLayers, batch

IMAGES, LABELS = batch()


def make(**optimizers):
    """Natural training, with an optimizer more for each name: of the last layer (the upper two variables) alone."""
    method = Natural(TwoLayers())
    for name, kind in optimizers.items():
        method.optimizers[name] = kind(
            [v.value for v in method.classifier.logits.trainable_variables], PiecewiseConstant([0.5, 0.25], [10])
        )
    return method


def loss_of(method):
    with tf.GradientTape() as tape:
        logits = method.classifier(tf.constant(IMAGES)).logits
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(LABELS, logits))
    return loss, tape


def gradients_of(method):
    """In NumPy, of all four variables."""
    mirror = Mirror(method.classifier)
    of_logits = (softmax(mirror.logits(IMAGES), axis=1) - np.eye(5)[LABELS]) / len(LABELS)
    return mirror.gradients(IMAGES, of_logits)


@pytest.mark.parametrize(("step", "rate"), [(10, 0.5), (11, 0.25)])
@pytest.mark.parametrize("clip_norm", [None, 0.125, 1e6])
@pytest.mark.parametrize("way", ["minimize", "minimize, compiled", "apply"])
def test_an_update_is_of_the_optimizers_variables_alone(way, clip_norm, step, rate):
    method = make(head=Momentum)
    before, gradients = [v.numpy() for v in method.classifier.trainable_variables], gradients_of(method)
    if way == "apply":
        method.apply("head", [tf.constant(gradient) for gradient in gradients[2:]], step, clip_norm=clip_norm)
    else:
        compiled = tf.function(autograph=False) if way.endswith("compiled") else lambda function: function
        compiled(lambda step: method.minimize("head", *loss_of(method), step, clip_norm=clip_norm))(tf.constant(step))
    norm = np.sqrt(sum(np.sum(gradient**2) for gradient in gradients[2:]))
    assert 0.125 < norm < 1e6
    scale = 1 if clip_norm is None else min(1, clip_norm / (norm + 1e-6))
    factors = (0, 0, rate * scale, rate * scale)
    for v, old, gradient, factor in zip(method.classifier.trainable_variables, before, gradients, factors, strict=True):
        np.testing.assert_allclose(v.numpy(), old - factor * gradient, rtol=1e-12, atol=1e-12)


def test_each_of_several_optimizers_of_a_network_goes_by_its_own_updates():
    """Adam's first step is g/(|g| + ε/√(1 − β₂)) of the rate; momentum's second has the first in it."""
    method = make(adam=Adam, momentum=Momentum)
    gradients = [tf.constant(np.sign(gradient) + 0.5) for gradient in gradients_of(method)[2:]]
    before = [v.numpy() for v in method.classifier.trainable_variables]
    for _ in range(2):
        method.apply("momentum", gradients, 0)
    method.apply("adam", gradients, 0)
    for v, old, gradient in zip(method.classifier.logits.trainable_variables, before[2:], gradients, strict=True):
        expected = old - 0.5 * (1 + 1.9) * gradient - 0.5 * gradient / (np.abs(gradient) + 1e-8 / np.sqrt(1e-3))
        np.testing.assert_allclose(v.numpy(), expected, rtol=1e-12, atol=1e-12)
    assert int(method.optimizers["adam"].count) == 1
