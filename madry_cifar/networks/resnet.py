"""Post-activation ResNets (He et al.), as L2L-DA, Direct and Learn2Perturb have them; they differ in the shortcuts."""

from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

import keras
import tensorflow as tf

from madry_cifar.networks import initializers, wide_resnet
from madry_cifar.networks.layers import BatchNorm, Conv, Dense, kernels
from madry_cifar.networks.scaling import SCALINGS
from madry_cifar.predictor import Outputs


class Kind(NamedTuple):
    """What tells one ResNet from another.

    Attributes:
      filters: of the stages; each but the first begins with a stride of 2.
      shortcut: where the shape changes: "pad" (every second pixel, zero channels on both sides), "append" (zero
        channels behind) or "project" (1×1 convolution and batch norm).
      projects_first: whether the first stage begins with a projection too.
      initialize: of the weights.
    """

    filters: tuple[int, ...]
    shortcut: str
    projects_first: bool
    initialize: Callable[[keras.Model, int], None]


def _he(network, seed):
    initializers.fill(kernels(network), seed, initializers.normal(2))


def _truncated(network, seed):
    initializers.fill(kernels(network), seed, initializers.truncated_normal(1))


def _released_v1(network, seed):
    *convolutions, dense = kernels(network)
    initializers.fill(convolutions, seed, initializers.normal(2, of="outputs"))
    initializers.fill([dense], seed + 1, initializers.normal(2))


KINDS = {
    "resnet_pad": Kind((16, 32, 64), "pad", False, _he),  # L2L-DA; 20 layers
    "resnet_append": Kind((16, 32, 64), "append", False, _released_v1),  # Learn2Perturb's V1; 20 layers
    "resnet_project": Kind((16, 32, 64), "project", True, _truncated),  # Direct; 20 layers
    "resnet18": Kind((64, 128, 256, 512), "project", False, initializers.pytorch),  # Learn2Perturb's V2; 18 layers
}


class BasicBlock(keras.layers.Layer):
    """Two 3×3 convolutions, each before batch normalisation, added to a shortcut; ReLU after the first and the sum."""

    def __init__(self, filters: int, stride: int, shortcut: str, projection: bool, epsilon: float, **kwargs):
        super().__init__(**kwargs)
        self.filters, self.stride, self.shortcut, policy = filters, stride, shortcut, self.dtype_policy
        self.conv1 = Conv(filters, stride=stride, symmetric=True, name="conv1", dtype=policy)
        self.conv2 = Conv(filters, symmetric=True, name="conv2", dtype=policy)
        self.norm1, self.norm2 = (BatchNorm(epsilon=epsilon, name=f"norm{i}", dtype=policy) for i in (1, 2))
        self.projection = self.norm_shortcut = None
        if projection:
            self.projection = Conv(filters, 1, stride, name="shortcut", dtype=policy)
            self.norm_shortcut = BatchNorm(epsilon=epsilon, name="norm_shortcut", dtype=policy)

    def build(self, input_shape):
        inner_shape = (*input_shape[:-1], self.filters)
        self.conv1.build(input_shape)
        self.conv2.build(inner_shape)
        for norm in (self.norm1, self.norm2):
            norm.build(inner_shape)
        if self.projection:
            self.projection.build(input_shape)
            self.norm_shortcut.build(inner_shape)

    def call(self, inputs, mode: str = "eval", updates: int = 1, noise=None):
        """`noise`, if any, is added before the last activation."""
        outputs = tf.nn.relu(self.norm1(self.conv1(inputs), mode=mode, updates=updates))
        outputs = self.norm2(self.conv2(outputs), mode=mode, updates=updates)
        outputs += self._fit(inputs, mode, updates)
        return tf.nn.relu(outputs if noise is None else outputs + tf.cast(noise, outputs.dtype))

    def _fit(self, shortcut, mode, updates):
        """The shortcut, brought to the shape of the block's outputs."""
        if self.projection:
            return self.norm_shortcut(self.projection(shortcut), mode=mode, updates=updates)
        missing = self.filters - shortcut.shape[-1]
        before = missing // 2 if self.shortcut == "pad" else 0
        shortcut = shortcut[:, :: self.stride, :: self.stride]
        return tf.pad(shortcut, [[0, 0], [0, 0], [0, 0], [before, missing - before]]) if missing else shortcut


@keras.saving.register_keras_serializable("madry_cifar")
class ResNet(keras.Model):
    """Post-activation ResNet on images [B, 32, 32, 3] of pixels in [0, 255].

    Args:
      depth: 6n + 2 layers (resnet18: 8n + 2), with n blocks in each stage.
      width: factor of the stages' filters.
      num_classes: K, the number of logits.
      architecture: one of `KINDS`.
      input_scaling: of the pixels, inside the network; see `SCALINGS`.
      batch_norm_epsilon: added to the variance in batch norm.
      seed, dtype: as of `WideResNet`.

    Attributes:
      map_shapes: (H, W, C) of the feature maps that noise can be added to.

    Raises:
      UsageError: for a depth, width or number of classes that no such network has, or an unknown name.
    """

    DEFAULTS: ClassVar = {"input_scaling": "standardize", "batch_norm_epsilon": 1e-3}
    image_shape = (32, 32, 3)

    def __init__(
        self,
        depth: int = 20,
        width: int = 1,
        num_classes: int = 10,
        *,
        architecture: str = "resnet_pad",
        input_scaling: str = "standardize",
        batch_norm_epsilon: float = 1e-3,
        seed: int = 0,
        name: str = "classifier",
        **kwargs,
    ):
        check_size(architecture, depth, width, num_classes)
        super().__init__(name=name, autocast=False, **kwargs)
        self.depth, self.width, self.num_classes, self.seed = depth, width, num_classes, seed
        self.architecture, self.input_scaling = architecture, input_scaling
        self.batch_norm_epsilon, policy, kind = batch_norm_epsilon, self.dtype_policy, KINDS[architecture]
        filters = [width * each for each in kind.filters]
        self.init_conv = Conv(filters[0], symmetric=True, name="init_conv", dtype=policy)
        self.norm_first = BatchNorm(epsilon=batch_norm_epsilon, name="norm_first", dtype=policy)
        self.units = [
            BasicBlock(
                channels,
                stride=2 if stage > 1 and unit == 0 else 1,
                shortcut=kind.shortcut,
                projection=kind.shortcut == "project" and unit == 0 and (stage > 1 or kind.projects_first),
                epsilon=batch_norm_epsilon,
                name=f"unit_{stage}_{unit}",
                dtype=policy,
            )
            for stage, channels in enumerate(filters, start=1)
            for unit in range((depth - 2) // (2 * len(filters)))
        ]
        self.logits = Dense(num_classes, name="logits", dtype=policy.variable_dtype)
        self.build((None, 32, 32, 3))
        kind.initialize(self, seed)

    def build(self, input_shape):
        batch, height, width, _ = input_shape
        self.init_conv.build(input_shape)
        shape = (batch, height, width, self.init_conv.filters)
        self.norm_first.build(shape)
        self.map_shapes = [shape[1:]]
        for unit in self.units:
            unit.build(shape)
            shape = (batch, shape[1] // unit.stride, shape[2] // unit.stride, unit.filters)
            self.map_shapes.append(shape[1:])
        self.logits.build((batch, shape[-1]))
        self.built = True

    def call(
        self, images, batch_norm: str = "eval", updates: int = 1, noise: Sequence[tf.Tensor] | None = None
    ) -> Outputs:
        """Features and logits of `images` [B, 32, 32, 3]; arguments as of `WideResNet`.

        `noise` is added after the first batch norm and to each block's sum, before the activation.
        """
        scaled = SCALINGS[self.input_scaling](tf.cast(images, self.variable_dtype))
        outputs = self.init_conv(tf.cast(scaled, self.compute_dtype))
        outputs = self.norm_first(outputs, mode=batch_norm, updates=updates)
        first, *others = noise or [None] * len(self.map_shapes)
        outputs = tf.nn.relu(outputs if first is None else outputs + tf.cast(first, outputs.dtype))
        for unit, added in zip(self.units, others, strict=True):
            outputs = unit(outputs, mode=batch_norm, updates=updates, noise=added)
        features = tf.reduce_mean(tf.cast(outputs, self.variable_dtype), axis=[1, 2])
        return Outputs(features, self.logits(features))

    def get_config(self):
        names = ("depth", "width", "num_classes", "architecture", "input_scaling", "batch_norm_epsilon", "seed")
        return super().get_config() | {name: getattr(self, name) for name in names}


def check_size(architecture: str, depth: int, width: int, num_classes: int) -> None:
    """Raises UsageError, naming the argument, unless a ResNet of this size exists."""
    wide_resnet.check_size(depth, width, num_classes, of_blocks=2 * len(KINDS[architecture].filters), others=2)
