"""The generator of perturbations (Table I of the paper)."""

import keras
import tensorflow as tf

from madry_cifar.networks import initializers
from madry_cifar.networks.layers import BatchNorm, Conv, Dense
from madry_cifar.runs.checkpoints import load_network
from madry_cifar.runs.run_folder import read_flags

LEAKINESS = 0.2


@keras.saving.register_keras_serializable("rvs_tf")
class Generator(keras.Model):
    """G: latent vectors [B, latent_dim] → perturbations [B, 32, 32, 3] in grey levels, unbounded.

    Dense to 8×8×64, then transposed 4×4 convolutions of stride 2 to 16×16×32 and 32×32×16, each with batch norm and
    LeakyReLU 0.2, then a 4×4 convolution to three channels. Only the dense layer has a bias (released code).

    Args:
      latent_dim: length of a latent vector; 640 in Table I, the features of the paper's classifier.
      seed: of the initial weights.
    """

    def __init__(self, latent_dim: int = 640, *, seed: int = 0, name: str = "generator", **kwargs):
        super().__init__(name=name, **kwargs)
        self.latent_dim, self.seed = latent_dim, seed
        policy = self.dtype_policy
        self.dense = Dense(8 * 8 * 64, name="dense", dtype=policy)
        self.deconv1 = Conv(32, size=4, stride=2, transposed=True, name="deconv1", dtype=policy)
        self.norm1 = BatchNorm(name="norm1", dtype=policy)
        self.deconv2 = Conv(16, size=4, stride=2, transposed=True, name="deconv2", dtype=policy)
        self.norm2 = BatchNorm(name="norm2", dtype=policy)
        self.conv3 = Conv(3, size=4, name="conv3", dtype=policy)
        self.build((None, latent_dim))
        initializers.released(self, seed)

    def build(self, input_shape):
        self.dense.build(input_shape)
        self.deconv1.build((None, 8, 8, 64))
        self.norm1.build((None, 16, 16, 32))
        self.deconv2.build((None, 16, 16, 32))
        self.norm2.build((None, 32, 32, 16))
        self.conv3.build((None, 32, 32, 16))
        self.built = True

    def call(self, latent, batch_norm: str = "eval"):
        """Perturbations for `latent` [B, latent_dim]; `batch_norm` as in `WideResNet`."""
        outputs = tf.reshape(self.dense(latent), [-1, 8, 8, 64])
        outputs = tf.nn.leaky_relu(self.norm1(self.deconv1(outputs), mode=batch_norm), LEAKINESS)
        outputs = tf.nn.leaky_relu(self.norm2(self.deconv2(outputs), mode=batch_norm), LEAKINESS)
        return tf.cast(self.conv3(outputs), self.variable_dtype)

    def get_config(self):
        return super().get_config() | {"latent_dim": self.latent_dim, "seed": self.seed}


def load_generator(train_dir, checkpoint: int | str | None = None) -> Generator:
    """The generator of an RvS run, with the weights of its latest or the given checkpoint (a step or a path).

    Raises:
      UsageError: when the folder holds no run or no such checkpoint.
      RunError: when the checkpoint is damaged, or of a defence without a generator.
    """
    read_flags(train_dir)
    return load_network(Generator(), "generator", train_dir, checkpoint)
