"""AdvGAN: a generator of perturbations, trained against a frozen classifier and a discriminator.

    *_loss          the losses, each a function of tensors
    AdvGAN          a training step, for the one training loop (`rvs_tf.train_advgan` is the command)
    TrainedAdvGAN   its checkpoints, as an attack to evaluate

Xiao et al., "Generating adversarial examples with adversarial networks", IJCAI 2018. The RvS paper evaluates with a
TensorFlow implementation of it and gives no settings; "AdvGAN-tf" below is ctargon/AdvGAN-tf, likely that one, written
for MNIST and ε = 0.3. "Port" is what 32×32 images and ε = 8/255 need instead. One flaw of AdvGAN-tf is not kept: it
chooses the discriminator's variables by a part of their names, which most of the generator's kernels have too.
"""

import dataclasses
import hashlib
from typing import Any

import tensorflow as tf

from madry_cifar.attacks.losses import lead
from madry_cifar.attacks.registry import Attack
from madry_cifar.attacks.steps import PIXEL_RANGE
from madry_cifar.cli.errors import RunError, UsageError
from madry_cifar.predictor import as_predictor
from madry_cifar.randomness import Draws, draw_seed
from madry_cifar.runs import checkpoints, run_folder
from madry_cifar.training.method import Method
from madry_cifar.training.optimizers import Adam, PiecewiseConstant
from madry_cifar.training.options import TrainingOptions, option
from rvs_tf.advgan.networks import GREY_LEVELS, AdvGANGenerator, Discriminator


def discriminator_loss(natural: tf.Tensor, adversarial: tf.Tensor) -> tf.Tensor:
    """mean (p(x) − 1)² + mean p(x′)², least squares on D's probabilities [B] (AdvGAN-tf)."""
    return tf.reduce_mean(tf.square(natural - 1)) + tf.reduce_mean(tf.square(adversarial))


def gan_loss(adversarial: tf.Tensor) -> tf.Tensor:
    """mean (p(x′) − 1)²: the generator wants D to take x′ for natural (AdvGAN-tf)."""
    return tf.reduce_mean(tf.square(adversarial - 1))


def adversarial_loss(scores: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Σ_B max(0, s_y − max_{j≠y} s_j), a sum and no mean (AdvGAN-tf): how far the true class still leads.

    `scores` [B, K] are the classifier's probabilities or logits on x′, `labels` [B] the true classes.
    """
    return tf.reduce_sum(tf.nn.relu(lead(scores, labels)))


def perturbation_loss(perturbation: tf.Tensor, bound: float) -> tf.Tensor:
    """mean max(0, ‖δ‖₂ − c), with `perturbation` δ [B, 32, 32, 3] in grey levels and the bound c in units of [0, 1]."""
    squares = tf.reduce_sum(tf.square(perturbation / GREY_LEVELS), axis=[1, 2, 3])
    norm = tf.sqrt(tf.maximum(squares, 1e-12))  # the gradient of the root at zero is infinite
    return tf.reduce_mean(tf.nn.relu(norm - bound))


class AdvGANOptions(TrainingOptions):
    """Defaults: those of AdvGAN-tf, but for ε and the bound of the norm, which are the port's."""

    batch_size: int = option(128, "images per step (AdvGAN-tf)", minimum=1)
    epochs: int = option(50, "passes over the training images (AdvGAN-tf)", minimum=1)
    epsilon: float = option(
        8.0, "radius of the L∞ ball, in grey levels of 255 (the RvS paper)", minimum=0, maximum=255, kind="radius"
    )
    generator_width: int = option(
        1, "factor of the generator's channels; AdvGAN-tf: 1; 8 is a stronger attack", minimum=1
    )
    generator_learning_rate: float = option(1e-3, "of the generator's Adam (AdvGAN-tf)", minimum=0)
    discriminator_learning_rate: float = option(1e-3, "of the discriminator's Adam (AdvGAN-tf)", minimum=0)
    adversarial_loss: str = option(
        "probabilities",
        "what the true class must not lead in: probabilities (AdvGAN-tf) or logits",
        choices=("probabilities", "logits"),
    )
    gan_weight: float = option(1.0, "α, factor of the loss that the discriminator gives (AdvGAN-tf)", minimum=0)
    perturbation_weight: float = option(5.0, "β, factor of the loss of the perturbation's norm (AdvGAN-tf)", minimum=0)
    perturbation_bound: float = option(
        1.5,
        "c: l2 norm, of pixels in [0, 1], beyond which a perturbation is penalised (AdvGAN-tf: 0.3, its ε; here the "
        "largest in the ball of 8/255 is 1.74)",
        minimum=0,
    )


LOSSES = {
    "total": "What the generator minimises: adversarial + α·gan + β·perturbation.",
    "adversarial": "How far the true class still leads, summed over the batch.",
    "gan": "What the discriminator makes the generator pay.",
    "perturbation": "Mean l2 norm of the perturbation beyond the bound, of pixels in [0, 1].",
    "discriminator": "What the discriminator minimises.",
}


class AdvGAN(Method):
    """The training of a generator against a predictor, which is neither updated nor saved.

    Args:
      target: a `Predictor`, or a network of this package.

    Attributes:
      target: the predictor.
      generator, discriminator: the two networks.
    """

    name = "advgan"
    Options = AdvGANOptions
    watched_batch_norm = "eval"
    losses = LOSSES

    def __init__(self, target, options: AdvGANOptions | None = None, seed: int = 0):
        self.target = as_predictor(target)
        network = getattr(self.target, "network", None)
        super().__init__(network, options, seed)
        policy = getattr(network, "dtype_policy", "float32")
        self.generator = AdvGANGenerator(self.options.generator_width, seed=seed, dtype=policy)
        self.discriminator = Discriminator(seed=seed + 1, dtype=policy)
        for network, rate in (
            (self.generator, self.options.generator_learning_rate),
            (self.discriminator, self.options.discriminator_learning_rate),
        ):
            self.networks[network.name] = network
            variables = [v.value for v in network.trainable_variables]
            self.optimizers[network.name] = Adam(variables, PiecewiseConstant([rate]))

    def steps(self, steps_per_epoch):
        return self.options.epochs * steps_per_epoch

    def train_step(self, images, labels, step):
        """One update of the discriminator, then one of the generator against the new discriminator (AdvGAN-tf)."""
        options = self.options
        with tf.GradientTape(watch_accessed_variables=False) as generator_tape:
            generator_tape.watch(self.optimizers["generator"].variables)
            perturbation, adversarial = perturb(self.generator, images, options.epsilon, batch_norm="train")

        with tf.GradientTape(watch_accessed_variables=False) as discriminator_tape:
            discriminator_tape.watch(self.optimizers["discriminator"].variables)
            discriminator = discriminator_loss(self.discriminator(images), self.discriminator(adversarial))
        self.minimize("discriminator", discriminator, discriminator_tape, step)

        with generator_tape:
            logits = self.target.differentiable()(adversarial, self._query(images, step)).logits
            scores = logits if options.adversarial_loss == "logits" else tf.nn.softmax(logits)
            leading = adversarial_loss(scores, labels)
            gan = gan_loss(self.discriminator(adversarial))
            excess = perturbation_loss(perturbation, options.perturbation_bound)
            total = leading + options.gan_weight * gan + options.perturbation_weight * excess
        self.minimize("generator", total, generator_tape, step)
        return {
            "total": total,
            "adversarial": leading,
            "gan": gan,
            "perturbation": excess,
            "discriminator": discriminator,
        }

    def _query(self, images, step):
        """The numbers [B] of a step's query, for a target with random outputs."""
        return Draws(draw_seed(self.seed, step, "target")).of(tf.shape(images)[0]).query(0)

    def watched_logits(self, images, step):
        return self.target(images, self._query(images, step)).logits

    def adversarial_images(self, images, labels, step):
        return perturb(self.generator, images, self.options.epsilon, batch_norm="frozen")[1]


def perturb(generator: AdvGANGenerator, images: tf.Tensor, epsilon: float, batch_norm: str = "eval"):
    """δ = ε·G(x), with G's tanh, and x′ = x + δ in the range of pixels; both [B, 32, 32, 3] in grey levels.

    AdvGAN-tf clips tanh to ±ε instead. At ε = 8/255 almost all outputs would be beyond, and get no gradient (port).
    """
    perturbation = epsilon * generator(images, batch_norm=batch_norm)
    return perturbation, tf.clip_by_value(images + perturbation, *PIXEL_RANGE)


def as_attack(generator: AdvGANGenerator, options: AdvGANOptions, **protocol: Any) -> Attack:
    """The attack by a generator with its weights of the moment; `protocol` adds to or replaces what it tells of it."""
    return Attack(
        "advgan",
        lambda predictor, images, labels, draws: perturb(generator, images, options.epsilon)[1],
        {"norm": "linf", "pixel_range": list(PIXEL_RANGE)} | options.as_dict() | protocol,
    )


class TrainedAdvGAN:
    """What `rvs_tf.train_advgan` has trained in a folder, as an attack.

    Attributes:
      name: "advgan", or "advgan-x8" for a generator of eight times the channels.
      attack: `attack.run(model, images, labels, seed)` returns the adversarial images [B, 32, 32, 3] that the generator
        with the weights last restored makes of `images`; the other arguments are not used. A function compiled from it
        follows `restore`. Its `protocol` has norm, epsilon, generator_width, epochs (trained), train_dir, a digest of
        the last epoch's weights and the other options of the training.
      epsilon: the radius that it was trained for, in grey levels.
      target_sha256: the fingerprint of the classifier that it was trained against.
      steps: its checkpoints, one after each epoch, in order. Before the first `restore` the weights are of the last.

    Raises:
      UsageError: when the folder holds no AdvGAN, or no epoch of it has ended yet.
      RunError: when its settings or the checkpoint are damaged.
    """

    def __init__(self, train_dir):
        settings = run_folder.read_flags(train_dir)
        if settings.get("attack") != AdvGAN.name:
            raise UsageError("train_dir", train_dir, "holds no AdvGAN; rvs_tf.train_advgan trains one")
        try:
            self.target_sha256, every = settings["target_sha256"], settings["steps_per_epoch"]
            self.options = AdvGANOptions(**{f.name: settings[f.name] for f in dataclasses.fields(AdvGANOptions)})
        except KeyError as error:
            raise RunError(f"{train_dir}/flags.json: damaged (no {error})") from None
        self.train_dir, self.epsilon = train_dir, self.options.epsilon
        saved = checkpoints.saved_steps(train_dir)
        self.steps = [every * epoch for epoch in range(1, self.options.epochs + 1) if every * epoch in saved]
        if not self.steps:
            raise UsageError("train_dir", train_dir, "no epoch of this AdvGAN has ended yet")
        width = self.options.generator_width
        self.name = "advgan" if width == 1 else f"advgan-x{width}"
        self._generator = AdvGANGenerator(width)
        self.restore(self.steps[-1])
        weights = b"".join(value.numpy().tobytes() for value in self._generator.variables)
        told = {"epochs": len(self.steps), "generator_sha256": hashlib.sha256(weights).hexdigest()}
        attack = as_attack(self._generator, self.options, train_dir=str(train_dir), **told)
        self.attack = attack._replace(name=self.name)

    def restore(self, step: int) -> None:
        """Loads the generator of the checkpoint of `step`."""
        checkpoints.load_network(self._generator, "generator", self.train_dir, step)
