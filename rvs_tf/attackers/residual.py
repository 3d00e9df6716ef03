"""Direct's generator: a residual encoder and decoder from an image to a perturbation.

Released code: whxbergkamp/RobustDL_GAN `cifar10/adversarial_networks/models/resnet18_2.py` (generator).
"""

import keras
import tensorflow as tf

from madry_cifar.networks import initializers
from madry_cifar.networks.layers import BatchNorm, Conv, kernels
from madry_cifar.networks.resnet import BasicBlock

EPSILON = 1e-5  # of batch norm
BLOCKS = 6


class ResidualAttacker(keras.Model):
    """G: images in [-1, 1] → perturbations in ±1, both [B, 32, 32, 3]; 7.9 M weights with 64 channels.

    Convolutions to 8×8 and 4w channels, six residual blocks, and transposed convolutions back.

    Args:
      width: w, the channels of the first convolution.
      seed: of the initial weights.
    """

    def __init__(self, width: int = 64, *, seed: int = 0, name: str = "generator", **kwargs):
        super().__init__(name=name, **kwargs)
        self.width, policy = width, self.dtype_policy

        def conv(filters, stride, name, **options):
            return Conv(filters, stride=stride, name=name, dtype=policy, **options)

        self.down = [conv(width * 2**i, 1 + (i > 0), f"down{i}", symmetric=True) for i in range(3)]
        self.blocks = [
            BasicBlock(4 * width, 1, "project", i == 0, EPSILON, name=f"block_{i}", dtype=policy) for i in range(BLOCKS)
        ]
        self.up = [conv(width * 2**i, 2, f"up{i}", transposed=True) for i in (1, 0)]
        self.norms = [
            BatchNorm(epsilon=EPSILON, name=f"norm_{layer.name}", dtype=policy) for layer in (*self.down, *self.up)
        ]
        self.last = conv(3, 1, "last", use_bias=True)
        self.build((None, 32, 32, 3))
        initializers.fill(kernels(self), seed, initializers.truncated_normal(1))
        others = [layer.kernel.value for layer in (*self.up, self.last)]
        initializers.fill(others, seed + 1, initializers.truncated_deviation(0.02))

    def build(self, input_shape):
        shape = input_shape
        for layer, norm in zip([*self.down, *self.up], self.norms, strict=True):
            if layer is self.up[0]:
                for block in self.blocks:
                    block.build(shape)
            layer.build(shape)
            size = shape[1] * layer.stride if layer.transposed else shape[1] // layer.stride
            shape = (None, size, size, layer.filters)
            norm.build(shape)
        self.last.build(shape)
        self.built = True

    def call(self, images, batch_norm: str = "eval"):
        """Perturbations of `images` [B, 32, 32, 3]; `batch_norm` as in `WideResNet`."""
        outputs = images
        for layer, norm in zip([*self.down, *self.up], self.norms, strict=True):
            if layer is self.up[0]:
                for block in self.blocks:
                    outputs = block(outputs, mode=batch_norm)
            outputs = tf.nn.relu(norm(layer(outputs), mode=batch_norm))
        return tf.tanh(tf.cast(self.last(outputs), self.variable_dtype))
