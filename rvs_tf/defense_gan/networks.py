"""The two networks of Defense-GAN for 32×32 images, without any batch norm.

Released code: kabkabm/defensegan `models/dataset_models.py`: its MNIST generator without the crop (so that of the
WGAN-GP code), and its CelebA critic, which scores images of 32×32 (there each 64×64 image as four).
"""

import keras
import tensorflow as tf

from madry_cifar.networks import initializers
from madry_cifar.networks.layers import Conv, Dense, kernels
from madry_cifar.randomness import uniform

IMAGE_SHAPE = (32, 32, 3)
LEAKINESS = 0.2


class GANGenerator(keras.Model):
    """G: latent vectors [B, latent_dim] → images [B, 32, 32, 3] of pixels in [-1, 1].

    Dense to 4×4×4d, transposed 5×5 convolutions of stride 2 to 2d, d and three channels; ReLU between them, tanh last.

    Args:
      latent_dim: length of z.
      width: d.
      seed: of the initial weights.

    Attributes:
      origin: where trained weights are from, for results: "gan" and "checkpoint", or nothing.
    """

    def __init__(self, latent_dim: int = 128, width: int = 64, *, seed: int = 0, name: str = "generator", **kwargs):
        super().__init__(name=name, **kwargs)
        self.latent_dim, self.width, policy, self.origin = latent_dim, width, self.dtype_policy, {}
        self.dense = Dense(4 * 4 * 4 * width, name="dense", dtype=policy)
        self.deconvs = [
            Conv(filters, 5, 2, transposed=True, use_bias=True, name=f"deconv{k}", dtype=policy)
            for k, filters in enumerate((2 * width, width, IMAGE_SHAPE[-1]), 1)
        ]
        self.build((None, latent_dim))
        initialize(self, seed)

    def build(self, input_shape):
        self.dense.build(input_shape)
        for k, deconv in enumerate(self.deconvs):
            deconv.build((None, 4 * 2**k, 4 * 2**k, 4 * self.width // 2**k))
        self.built = True

    def call(self, latent):
        outputs = tf.nn.relu(tf.reshape(self.dense(latent), [-1, 4, 4, 4 * self.width]))
        for deconv in self.deconvs[:-1]:
            outputs = tf.nn.relu(deconv(outputs))
        return tf.tanh(self.deconvs[-1](outputs))


class Critic(keras.Model):
    """D: images [B, 32, 32, 3] of pixels in [-1, 1] → how natural each is, [B], of any size and sign.

    5×5 convolutions of stride 2 to d, 2d and 4d channels, each with LeakyReLU 0.2, then a dense layer.

    Args:
      width: d.
      seed: of the initial weights.
    """

    def __init__(self, width: int = 64, *, seed: int = 0, name: str = "critic", **kwargs):
        super().__init__(name=name, **kwargs)
        self.width, policy = width, self.dtype_policy
        self.convs = [Conv(2**k * width, 5, 2, use_bias=True, name=f"conv{k + 1}", dtype=policy) for k in range(3)]
        self.dense = Dense(1, name="dense", dtype=policy)
        self.build((None, *IMAGE_SHAPE))
        initialize(self, seed)

    def build(self, input_shape):
        _, side, _, channels = input_shape
        for conv in self.convs:
            conv.build((None, side, side, channels))
            side, channels = side // 2, conv.filters
        self.dense.build((None, side * side * channels))
        self.built = True

    def call(self, images):
        outputs = images
        for conv in self.convs:
            outputs = tf.nn.leaky_relu(conv(outputs), LEAKINESS)
        return self.dense(tf.reshape(outputs, [-1, self.dense.kernel.shape[0]]))[:, 0]


def initialize(network: keras.Model, seed: int) -> None:
    """Kernels uniform, as the WGAN-GP code has them: of variance 4 / (inputs + outputs) for convolutions of stride 2,
    transposed or not, and 2 / (inputs + outputs) for dense layers. Biases stay 0.

    Such a convolution has 25 connections for a channel of its kernel's third axis, and a quarter of that for the last.
    """

    def draw(shape, seed, dtype):
        *places, first, second = shape
        variance = 4 / (25 * (first + second / 4)) if places else 2 / (first + second)
        bound = (3 * variance) ** 0.5
        return uniform(shape, seed, -bound, bound, dtype)

    initializers.fill(kernels(network), seed, draw)
