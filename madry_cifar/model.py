"""The wide residual network of the MadryLab code, which the RvS release uses unchanged."""

from typing import NamedTuple

import keras
import tensorflow as tf

from madry_cifar.layers import BatchNorm, Conv, Dense, initialize, standardize

LEAKINESS = 0.1


class Outputs(NamedTuple):
    """What the classifier returns: `features` f(x) [B, 64·width] after global pooling, and `logits` [B, K]."""

    features: tf.Tensor
    logits: tf.Tensor


class ResidualUnit(keras.layers.Layer):
    """Two 3×3 convolutions, each after batch normalisation and LeakyReLU, added to a shortcut without weights.

    Where the width changes, the shortcut is average-pooled by the stride and its channels are padded with zeros on
    both sides. With `shared_activation` the first normalisation and activation feed the shortcut too (first unit of
    the first stage).
    """

    def __init__(self, filters: int, stride: int = 1, shared_activation: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.filters, self.stride, self.shared_activation = filters, stride, shared_activation
        self.norm1, self.norm2 = (BatchNorm(name=name, dtype=self.dtype_policy) for name in ("norm1", "norm2"))
        self.conv1 = Conv(filters, stride=stride, name="conv1", dtype=self.dtype_policy)
        self.conv2 = Conv(filters, name="conv2", dtype=self.dtype_policy)

    def build(self, input_shape):
        inner_shape = (*input_shape[:-1], self.filters)
        self.norm1.build(input_shape)
        self.conv1.build(input_shape)
        self.norm2.build(inner_shape)
        self.conv2.build(inner_shape)

    def call(self, inputs, mode: str = "eval", updates: int = 1):
        outputs = tf.nn.leaky_relu(self.norm1(inputs, mode=mode, updates=updates), LEAKINESS)
        shortcut = outputs if self.shared_activation else inputs
        outputs = self.conv1(outputs)
        outputs = tf.nn.leaky_relu(self.norm2(outputs, mode=mode, updates=updates), LEAKINESS)
        return self.conv2(outputs) + self._fit(shortcut)

    def _fit(self, shortcut):
        """The shortcut, brought to the shape of the unit's outputs."""
        if self.stride > 1:
            shortcut = tf.nn.avg_pool2d(shortcut, self.stride, self.stride, "VALID")
        missing = self.filters - shortcut.shape[-1]
        if missing:
            shortcut = tf.pad(shortcut, [[0, 0], [0, 0], [0, 0], [missing // 2, missing - missing // 2]])
        return shortcut

    def get_config(self):
        own = {"filters": self.filters, "stride": self.stride, "shared_activation": self.shared_activation}
        return super().get_config() | own


@keras.saving.register_keras_serializable("madry_cifar")
class WideResNet(keras.Model):
    """Pre-activation wide ResNet on images [B, 32, 32, 3] of pixels in [0, 255], with widths 16, 16w, 32w, 64w.

    Args:
      depth: 6n + 4, with n residual units in each of the three stages: 28 (n = 4) is the depth in the paper's text,
        34 (n = 5) the depth of the released code, which MadryLab calls w32-10.
      width: the factor w; 10 in the paper.
      num_classes: K, the number of logits.
      seed: of the initial weights.
      dtype: "float32"; "mixed_bfloat16" for convolutions in bfloat16, with weights, batch norm's statistics, features
        and logits in float32; or "float64" for numerical comparisons.

    Raises:
      ValueError: for a depth, width or number of classes that no such network has.
    """

    def __init__(self, depth: int = 28, width: int = 10, num_classes: int = 10, *, seed: int = 0,
                 name: str = "classifier", **kwargs):  # fmt: skip
        check_size(depth, width, num_classes)
        super().__init__(name=name, autocast=False, **kwargs)  # bfloat16 cannot tell neighbouring grey levels apart
        self.depth, self.width, self.num_classes, self.seed = depth, width, num_classes, seed
        policy = self.dtype_policy
        self.init_conv = Conv(16, name="init_conv", dtype=policy)
        self.units = [
            ResidualUnit(
                filters * width,
                stride=2 if stage > 1 and unit == 0 else 1,
                shared_activation=stage == 1 and unit == 0,
                name=f"unit_{stage}_{unit}",
                dtype=policy,
            )
            for stage, filters in enumerate((16, 32, 64), start=1)
            for unit in range((depth - 4) // 6)
        ]
        self.norm_last = BatchNorm(name="norm_last", dtype=policy)
        self.logits = Dense(num_classes, name="logits", dtype=policy.variable_dtype)
        self.build((None, 32, 32, 3))
        initialize(self, seed)

    def build(self, input_shape):
        batch, height, width, _ = input_shape
        self.init_conv.build(input_shape)
        shape = (batch, height, width, 16)
        for unit in self.units:
            unit.build(shape)
            shape = (batch, shape[1] // unit.stride, shape[2] // unit.stride, unit.filters)
        self.norm_last.build(shape)
        self.logits.build((batch, shape[-1]))
        self.built = True

    def call(self, images, batch_norm: str = "eval", updates: int = 1) -> Outputs:
        """Features and logits of `images` [B, 32, 32, 3], pixels in [0, 255].

        `batch_norm` is "eval" (running statistics), "train" (batch statistics; the running ones are moved, `updates`
        times) or "frozen" (batch statistics; the running ones are kept).
        """
        standardized = standardize(tf.cast(images, self.variable_dtype))
        outputs = self.init_conv(tf.cast(standardized, self.compute_dtype))
        for unit in self.units:
            outputs = unit(outputs, mode=batch_norm, updates=updates)
        outputs = tf.nn.leaky_relu(self.norm_last(outputs, mode=batch_norm, updates=updates), LEAKINESS)
        features = tf.reduce_mean(tf.cast(outputs, self.variable_dtype), axis=[1, 2])
        return Outputs(features, self.logits(features))

    def get_config(self):
        own = {"depth": self.depth, "width": self.width, "num_classes": self.num_classes, "seed": self.seed}
        return super().get_config() | own


def check_size(depth: int, width: int, num_classes: int) -> None:
    """Raises ValueError, naming the argument, unless a wide ResNet of this size exists."""
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(f"depth={depth}: must be 6n + 4 (10, 16, 22, 28, 34, 40, …)")
    if width < 1:
        raise ValueError(f"width={width}: must be at least 1")
    if num_classes < 2:
        raise ValueError(f"num_classes={num_classes}: must be at least 2")
