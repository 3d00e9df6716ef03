"""L2L-DA's generator: a U-Net on image, gradient and perturbation so far, given the class and a random vector.

Released code: YunseokJANG/l2l-da `adv_defence/models.py` (NoiseGenerator).
"""

import keras
import tensorflow as tf

from madry_cifar.networks import initializers
from madry_cifar.networks.layers import BatchNorm, Conv, Dense, kernels

LEAKINESS = 0.2
DEVIATION = 0.02  # of the first weights of convolutions and of what stands for the classes


class ConditionalBatchNorm(keras.layers.Layer):
    """Batch norm whose scale and shift are each the sum of a class's own and of what all classes share."""

    def __init__(self, num_classes: int, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.norm = BatchNorm(epsilon=1e-10, affine=False, name="norm", dtype=self.dtype_policy)

    def build(self, input_shape):
        def table(name):  # a row for each class, then the shared one
            shape = (self.num_classes + 1, input_shape[-1])
            return self.add_weight(name=name, shape=shape, initializer="zeros", autocast=False)

        self.norm.build(input_shape)
        self.gamma, self.beta = table("gamma"), table("beta")

    def call(self, inputs, labels, mode: str = "eval"):
        """Normalises `inputs` [B, H, W, C], of images of the classes `labels` [B]."""
        scale, shift = (
            tf.cast(tf.gather(table.value, labels) + table.value[-1], inputs.dtype)[:, tf.newaxis, tf.newaxis]
            for table in (self.gamma, self.beta)
        )
        return self.norm(inputs, mode=mode) * scale + shift


class ConditionalUNet(keras.Model):
    """G: (image, gradient, perturbation; class; z) → the next step of the perturbation, in ±1; 0.50 M weights.

    Args:
      num_classes: K.
      latent_dim: length of z.
      width: channels of the first layer.
      seed: of the initial weights.
    """

    def __init__(
        self,
        num_classes: int = 10,
        latent_dim: int = 8,
        width: int = 64,
        *,
        seed: int = 0,
        name: str = "generator",
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        self.num_classes, self.latent_dim, self.width, policy = num_classes, latent_dim, width, self.dtype_policy
        self.encoders = [Dense(latent_dim, name=f"encoder{i}", dtype=policy) for i in (1, 2)]
        self.down0 = Conv(width, name="down0", dtype=policy)
        self.down1 = Conv(width, 4, 2, name="down1", dtype=policy)
        self.down2 = Conv(2 * width, 4, 2, name="down2", dtype=policy)
        self.up2 = Conv(width, 4, 2, transposed=True, name="up2", dtype=policy)
        self.up1 = Conv(width, 4, 2, transposed=True, name="up1", dtype=policy)
        self.last = Conv(3, name="last", dtype=policy)
        self.norm_down1, self.norm_up2, self.norm_up1 = (
            ConditionalBatchNorm(num_classes, name=f"norm_{place}", dtype=policy) for place in ("down1", "up2", "up1")
        )
        self.build((None, 32, 32, 9))
        dense, convolutions = kernels(self)[:2], kernels(self)[2:]
        initializers.fill(dense, seed, initializers.uniform(1, of="both"))
        initializers.fill(convolutions, seed + 1, initializers.deviation(DEVIATION))
        norms = [layer.gamma.value for layer in (self.norm_down1, self.norm_up2, self.norm_up1)]
        initializers.fill(norms, seed + 2, initializers.deviation(DEVIATION))
        for gamma in norms:
            gamma.assign(gamma + tf.one_hot(num_classes, num_classes + 1, dtype=gamma.dtype)[:, tf.newaxis])

    def build(self, input_shape):
        own, latent, (_, height, width, channels) = self.width, self.latent_dim, input_shape
        for encoder in self.encoders:
            encoder.build((None, latent))

        def shape(scale, channels):
            return (None, height // scale, width // scale, channels)

        self.down0.build(shape(1, channels + latent))
        self.down1.build(shape(1, own + latent))
        self.norm_down1.build(shape(2, own))
        self.down2.build(shape(2, own + latent))
        self.up2.build(shape(4, 2 * own))
        self.norm_up2.build(shape(2, own))
        self.up1.build(shape(2, 2 * own))
        self.norm_up1.build(shape(1, own))
        self.last.build(shape(1, 2 * own))
        self.built = True

    def call(self, inputs, labels, latent, batch_norm: str = "eval"):
        """The step [B, 32, 32, 3] for `inputs` [B, 32, 32, 9], their classes [B] and z [B, latent_dim]."""
        code = tf.cast(latent, self.compute_dtype)
        for encoder in self.encoders:
            code = tf.nn.relu(encoder(code))

        def with_code(features):  # at every pixel
            shape = [*tf.unstack(tf.shape(features)[:3]), self.latent_dim]
            return tf.concat([features, tf.broadcast_to(code[:, tf.newaxis, tf.newaxis], shape)], axis=3)

        def leaky(features):
            return tf.nn.leaky_relu(features, LEAKINESS)

        down0 = leaky(self.down0(with_code(inputs)))
        down1 = leaky(self.norm_down1(self.down1(with_code(down0)), labels, mode=batch_norm))
        down2 = leaky(self.down2(with_code(down1)))
        up2 = tf.nn.relu(self.norm_up2(self.up2(down2), labels, mode=batch_norm))
        up1 = tf.nn.relu(self.norm_up1(self.up1(tf.concat([up2, down1], axis=3)), labels, mode=batch_norm))
        return tf.tanh(tf.cast(self.last(tf.concat([up1, down0], axis=3)), self.variable_dtype))
