"""The iteration of RvS as one would write it with Keras's own layers, to be timed beside ours.

The same networks, losses and updates, in straightforward code: `Conv2D`, `BatchNormalization`, `Dense`, `SGD`, each
half of Algorithm 1 passing the natural and the perturbed images through the classifier, as the released code does.
"""

import keras
import tensorflow as tf
from keras import layers

from sinkhorn_tf import sinkhorn_distance

EPSILON = 8.0


def classifier(depth: int, width: int, num_classes: int = 10) -> keras.Model:
    """The wide ResNet: images [B, 32, 32, 3] → features [B, 64·width] and logits [B, K]."""
    images = keras.Input((32, 32, 3))
    outputs = layers.Lambda(tf.image.per_image_standardization)(images)
    outputs = _conv(16)(outputs)
    for stage, filters in enumerate((16, 32, 64), start=1):
        for unit in range((depth - 4) // 6):
            first = unit == 0
            outputs = _unit(outputs, filters * width, 2 if first and stage > 1 else 1, shared=first and stage == 1)
    features = layers.GlobalAveragePooling2D()(_activated(outputs, 0.1))
    return keras.Model(images, [features, layers.Dense(num_classes)(features)])


def generator(latent_dim: int = 640) -> keras.Model:
    """Table I: latent vectors [B, 640] → perturbations [B, 32, 32, 3]."""
    latent = keras.Input((latent_dim,))
    outputs = layers.Reshape((8, 8, 64))(layers.Dense(8 * 8 * 64)(latent))
    for filters in (32, 16):
        outputs = layers.Conv2DTranspose(filters, 4, strides=2, padding="same", use_bias=False)(outputs)
        outputs = _activated(outputs, 0.2)
    return keras.Model(latent, layers.Conv2D(3, 4, padding="same", use_bias=False)(outputs))


def _conv(filters, stride=1):
    return layers.Conv2D(filters, 3, stride, padding="same", use_bias=False, kernel_initializer="he_normal")


def _activated(inputs, slope):
    return layers.LeakyReLU(slope)(layers.BatchNormalization(momentum=0.9, epsilon=1e-3)(inputs))


def _unit(inputs, filters, stride, shared):
    outputs = _activated(inputs, 0.1)
    shortcut = outputs if shared else inputs
    outputs = _conv(filters)(_activated(_conv(filters, stride)(outputs), 0.1))
    if stride > 1:
        shortcut = layers.AveragePooling2D(stride)(shortcut)
    missing = filters - shortcut.shape[-1]
    if missing:
        widths = [[0, 0], [0, 0], [0, 0], [missing // 2, missing - missing // 2]]
        shortcut = layers.Lambda(lambda x: tf.pad(x, widths))(shortcut)
    return outputs + shortcut


def unrolled_sinkhorn(x: tf.Tensor, y: tf.Tensor, regularization: float = 0.01, iterations: int = 100) -> tf.Tensor:
    """⟨P, C⟩ of the entropic plan P between x [n, d] and y [n, d], iterated in log space as it is usually written."""
    cost = tf.reduce_sum(tf.math.squared_difference(x[:, tf.newaxis], y[tf.newaxis]), axis=2)
    log_weight = -tf.math.log(tf.cast(tf.shape(x)[0], x.dtype))
    u, v = tf.zeros_like(cost[:, 0]), tf.zeros_like(cost[0])

    def exponents(u, v):
        return (u[:, tf.newaxis] + v - cost) / regularization

    for _ in range(iterations):
        u += regularization * (log_weight - tf.reduce_logsumexp(exponents(u, v), axis=1))
        v += regularization * (log_weight - tf.reduce_logsumexp(exponents(u, v), axis=0))
    return tf.reduce_sum(tf.exp(exponents(u, v)) * cost)


class PlainRvS:
    """Algorithm 1 with Keras's layers and optimizer; D is `unrolled_sinkhorn` or our `sinkhorn_distance`."""

    def __init__(self, depth: int, width: int, unrolled: bool):
        self.classifier, self.generator = classifier(depth, width), generator()
        self.distance = unrolled_sinkhorn if unrolled else sinkhorn_distance
        self.optimizers = [keras.optimizers.SGD(rate, momentum=0.9) for rate in (0.1, 0.01)]
        for optimizer, network in zip(self.optimizers, (self.classifier, self.generator), strict=True):
            optimizer.build(network.trainable_variables)

    def train_step(self, images, labels):
        """One iteration on images [B, 32, 32, 3] and labels [B]; returns the two losses."""
        with tf.GradientTape() as tape:
            natural, _ = self.classifier(images, training=True)
            adversarial, _ = self.classifier(self.synthesize(images), training=True)
            generator_loss = -self.distance(natural, adversarial)
        self._minimize(self.optimizers[1], self.generator, generator_loss, tape)

        targets = tf.one_hot(labels, 10, on_value=0.5, off_value=0.5 / 9)
        with tf.GradientTape() as tape:
            natural, _ = self.classifier(images, training=True)
            adversarial, logits = self.classifier(self.synthesize(images), training=True)
            cross_entropy = keras.losses.CategoricalCrossentropy(from_logits=True)(targets, logits)
            kernels = [v for v in self.classifier.trainable_variables if v.name == "kernel"]
            weight_decay = 2e-4 * tf.add_n([tf.nn.l2_loss(kernel.value) for kernel in kernels])
            total = cross_entropy + weight_decay + self.distance(natural, adversarial)
        self._minimize(self.optimizers[0], self.classifier, total, tape)
        return total, generator_loss

    def _minimize(self, optimizer, network, loss, tape):
        variables = network.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    def synthesize(self, images):
        """Perturbed images, as the released code makes them."""
        delta = self.generator(tf.random.normal([tf.shape(images)[0], 640]), training=True)
        noisy = tf.clip_by_value(images + tf.random.uniform(tf.shape(images), -EPSILON, EPSILON), 0, 255)
        perturbed = noisy + tf.clip_by_value(delta, -EPSILON, EPSILON)
        return tf.clip_by_value(tf.clip_by_value(perturbed, images - EPSILON, images + EPSILON), 0, 255)
