"""L2L's attacker ("WideAttacker"): from an image, and the gradient at it, to a perturbation.

Released code: YuyangShi/Learning-to-Defend-by-Learning-to-Attack `attacker.py`.
"""

import keras
import tensorflow as tf

from madry_cifar.networks import initializers
from madry_cifar.networks.layers import BatchNorm, Conv, kernels

EPSILON = 1e-5  # of the blocks' batch norms; the first one has 1e-3


class PReLU(keras.layers.Layer):
    """max(x, 0) + a·min(x, 0) with one learned number a."""

    def build(self, input_shape):
        self.alpha = self.add_weight(name="alpha", shape=(1,), initializer=keras.initializers.Constant(0.25))

    def call(self, inputs):
        return tf.nn.relu(inputs) - tf.cast(self.alpha.value, inputs.dtype) * tf.nn.relu(-inputs)


class Block(keras.layers.Layer):
    """Two 3×3 convolutions, each after batch norm without scale and shift and a PReLU, beside a 1×1 convolution."""

    def __init__(self, filters: int, **kwargs):
        super().__init__(**kwargs)
        self.filters, policy = filters, self.dtype_policy
        self.norm1, self.norm2 = (
            BatchNorm(epsilon=EPSILON, affine=False, name=f"norm{i}", dtype=policy) for i in (1, 2)
        )
        self.prelu1, self.prelu2 = (PReLU(name=f"prelu{i}", dtype=policy) for i in (1, 2))
        self.conv1, self.conv2 = (Conv(filters, use_bias=True, name=f"conv{i}", dtype=policy) for i in (1, 2))
        self.shortcut = Conv(filters, 1, use_bias=True, name="shortcut", dtype=policy)

    def build(self, input_shape):
        inner_shape = (*input_shape[:-1], self.filters)
        for layer in (self.norm1, self.prelu1, self.conv1, self.shortcut):
            layer.build(input_shape)
        for layer in (self.norm2, self.prelu2, self.conv2):
            layer.build(inner_shape)

    def call(self, inputs, mode: str = "eval"):
        outputs = self.conv1(self.prelu1(self.norm1(inputs, mode=mode)))
        return self.conv2(self.prelu2(self.norm2(outputs, mode=mode))) + self.shortcut(inputs)


class WideAttacker(keras.Model):
    """A: images in [0, 1], with a gradient of each beside it or not, → perturbations in ±1, [B, 32, 32, 3].

    A convolution to w channels, four blocks of 2w, 4w, 2w and w, and a convolution to three; 1.75 M weights for w = 64.

    Args:
      channels: of the input: 6 with a gradient, 3 without.
      width: w.
      seed: of the initial weights.
    """

    def __init__(self, channels: int = 6, width: int = 64, *, seed: int = 0, name: str = "attacker", **kwargs):
        super().__init__(name=name, **kwargs)
        self.channels, self.width, policy = channels, width, self.dtype_policy
        self.first = Conv(width, name="first", dtype=policy)
        self.norm_first = BatchNorm(name="norm_first", dtype=policy)
        self.blocks = [Block(factor * width, name=f"block_{i}", dtype=policy) for i, factor in enumerate((2, 4, 2, 1))]
        self.norm_last = BatchNorm(epsilon=EPSILON, affine=False, name="norm_last", dtype=policy)
        self.last = Conv(3, use_bias=True, name="last", dtype=policy)
        self.build((None, 32, 32, channels))
        initializers.pytorch(self, seed)  # the first and the last convolution, and every bias
        for index, block in enumerate(self.blocks):
            pair, other = kernels(block)[:2], kernels(block)[2:]
            initializers.fill(pair, seed + 2 + 2 * index, initializers.uniform(2, of="both"))
            initializers.fill(other, seed + 3 + 2 * index, initializers.uniform(1, of="both"))

    def build(self, input_shape):
        self.first.build(input_shape)
        shape = (*input_shape[:-1], self.width)
        self.norm_first.build(shape)
        for block in self.blocks:
            block.build(shape)
            shape = (*shape[:-1], block.filters)
        self.norm_last.build(shape)
        self.last.build(shape)
        self.built = True

    def call(self, inputs, batch_norm: str = "eval"):
        """Perturbations for `inputs` [B, 32, 32, channels]; `batch_norm` as in `WideResNet`."""
        outputs = tf.nn.relu(self.norm_first(self.first(inputs), mode=batch_norm))
        for block in self.blocks:
            outputs = block(outputs, mode=batch_norm)
        outputs = self.last(self.norm_last(outputs, mode=batch_norm))
        return tf.tanh(tf.cast(outputs, self.variable_dtype))
