"""GAT's generator: eight convolutions from the gradient at an image to a perturbation.

Its authors' code is not public; layers and sizes are those on which two public ports agree, and batch norm is one's.
Biases in front of it, which it takes away again, are left out: Adam would make steps of the rounding of their gradient.
"""

import keras
import tensorflow as tf

from madry_cifar.networks import initializers
from madry_cifar.networks.layers import BatchNorm, Conv, kernels

SIZES = (3, 3, 3, 3, 3, 3, 1)  # of the kernels but the last


class PlainAttacker(keras.Model):
    """G: gradients → perturbations in ±1, both [B, 32, 32, 3]; 108,000 weights with 48 channels.

    Args:
      width: channels of all layers but the last.
      seed: of the initial weights.
    """

    def __init__(self, width: int = 48, *, seed: int = 0, name: str = "generator", **kwargs):
        super().__init__(name=name, **kwargs)
        self.width, policy = width, self.dtype_policy
        self.convolutions = [Conv(width, size, name=f"conv{i}", dtype=policy) for i, size in enumerate(SIZES)]
        self.norms = [BatchNorm(epsilon=1e-5, name=f"norm{i}", dtype=policy) for i in range(len(SIZES))]
        self.last = Conv(3, 1, use_bias=True, name="last", dtype=policy)
        self.build((None, 32, 32, 3))
        initializers.fill(kernels(self), seed, initializers.normal(1, of="both"))

    def build(self, input_shape):
        shape = input_shape
        for layer, norm in zip(self.convolutions, self.norms, strict=True):
            layer.build(shape)
            shape = (*input_shape[:-1], self.width)
            norm.build(shape)
        self.last.build(shape)
        self.built = True

    def call(self, gradients, batch_norm: str = "eval"):
        """Perturbations for `gradients` [B, 32, 32, 3]; `batch_norm` as in `WideResNet`."""
        outputs = gradients
        for layer, norm in zip(self.convolutions, self.norms, strict=True):
            outputs = tf.nn.relu(norm(layer(outputs), mode=batch_norm))
        return tf.tanh(tf.cast(self.last(outputs), self.variable_dtype))
