"""The layers of the MadryLab-style networks: convolution, dense, batch normalisation in three modes.

Released code: MadryLab/cifar10_challenge `model.py`, and the same layers in the RvS release.
"""

from collections.abc import Iterable

import keras
import tensorflow as tf

from madry_cifar import replicas

BATCH_NORM_MODES = ("eval", "train", "frozen")


class BatchNorm(keras.layers.Layer):
    """Batch normalisation over all axes but the last, with the three modes that adversarial training needs.

    | mode     | normalises with      | running statistics |
    |----------|----------------------|--------------------|
    | "eval"   | running statistics   | kept               |
    | "train"  | the batch's own      | updated            |
    | "frozen" | the batch's own      | kept               |

    As TensorFlow's fused op, the running variance follows the unbiased batch variance. The fused op is used because
    Keras's own layer runs as separate operations (less than half as fast on a CPU); where it cannot be (float64, or
    statistics of several replicas) the same formula is written out.

    Args:
      decay: what is kept of the running statistics per update (released code: 0.9).
      epsilon: added to the variance (released code: 0.001).
      affine: whether the result is scaled and shifted by learned numbers.

    Attributes:
      synchronized: whether "the batch" is that of all replicas; see `synchronize`.
    """

    def __init__(self, decay: float = 0.9, epsilon: float = 1e-3, affine: bool = True, **kwargs):
        super().__init__(**kwargs)
        self.decay, self.epsilon, self.affine = decay, epsilon, affine
        self.synchronized = False

    def build(self, input_shape):
        def weight(name, initializer, trainable):  # never rounded to what the layer computes in
            return self.add_weight(
                name=name, shape=input_shape[-1:], initializer=initializer, trainable=trainable, autocast=False
            )

        if self.affine:
            self.gamma, self.beta = weight("gamma", "ones", True), weight("beta", "zeros", True)
        self.moving_mean = weight("moving_mean", "zeros", False)
        self.moving_variance = weight("moving_variance", "ones", False)

    def call(self, inputs, mode: str = "eval", updates: int = 1):
        """Normalises `inputs` [B, H, W, C]; in mode "train" moves the running statistics `updates` times.

        `updates` may be a scalar tensor.
        """
        if mode not in BATCH_NORM_MODES:
            raise ValueError(f"batch_norm must be one of {BATCH_NORM_MODES}. Received: batch_norm={mode!r}")
        if mode == "eval":
            return self._normalize(inputs, self.moving_mean.value, self.moving_variance.value)[0]
        outputs, mean, variance = self._normalize(inputs)
        if mode == "train":
            if tf.is_tensor(updates):  # which Keras has cast to what the layer computes in
                updates = tf.cast(updates, self.variable_dtype)
            moved = 1.0 - self.decay**updates  # `updates` moves by 1 - decay towards the same value
            for running, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
                # Of this replica's copy alone, unlike `assign_sub`: they are averaged at the end of a step.
                change = moved * (running.value - batch)
                tf.raw_ops.AssignSubVariableOp(resource=running.value.handle, value=change)
        return outputs

    def _normalize(self, inputs, mean=None, variance=None):
        """Returns the outputs and the mean and (unbiased) variance of the batch; uses the given ones instead if any."""
        use_batch = mean is None
        ones = tf.ones([inputs.shape[-1]], self.variable_dtype)
        scale, offset = (self.gamma.value, self.beta.value) if self.affine else (ones, tf.zeros_like(ones))
        if inputs.dtype == tf.float64 or (use_batch and self.synchronized and replicas.count() > 1):
            return self._normalize_unfused(inputs, mean, variance, scale, offset)
        empty = tf.zeros([0], tf.float32)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=scale,
            offset=offset,
            mean=empty if use_batch else mean,
            variance=empty if use_batch else variance,
            epsilon=self.epsilon,
            is_training=use_batch,
        )
        return outputs, mean, variance

    def _normalize_unfused(self, inputs, mean, variance, scale, offset):
        wide = tf.cast(inputs, self.variable_dtype)
        count = tf.cast(tf.size(inputs) // tf.shape(inputs)[-1], wide.dtype)
        if mean is None:
            mean, variance = tf.nn.moments(wide, axes=list(range(inputs.shape.rank - 1)))
            if self.synchronized:
                means, variances = tf.unstack(replicas.gather(tf.stack([mean, variance])[tf.newaxis]), axis=1)
                mean = tf.reduce_mean(means, axis=0)
                variance = tf.reduce_mean(variances + tf.math.squared_difference(means, mean), axis=0)
                count *= replicas.count()
        outputs = tf.nn.batch_normalization(wide, mean, variance, offset, scale, self.epsilon)
        return tf.cast(outputs, inputs.dtype), mean, variance * count / tf.maximum(count - 1, 1)

    def get_config(self):
        return super().get_config() | {"decay": self.decay, "epsilon": self.epsilon, "affine": self.affine}


def synchronize(network: keras.Model) -> None:
    """Makes a network's batch norms use the statistics of all replicas' images together."""
    for layer in network._flatten_layers():
        if isinstance(layer, BatchNorm):
            layer.synchronized = True


class Conv(keras.layers.Layer):
    """A convolution with "SAME" padding; its kernel is [size, size, in, out]. By default it has no bias.

    With `transposed=True` the transposed one, whose kernel is [size, size, out, in] and which multiplies height and
    width by `stride`. With `symmetric=True` as many zeros are added before as behind, as in PyTorch; "SAME" adds those
    that a stride of 2 leaves over behind alone.
    """

    def __init__(
        self,
        filters: int,
        size: int = 3,
        stride: int = 1,
        transposed: bool = False,
        symmetric: bool = False,
        use_bias: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters, self.size, self.stride, self.transposed = filters, size, stride, transposed
        self.symmetric, self.use_bias = symmetric, use_bias

    def build(self, input_shape):
        ends = (self.filters, input_shape[-1]) if self.transposed else (input_shape[-1], self.filters)
        self.kernel = self.add_weight(name="kernel", shape=(self.size, self.size, *ends), initializer="zeros")
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")

    def call(self, inputs):
        outputs = self._convolve(inputs, tf.cast(self.kernel.value, inputs.dtype))
        return outputs + tf.cast(self.bias.value, inputs.dtype) if self.use_bias else outputs

    def _convolve(self, inputs, kernel):
        if not self.transposed:
            zeros = [self.size // 2] * 2
            padding = [[0, 0], zeros, zeros, [0, 0]] if self.symmetric else "SAME"
            return tf.nn.conv2d(inputs, kernel, self.stride, padding)
        batch, height, width, _ = tf.unstack(tf.shape(inputs))
        shape = tf.stack([batch, height * self.stride, width * self.stride, self.filters])
        outputs = tf.nn.conv2d_transpose(inputs, kernel, shape, self.stride, "SAME")
        _, height, width, _ = inputs.shape
        return tf.ensure_shape(outputs, [None, height * self.stride, width * self.stride, self.filters])

    def get_config(self):
        names = ("filters", "size", "stride", "transposed", "symmetric", "use_bias")
        return super().get_config() | {name: getattr(self, name) for name in names}


class Dense(keras.layers.Layer):
    """A fully connected layer with a bias and no activation."""

    def __init__(self, units: int, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape):
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1], self.units), initializer="zeros")
        self.bias = self.add_weight(name="bias", shape=(self.units,), initializer="zeros")

    def call(self, inputs):
        return tf.matmul(inputs, tf.cast(self.kernel.value, inputs.dtype)) + tf.cast(self.bias.value, inputs.dtype)

    def get_config(self):
        return super().get_config() | {"units": self.units}


def standardize(images: tf.Tensor) -> tf.Tensor:
    """Per-image standardisation of `images` [B, H, W, C]: zero mean, unit standard deviation over the whole image.

    The deviation is bounded below by 1/sqrt(H·W·C), as in `tf.image.per_image_standardization`; bounding the
    variance, not its root, keeps the gradient of a constant image finite.
    """
    size = tf.cast(tf.reduce_prod(tf.shape(images)[1:]), images.dtype)
    centred = images - tf.reduce_mean(images, axis=[1, 2, 3], keepdims=True)
    variance = tf.reduce_mean(tf.square(centred), axis=[1, 2, 3], keepdims=True)
    return centred * tf.math.rsqrt(tf.maximum(variance, 1.0 / size))


def flat_variables(name: str, network: keras.Model) -> dict[str, tf.Variable]:
    """All variables of a network by their flat names, as NAME.unit_1_0.conv1.kernel; `name` replaces the network's."""
    return unambiguous((".".join([name, *v.path.split("/")[1:]]), v.value) for v in network.variables)


def unambiguous(pairs: Iterable[tuple[str, tf.Variable]]) -> dict[str, tf.Variable]:
    """Variables by their names, from pairs; ValueError unless each has one name, and each name one variable."""
    variables, names = {}, {}
    for name, variable in pairs:
        if name in variables:
            raise ValueError(f"two variables would be saved as {name}")
        if names.setdefault(id(variable), name) != name:
            raise ValueError(f"{names[id(variable)]} and {name} are one variable")
        variables[name] = variable
    return variables


def kernels(network: keras.Model) -> list[tf.Variable]:
    """The kernels of a network's convolutions and dense layers: what weight decay applies to."""
    return [v.value for v in network.trainable_variables if v.name == "kernel"]
