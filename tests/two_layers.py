"""A network of two dense layers that a defence can train, and what it computes, with gradients, in NumPy."""

import keras
import numpy as np
import tensorflow as tf
from scipy.special import log_softmax, softmax

from madry_cifar.networks.layers import Dense
from madry_cifar.networks.wide_resnet import Outputs

SHAPE = (4, 4, 1)


class TwoLayers(keras.Model):
    """Features [B, 6] and logits [B, classes] of images [B, 4, 4, 1]; float64.

    Attributes:
      passes: the batch-norm mode and the number of images of every call; those in a compiled loop are noted once.
    """

    def __init__(self, classes=5, seed=0):
        super().__init__(dtype="float64", autocast=False)
        draws, self.num_classes, self.passes = np.random.default_rng(seed), classes, []
        self.hidden, self.logits = (Dense(units, dtype="float64") for units in (6, classes))
        self.hidden.build((None, int(np.prod(SHAPE))))
        self.logits.build((None, 6))
        self.built = True
        for weight in self.trainable_variables:
            weight.assign(draws.normal(size=weight.shape) / (100 if weight.shape[0] == 16 else 1))
        self.passes.clear()

    def call(self, images, batch_norm="eval", updates=1):
        self.passes.append((batch_norm, images.shape[0]))
        features = self.hidden(tf.reshape(images, [images.shape[0], -1]) - 128.0)
        return Outputs(features, self.logits(features))


class Mirror:
    """The same in NumPy: with the weights that a network has now."""

    def __init__(self, network):
        self.kernel, self.bias = (v.numpy() for v in network.hidden.trainable_variables)
        self.top, self.top_bias = (v.numpy() for v in network.logits.trainable_variables)

    def features(self, images):
        return (images.reshape(len(images), -1) - 128) @ self.kernel + self.bias

    def logits(self, images):
        return self.features(images) @ self.top + self.top_bias

    def probabilities(self, images):
        return softmax(self.logits(images), axis=1)

    def from_features(self, gradient):
        """A gradient for the images, [B, 4, 4, 1], from that for the features."""
        return (gradient @ self.kernel.T).reshape(-1, *SHAPE)

    def from_logits(self, gradient):
        return self.from_features(gradient @ self.top.T)

    def cross_entropy(self, images, targets):
        return float(-np.mean(np.sum(targets * log_softmax(self.logits(images), axis=1), axis=1)))

    def weights(self):
        """All weights, in the order of the network's `trainable_variables`."""
        return [self.kernel, self.bias, self.top, self.top_bias]

    def gradients(self, images, of_logits):
        """The gradients of the weights, in that order, from that for the logits."""
        flat, features = images.reshape(len(images), -1) - 128, self.features(images)
        of_features = of_logits @ self.top.T
        return [flat.T @ of_features, of_features.sum(axis=0), features.T @ of_logits, of_logits.sum(axis=0)]


def batch(count=6, classes=5, seed=1):
    """Images [count, 4, 4, 1] float64 near the ends of the pixels' range too, and labels."""
    draws = np.random.default_rng(seed)
    return draws.integers(0, 256, (count, *SHAPE)).astype(np.float64), draws.integers(0, classes, count)


def ascend(images, start, gradient, *, epsilon, step_size, steps):
    """`steps` steps along the sign of `gradient(images)`, each projected to the ball and to the pixels."""
    found = start
    for _ in range(steps):
        found = found + step_size * np.sign(gradient(found))
        found = np.clip(np.clip(found, images - epsilon, images + epsilon), 0, 255)
    return found


def one_step(defense, images, labels, mirror, examples, targets, rate=0.1, decay=2e-4):
    """Checks that a step of `defense` is one on the soft cross-entropy of these examples, and its losses."""
    losses = defense.train_step(tf.constant(images), tf.constant(labels, tf.int32), tf.constant(0, tf.int64))
    count = len(examples)
    gradients = mirror.gradients(examples, (mirror.probabilities(examples) - targets) / count)
    for weight, before, gradient in zip(
        defense.classifier.trainable_variables, mirror.weights(), gradients, strict=True
    ):
        total = gradient + (decay * before if before.ndim == 2 else 0)
        np.testing.assert_allclose(weight.numpy(), before - rate * total, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(losses["cross_entropy"], mirror.cross_entropy(examples, targets), rtol=1e-10)
    squares = sum((weight**2).sum() / 2 for weight in (mirror.kernel, mirror.top))
    np.testing.assert_allclose(losses["weight_decay"], decay * squares, rtol=1e-10)
    np.testing.assert_allclose(losses["total"], losses["cross_entropy"] + losses["weight_decay"], rtol=1e-12)
