"""ADT's networks: from an image and two gradients to a distribution of perturbations; from a perturbation to its z.

Released code: dongyp13/Adversarial-Distributional-Training `models/generator.py` (resnet_3blocks), `adt_impam.py`.
"""

import itertools

import keras
import tensorflow as tf

from madry_cifar.networks import initializers
from madry_cifar.networks.layers import BatchNorm, Conv, Dense, kernels
from madry_cifar.networks.resnet import BasicBlock

EPSILON = 1e-5  # of batch norm
DEVIATION = 0.02  # of the generator's first weights, and of batch norm's scales around 1
CODE = (256, 1024)  # units of the dense layers; the last ones are a channel of 32×32
LEAKINESS = 0.01


class DistributionAttacker(keras.Model):
    """G: an image and two gradients, with z or not, → raw outputs [B, 32, 32, C]; 10.3 M weights for w = 256.

    A convolution to w channels, three residual blocks of 2w, 2w and w, and a convolution, all at full resolution. z is
    made a tenth channel by two dense layers.

    Args:
      channels: C: 6, mean and deviation of a distribution, or 3, a perturbation.
      latent_dim: length of z; 0: without.
      width: w.
      seed: of the initial weights.
    """

    def __init__(
        self,
        channels: int = 6,
        latent_dim: int = 0,
        width: int = 256,
        *,
        seed: int = 0,
        name: str = "generator",
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        self.channels, self.latent_dim, self.width, policy = channels, latent_dim, width, self.dtype_policy
        sizes = CODE if latent_dim else ()
        self.encoders = [Dense(size, name=f"encoder{i}", dtype=policy) for i, size in enumerate(sizes)]
        self.first = Conv(width, name="first", dtype=policy)
        self.norm_first = BatchNorm(epsilon=EPSILON, name="norm_first", dtype=policy)
        filters = (width, 2 * width, 2 * width, width)
        self.blocks = [
            BasicBlock(after, 1, "project", before != after, EPSILON, name=f"block_{i}", dtype=policy)
            for i, (before, after) in enumerate(itertools.pairwise(filters))
        ]
        self.last = Conv(channels, name="last", dtype=policy)
        self.build((None, 32, 32, 9))
        initializers.fill(kernels(self), seed, initializers.deviation(DEVIATION))
        scales = [variable.value for variable in self.trainable_variables if variable.name == "gamma"]
        initializers.fill(scales, seed + 1, initializers.deviation(DEVIATION))
        for scale in scales:
            scale.assign(scale + 1)

    def build(self, input_shape):
        size = self.latent_dim
        for encoder in self.encoders:
            encoder.build((None, size))
            size = encoder.units
        shape = (*input_shape[:-1], input_shape[-1] + bool(self.encoders))
        self.first.build(shape)
        shape = (*shape[:-1], self.width)
        self.norm_first.build(shape)
        for block in self.blocks:
            block.build(shape)
            shape = (*shape[:-1], block.filters)
        self.last.build(shape)
        self.built = True

    def call(self, inputs, latent=None, batch_norm: str = "eval"):
        """Raw outputs for `inputs` [B, 32, 32, 9] and z [B, latent_dim]; `batch_norm` as in `WideResNet`."""
        if self.encoders:
            code = tf.cast(latent, self.compute_dtype)
            for encoder in self.encoders:
                code = tf.nn.relu(encoder(code))
            inputs = tf.concat([inputs, tf.reshape(code, [-1, 32, 32, 1])], axis=3)
        outputs = tf.nn.relu(self.norm_first(self.first(inputs), mode=batch_norm))
        for block in self.blocks:
            outputs = block(outputs, mode=batch_norm)
        return tf.cast(self.last(outputs), self.variable_dtype)


class ValidConv(Conv):
    """A convolution without any padding."""

    def _convolve(self, inputs, kernel):
        return tf.nn.conv2d(inputs, kernel, self.stride, "VALID")


class LatentEncoder(keras.Model):
    """q(z | perturbation): perturbations [B, 32, 32, 3] in ±1 → mean and raw deviation of z [B, 2 latent_dim]; 0.7 M.

    Args:
      latent_dim: length of z.
      seed: of the initial weights.
    """

    def __init__(self, latent_dim: int = 64, *, seed: int = 0, name: str = "encoder", **kwargs):
        super().__init__(name=name, **kwargs)
        self.latent_dim, policy = latent_dim, self.dtype_policy
        sizes = ((32, 5, 1), (64, 4, 2), (128, 4, 1), (256, 4, 2))  # channels, size of the kernel, stride
        self.convolutions = [ValidConv(*each, name=f"conv{i}", dtype=policy) for i, each in enumerate(sizes)]
        self.norms = [BatchNorm(epsilon=EPSILON, name=f"norm{i}", dtype=policy) for i in range(len(sizes))]
        self.last = Dense(2 * latent_dim, name="last", dtype=policy.variable_dtype)
        self.build((None, 32, 32, 3))
        initializers.fill(kernels(self)[:-1], seed, initializers.normal(2, of="outputs"))
        initializers.fill(kernels(self)[-1:], seed + 1, initializers.uniform(1 / 3))

    def build(self, input_shape):
        shape = input_shape
        for layer, norm in zip(self.convolutions, self.norms, strict=True):
            layer.build(shape)
            size = (shape[1] - layer.size) // layer.stride + 1
            shape = (None, size, size, layer.filters)
            norm.build(shape)
        self.last.build((None, shape[-1]))
        self.built = True

    def call(self, perturbations, batch_norm: str = "eval"):
        """Mean and raw deviation [B, 2 latent_dim]; `batch_norm` as in `WideResNet`."""
        outputs = perturbations
        for layer, norm in zip(self.convolutions, self.norms, strict=True):
            outputs = tf.nn.leaky_relu(norm(layer(outputs), mode=batch_norm), LEAKINESS)
        return self.last(tf.reduce_mean(tf.cast(outputs, self.variable_dtype), axis=[1, 2]))
