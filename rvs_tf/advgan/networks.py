"""The networks of AdvGAN: the generator of perturbations and the discriminator. As in AdvGAN-tf (see `advgan.py`).

As there, every convolution has a bias, though a norm that follows takes it away again.
"""

import keras
import tensorflow as tf

from madry_cifar.attacks.steps import PIXEL_RANGE
from madry_cifar.networks import initializers
from madry_cifar.networks.layers import BatchNorm, Dense

GREY_LEVELS = PIXEL_RANGE[1]  # inside, the networks' pixels are in [0, 1], as in AdvGAN-tf
LEAKINESS = 0.2


class InstanceNorm(keras.layers.Layer):
    """Normalises each channel of each image by its own mean and (biased) variance; scale and offset per channel."""

    def __init__(self, epsilon: float = 1e-6, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def build(self, input_shape):
        self.gamma = self.add_weight(name="gamma", shape=input_shape[-1:], initializer="ones")
        self.beta = self.add_weight(name="beta", shape=input_shape[-1:], initializer="zeros")

    def call(self, inputs):
        mean, variance = tf.nn.moments(inputs, axes=[1, 2], keepdims=True)
        return tf.nn.batch_normalization(inputs, mean, variance, self.beta.value, self.gamma.value, self.epsilon)


class ResidualBlock(keras.layers.Layer):
    """Two 3×3 convolutions, each before a batch norm, with a ReLU between them; added to the inputs."""

    def __init__(self, filters: int, **kwargs):
        super().__init__(**kwargs)
        policy = self.dtype_policy
        self.conv1, self.conv2 = (
            keras.layers.Conv2D(filters, 3, padding="same", name=name, dtype=policy) for name in ("conv1", "conv2")
        )
        self.norm1, self.norm2 = (BatchNorm(name=name, dtype=policy) for name in ("norm1", "norm2"))

    def build(self, input_shape):
        for layer in (self.conv1, self.norm1, self.conv2, self.norm2):
            layer.build(input_shape)

    def call(self, inputs, mode: str = "eval"):
        outputs = tf.nn.relu(self.norm1(self.conv1(inputs), mode=mode))
        return inputs + self.norm2(self.conv2(outputs), mode=mode)


class AdvGANGenerator(keras.Model):
    """G: images [B, 32, 32, 3] of pixels in [0, 255] → perturbations of the same shape in [−1, 1], in units of ε.

    3×3 convolutions to 8, 16 (stride 2) and 32 channels (stride 2), four residual blocks, transposed 3×3 convolutions
    back to 16 and 8 channels (stride 2) and to three; instance norm and ReLU between them, tanh at the end.

    Args:
      width: factor of all channels but the images'; 1 in AdvGAN-tf.
      seed: of the initial weights.
    """

    BLOCKS = 4

    def __init__(self, width: int = 1, *, seed: int = 0, name: str = "generator", **kwargs):
        super().__init__(name=name, **kwargs)
        self.width, self.seed = width, seed

        def layer(kind, filters, stride, name):
            return kind(filters, 3, stride, padding="same", name=name, dtype=self.dtype_policy)

        def norms(*names):
            return [InstanceNorm(name=name, dtype=self.dtype_policy) for name in names]

        conv, deconv = keras.layers.Conv2D, keras.layers.Conv2DTranspose
        self.convs = [layer(conv, 2**k * 8 * width, 1 if k == 0 else 2, f"conv{k + 1}") for k in range(3)]
        self.norms = norms("norm1", "norm2", "norm3")
        self.blocks = [
            ResidualBlock(32 * width, name=f"block{k + 1}", dtype=self.dtype_policy) for k in range(self.BLOCKS)
        ]
        self.deconvs = [layer(deconv, 16 // 2**k * width, 2, f"deconv{k + 1}") for k in range(2)]
        self.norms_up = norms("norm4", "norm5")
        self.deconv_last = layer(deconv, 3, 1, "deconv3")
        self.build((None, 32, 32, 3))
        initializers.released(self, seed)

    def build(self, input_shape):
        shape = _build_stages(self.convs, self.norms, input_shape)
        for block in self.blocks:
            block.build(shape)
        self.deconv_last.build(_build_stages(self.deconvs, self.norms_up, shape))
        self.built = True

    def call(self, images, batch_norm: str = "eval"):
        """The perturbation of each image; `batch_norm` ("eval", "train" or "frozen") is of the residual blocks."""
        outputs = tf.cast(images, self.compute_dtype) / GREY_LEVELS
        for conv, norm in zip(self.convs, self.norms, strict=True):
            outputs = tf.nn.relu(norm(conv(outputs)))
        for block in self.blocks:
            outputs = block(outputs, mode=batch_norm)
        for deconv, norm in zip(self.deconvs, self.norms_up, strict=True):
            outputs = tf.nn.relu(norm(deconv(outputs)))
        return tf.tanh(self.deconv_last(outputs))


class Discriminator(keras.Model):
    """D: images [B, 32, 32, 3] of pixels in [0, 255] → the probability [B] that each is natural.

    4×4 convolutions of stride 2 without padding, to 8, 16 and 32 channels and sides of 15, 6 and 2, with LeakyReLU 0.2
    and, from the second on, instance norm; then a dense layer and a sigmoid.
    """

    def __init__(self, *, seed: int = 0, name: str = "discriminator", **kwargs):
        super().__init__(name=name, **kwargs)
        self.seed, policy = seed, self.dtype_policy
        self.convs = [
            keras.layers.Conv2D(2**k * 8, 4, 2, padding="valid", name=f"conv{k + 1}", dtype=policy) for k in range(3)
        ]
        self.norms = [None, *(InstanceNorm(name=f"norm{k + 1}", dtype=policy) for k in (1, 2))]
        self.dense = Dense(1, name="dense", dtype=policy)
        self.build((None, 32, 32, 3))
        initializers.released(self, seed)

    def build(self, input_shape):
        _, height, width, channels = _build_stages(self.convs, self.norms, input_shape)
        self.dense.build((None, height * width * channels))
        self.built = True

    def call(self, images):
        outputs = tf.cast(images, self.compute_dtype) / GREY_LEVELS
        for conv, norm in zip(self.convs, self.norms, strict=True):
            outputs = conv(outputs)
            outputs = tf.nn.leaky_relu(norm(outputs) if norm else outputs, LEAKINESS)
        return tf.sigmoid(self.dense(tf.reshape(outputs, [-1, self.dense.kernel.shape[0]])))[:, 0]


def _build_stages(convs, norms, shape):
    """Builds convolutions and their norms one after another; returns the shape of the last one's outputs."""
    for conv, norm in zip(convs, norms, strict=True):
        conv.build(shape)
        shape = conv.compute_output_shape(shape)
        if norm:
            norm.build(shape)
    return shape
