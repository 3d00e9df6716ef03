"""The GAN of Defense-GAN: a generator of images, and the critic that it is trained with (WGAN-GP).

    gradient_penalty   by which the critic's slope is kept near 1
    GAN                a training step, for the one training loop (`rvs_tf.train_gan` is the command)
    load_gan           the generator that was trained in a folder

Samangouei, Kabkab and Chellappa, "Defense-GAN", ICLR 2018. Released code: kabkabm/defensegan `models/gan.py`; WGAN-GP
is Gulrajani et al., "Improved training of Wasserstein GANs", 2017.
"""

import dataclasses
import os

import tensorflow as tf

from madry_cifar import randomness, replicas
from madry_cifar.cli.errors import RunError, UsageError
from madry_cifar.randomness import draw_seed
from madry_cifar.runs import checkpoints, run_folder
from madry_cifar.training.method import Method
from madry_cifar.training.optimizers import Adam, PiecewiseConstant
from madry_cifar.training.options import TrainingOptions, option
from rvs_tf.defense_gan.networks import Critic, GANGenerator

GREY = 127.5  # grey levels in 1 of the networks, whose pixels are in [-1, 1]
SAMPLES = 32  # images shown in TensorBoard
AXES = {"released": [1], "image": [1, 2, 3]}


class GANOptions(TrainingOptions):
    """Defaults: those of the released code (`experiments/cfgs/gans/*.yml`)."""

    batch_size: int = option(50, "images per update", minimum=1)
    iterations: int = option(
        200_000, "in all, of one update of the generator (but in the first) and then the critic's", minimum=0
    )
    critic_updates: int = option(5, "of the critic in an iteration, each on other images: a step each", minimum=1)
    latent_dim: int = option(128, "length of a latent vector", minimum=1)
    width: int = option(
        64, "channels of the critic's first layer; both networks have up to four times as many", minimum=1
    )
    learning_rate: float = option(1e-4, "of the Adam of both networks, constant", minimum=0)
    beta1: float = option(0.5, "of both: how much of the mean gradient is kept", minimum=0, maximum=0.99999)
    beta2: float = option(0.9, "of both: how much of the mean squared gradient is kept", minimum=0, maximum=0.99999)
    penalty_weight: float = option(10.0, "λ, factor of the gradient penalty", minimum=0)
    gradient_penalty: str = option(
        "released",
        "whose gradients are to have the norm 1: those of each column and channel of an image (released, where the sum "
        "under the root runs over the height alone), or of each image (as WGAN-GP is meant)",
        choices=tuple(AXES),
    )


LOSSES = {
    "total": "What the critic minimises: mean D(G(z)) − mean D(x) + λ·penalty.",
    "wasserstein": "Mean D(x) − mean D(G(z)): the critic's estimate of the distance between images and generated ones. "
    "It falls as these get better.",
    "penalty": "Mean (‖∇D‖ − 1)² between images and generated ones.",
    "generator": "What the generator minimises: −mean D(G(z)). Its level says nothing.",
}


def gradient_penalty(critic, real: tf.Tensor, fake: tf.Tensor, share: tf.Tensor, form: str) -> tf.Tensor:
    """P = mean (‖∇D(x̂)‖ − 1)² at x̂ = x + α(G(z) − x).

    Args:
      critic: D.
      real, fake: [B, H, W, C] images x and G(z).
      share: α, [B, 1, 1, 1].
      form: "image": the norm is that of an image's gradient; "released": one of each column and channel.
    """
    between = real + share * (fake - real)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(between)
        scores = critic(between)
    squares = tf.reduce_sum(tf.square(tape.gradient(scores, between)), axis=AXES[form])
    slopes = tf.sqrt(tf.maximum(squares, 1e-30))  # the gradient of the root at zero is infinite
    return tf.reduce_mean(tf.square(slopes - 1))


class GAN(Method):
    """The training of a generator and its critic.

    A step is an update of the critic on a batch of its own; before every `critic_updates`-th one, but the first, the
    generator is updated. So `critic_updates` steps are an iteration of the released code.

    Attributes:
      generator, critic: the two networks.
    """

    name = "gan"
    Options = GANOptions
    losses = LOSSES

    def __init__(self, options: GANOptions | None = None, seed: int = 0, dtype: str = "float32"):
        super().__init__(None, options, seed)
        options, self.dtype = self.options, dtype
        self.generator = GANGenerator(options.latent_dim, options.width, seed=seed, dtype=dtype)
        self.critic = Critic(options.width, seed=seed + 1, dtype=dtype)
        for network in (self.generator, self.critic):
            self.networks[network.name] = network
            variables = [v.value for v in network.trainable_variables]
            rate = PiecewiseConstant([options.learning_rate])
            self.optimizers[network.name] = Adam(variables, rate, options.beta1, options.beta2)

    def steps(self, steps_per_epoch):
        return self.options.iterations * self.options.critic_updates

    def train_step(self, images, labels, step):
        count = tf.shape(images)[0]
        due = (step > 0) & (step % self.options.critic_updates == 0)
        tf.cond(due, lambda: self.update_generator(self._latent(count, step, "generator"), step), lambda: 0.0)
        share = replicas.draw(
            randomness.uniform, [count, 1, 1, 1], draw_seed(self.seed, step, "interpolation"), 0, 1, self.dtype
        )
        return self.update_critic(images, self._latent(count, step, "critic"), share, step)

    def update_generator(self, latent: tf.Tensor, step) -> tf.Tensor:
        """One update of the generator, on latent vectors [B, latent_dim]; returns its loss before it."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self.optimizers["generator"].variables)
            loss = -tf.reduce_mean(self.critic(self.generator(latent)))
        self.minimize("generator", loss, tape, step)
        return loss

    def update_critic(self, images: tf.Tensor, latent: tf.Tensor, share: tf.Tensor, step) -> dict[str, tf.Tensor]:
        """One update of the critic; returns the losses before it.

        Args:
          images: [B, 32, 32, 3] pixels in [0, 255].
          latent: [B, latent_dim].
          share: α of the penalty, [B, 1, 1, 1].
          step: of the training.
        """
        real, fake = images / GREY - 1, self.generator(latent)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self.optimizers["critic"].variables)
            on_real, on_fake = tf.reduce_mean(self.critic(real)), tf.reduce_mean(self.critic(fake))
            penalty = gradient_penalty(self.critic, real, fake, share, self.options.gradient_penalty)
            total = on_fake - on_real + self.options.penalty_weight * penalty
        self.minimize("critic", total, tape, step)
        return {"total": total, "wasserstein": on_real - on_fake, "penalty": penalty, "generator": -on_fake}

    def _latent(self, count, step, purpose):
        shape = [count, self.options.latent_dim]
        return replicas.draw(randomness.normal, shape, draw_seed(self.seed, step, f"latent {purpose}"), self.dtype)

    def samples(self):
        return GREY * (self.generator(self._latent(SAMPLES, 0, "samples")) + 1)


def load_gan(train_dir: str | os.PathLike, checkpoint: int | str | None = None) -> GANGenerator:
    """The generator that `rvs_tf.train_gan` trained in a folder, of a checkpoint (step or path; the latest by default).

    Raises:
      UsageError: when the folder holds no GAN, or no such checkpoint.
      RunError: when its settings or the checkpoint are damaged.
    """
    settings = run_folder.read_flags(train_dir)
    if settings.get("gan") != GAN.name:
        raise UsageError("train_dir", train_dir, "holds no GAN; rvs_tf.train_gan trains one")
    try:
        options = GANOptions(**{field.name: settings[field.name] for field in dataclasses.fields(GANOptions)})
    except KeyError as error:
        raise RunError(f"{train_dir}/flags.json: damaged (no {error})") from None
    step, _ = checkpoints.find(train_dir, checkpoint)
    generator = GANGenerator(options.latent_dim, options.width)
    generator.origin = {"gan": str(train_dir), "checkpoint": step}
    return checkpoints.load_network(generator, "generator", train_dir, step)
