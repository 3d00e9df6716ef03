"""Wide residual networks: that of the MadryLab code, which the RvS release uses unchanged, and the standard one."""

from collections.abc import Sequence
from typing import ClassVar

import keras
import tensorflow as tf

from madry_cifar.cli.errors import UsageError
from madry_cifar.networks import initializers
from madry_cifar.networks.layers import BatchNorm, Conv, Dense
from madry_cifar.networks.scaling import SCALINGS
from madry_cifar.predictor import Outputs

LEAKINESS = {"madry": 0.1, "standard": 0.0}  # of the activations, by architecture


class ResidualUnit(keras.layers.Layer):
    """Two 3×3 convolutions, each after batch normalisation and (leaky) ReLU, added to a shortcut.

    Where the width changes, the shortcut of the "madry" architecture is average-pooled by the stride and its channels
    are padded with zeros on both sides; that of the "standard" one is a 1×1 convolution. With `shared_activation` the
    first normalisation and activation feed the shortcut too ("madry": first unit of the first stage; "standard":
    wherever the width changes).
    """

    def __init__(
        self,
        filters: int,
        stride: int = 1,
        shared_activation: bool = False,
        architecture: str = "madry",
        projection: bool = False,
        epsilon: float = 1e-3,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters, self.stride, self.shared_activation = filters, stride, shared_activation
        self.architecture, self.epsilon, policy = architecture, epsilon, self.dtype_policy
        symmetric = architecture == "standard"
        self.norm1, self.norm2 = (BatchNorm(epsilon=epsilon, name=f"norm{number}", dtype=policy) for number in (1, 2))
        self.conv1 = Conv(filters, stride=stride, symmetric=symmetric, name="conv1", dtype=policy)
        self.conv2 = Conv(filters, symmetric=symmetric, name="conv2", dtype=policy)
        self.projection = Conv(filters, 1, stride, name="shortcut", dtype=policy) if projection else None

    def build(self, input_shape):
        inner_shape = (*input_shape[:-1], self.filters)
        self.norm1.build(input_shape)
        self.conv1.build(input_shape)
        self.norm2.build(inner_shape)
        self.conv2.build(inner_shape)
        if self.projection:
            self.projection.build(input_shape)

    def call(self, inputs, mode: str = "eval", updates: int = 1):
        outputs = self._activated(self.norm1(inputs, mode=mode, updates=updates))
        shortcut = outputs if self.shared_activation else inputs
        outputs = self.conv1(outputs)
        outputs = self._activated(self.norm2(outputs, mode=mode, updates=updates))
        return self.conv2(outputs) + self._fit(shortcut)

    def _activated(self, values):
        return tf.nn.leaky_relu(values, LEAKINESS[self.architecture])

    def _fit(self, shortcut):
        """The shortcut, brought to the shape of the unit's outputs."""
        if self.projection:
            return self.projection(shortcut)
        if self.stride > 1:
            shortcut = tf.nn.avg_pool2d(shortcut, self.stride, self.stride, "VALID")
        missing = self.filters - shortcut.shape[-1]
        if missing:
            shortcut = tf.pad(shortcut, [[0, 0], [0, 0], [0, 0], [missing // 2, missing - missing // 2]])
        return shortcut

    def get_config(self):
        names = ("filters", "stride", "shared_activation", "architecture", "epsilon")
        own = {name: getattr(self, name) for name in names}
        return super().get_config() | own | {"projection": self.projection is not None}


@keras.saving.register_keras_serializable("madry_cifar")
class WideResNet(keras.Model):
    """Pre-activation wide ResNet on images [B, 32, 32, 3] of pixels in [0, 255], with widths 16, 16w, 32w, 64w.

    Args:
      depth: 6n + 4, with n residual units in each of the three stages: 28 (n = 4) is the depth in the paper's text,
        34 (n = 5) the depth of the released code, which MadryLab calls w32-10.
      width: the factor w; 10 in the paper.
      num_classes: K, the number of logits.
      architecture: "madry", that of MadryLab's code (LeakyReLU, shortcuts without weights), or "standard" (ReLU,
        shortcuts that are 1×1 convolutions where the width changes, PyTorch's padding), that of TRADES, FeatScatter
        and Adv-interp.
      input_scaling: of the pixels, inside the network: "standardize" (each image by itself; MadryLab), "signed" (to
        [-1, 1]), "unit" (to [0, 1]), or by the channels' mean and deviation in "imagenet" or "cifar10".
      batch_norm_epsilon: added to the variance in batch norm: 1e-3 in MadryLab's code, 1e-5 in PyTorch.
      seed: of the initial weights.
      dtype: "float32"; "mixed_bfloat16" for convolutions in bfloat16, with weights, batch norm's statistics, features
        and logits in float32; or "float64" for numerical comparisons.

    Attributes:
      map_shapes: (H, W, C) of the feature maps that noise can be added to.

    Raises:
      ValueError: for a depth, width or number of classes that no such network has, or an unknown name.
    """

    DEFAULTS: ClassVar = {"architecture": "madry", "input_scaling": "standardize", "batch_norm_epsilon": 1e-3}
    image_shape = (32, 32, 3)

    def __init__(
        self,
        depth: int = 28,
        width: int = 10,
        num_classes: int = 10,
        *,
        architecture: str = "madry",
        input_scaling: str = "standardize",
        batch_norm_epsilon: float = 1e-3,
        seed: int = 0,
        name: str = "classifier",
        **kwargs,
    ):
        check_size(depth, width, num_classes)
        _check_choice("architecture", architecture, LEAKINESS)
        _check_choice("input_scaling", input_scaling, SCALINGS)
        super().__init__(name=name, autocast=False, **kwargs)  # bfloat16 cannot tell neighbouring grey levels apart
        self.depth, self.width, self.num_classes, self.seed = depth, width, num_classes, seed
        self.architecture, self.input_scaling = architecture, input_scaling
        self.batch_norm_epsilon, policy = batch_norm_epsilon, self.dtype_policy
        standard = architecture == "standard"
        self.init_conv = Conv(16, symmetric=standard, name="init_conv", dtype=policy)
        self.units = [
            ResidualUnit(
                filters * width,
                stride=2 if stage > 1 and unit == 0 else 1,
                shared_activation=unit == 0 and (stage > 1 or width > 1 if standard else stage == 1),
                architecture=architecture,
                projection=standard and unit == 0 and (stage > 1 or width > 1),
                epsilon=batch_norm_epsilon,
                name=f"unit_{stage}_{unit}",
                dtype=policy,
            )
            for stage, filters in enumerate((16, 32, 64), start=1)
            for unit in range((depth - 4) // 6)
        ]
        self.norm_last = BatchNorm(epsilon=batch_norm_epsilon, name="norm_last", dtype=policy)
        self.logits = Dense(num_classes, name="logits", dtype=policy.variable_dtype)
        self.build((None, 32, 32, 3))
        initializers.released(self, seed, dense_gain=1 / 3 if standard else 1.0)

    def build(self, input_shape):
        batch, height, width, _ = input_shape
        self.init_conv.build(input_shape)
        shape = (batch, height, width, 16)
        self.map_shapes = [shape[1:]]
        for unit in self.units:
            unit.build(shape)
            shape = (batch, shape[1] // unit.stride, shape[2] // unit.stride, unit.filters)
            self.map_shapes.append(shape[1:])
        self.norm_last.build(shape)
        self.logits.build((batch, shape[-1]))
        self.built = True

    def call(
        self, images, batch_norm: str = "eval", updates: int = 1, noise: Sequence[tf.Tensor] | None = None
    ) -> Outputs:
        """Features and logits of `images` [B, 32, 32, 3], pixels in [0, 255].

        Args:
          batch_norm: "eval" (running statistics), "train" (batch statistics; the running ones are moved, `updates`
            times) or "frozen" (batch statistics; the running ones are kept).
          noise: added to the feature maps after the first convolution and after each unit; each [H, W, C], of
            `map_shapes`, or one for each image.
        """
        scaled = SCALINGS[self.input_scaling](tf.cast(images, self.variable_dtype))
        outputs = self.init_conv(tf.cast(scaled, self.compute_dtype))
        for index, unit in enumerate([None, *self.units]):
            outputs = unit(outputs, mode=batch_norm, updates=updates) if unit else outputs
            outputs = outputs if noise is None else outputs + tf.cast(noise[index], outputs.dtype)
        outputs = self.norm_last(outputs, mode=batch_norm, updates=updates)
        outputs = tf.nn.leaky_relu(outputs, LEAKINESS[self.architecture])
        features = tf.reduce_mean(tf.cast(outputs, self.variable_dtype), axis=[1, 2])
        return Outputs(features, self.logits(features))

    def get_config(self):
        names = ("depth", "width", "num_classes", "architecture", "input_scaling", "batch_norm_epsilon", "seed")
        return super().get_config() | {name: getattr(self, name) for name in names}


def _check_choice(name, value, choices):
    if value not in choices:
        raise UsageError(name, value, f"must be one of {', '.join(choices)}")


def check_size(depth: int, width: int, num_classes: int, of_blocks: int = 6, others: int = 4) -> None:
    """Raises UsageError, naming the argument, unless a network of this size exists.

    Its depth is a multiple of `of_blocks`, the layers of a block in each stage, and `others`; by default that of a wide
    ResNet.
    """
    if depth < of_blocks + others or (depth - others) % of_blocks:
        depths = ", ".join(str(of_blocks * blocks + others) for blocks in range(1, 7))
        raise UsageError("depth", depth, f"must be {of_blocks}n + {others} ({depths}, …)")
    if width < 1:
        raise UsageError("width", width, "must be at least 1")
    if num_classes < 2:
        raise UsageError("num_classes", num_classes, "must be at least 2")
