"""Robustness-via-Synthesis: Algorithm 1 of the paper, and the variants of its Table IV."""

from typing import NamedTuple

import tensorflow as tf

from madry_cifar import replicas
from madry_cifar.randomness import draw_seed, normal, uniform
from madry_cifar.training.method import WEIGHT_DECAY, Defense
from madry_cifar.training.optimizers import PiecewiseConstant
from madry_cifar.training.options import Options, option
from madry_cifar.training.registry import register
from rvs_tf.generator import Generator
from rvs_tf.labels import smooth_labels
from rvs_tf.losses import soft_cross_entropy
from rvs_tf.perturbation import perturb
from sinkhorn_tf import sinkhorn_distance


class RvSOptions(Options):
    """Defaults: the paper's settings for CIFAR-10; where its text and the released code differ, the code's."""

    batch_size: int = option(64, "images per step", minimum=1)
    steps: int = option(179_000, "training steps in all", minimum=0)
    learning_rate_boundaries: tuple[int, ...] = option(
        (60_000, 90_000), "steps after which the next one holds", minimum=0
    )
    generator_learning_rate: float = option(0.01, "of the generator, constant", minimum=0)
    epsilon: float = option(8.0, "radius of the L∞ ball, in grey levels of 255", minimum=0, kind="radius")
    label_smoothing: float = option(0.5, "share of the label given to the wrong classes", minimum=0, maximum=1)
    ot_regularizer: bool = option(True, "the classifier pays for the optimal transport distance (Table IV: noReg)")
    ot_weight: float = option(1.0, "factor of that distance in the classifier's loss (the paper: 1)", minimum=0)
    generator_loss: str = option(
        "ot", "what the generator maximises: ot, or xent, the cross-entropy (Table IV: Xent)", choices=("ot", "xent")
    )
    uniform_noise: bool = option(True, "add noise in ±ε before the perturbation (released code; not in the text)")
    perturbed_statistics: bool = option(
        True, "perturbed images move batch norm's running statistics too (released code; off: natural ones only)"
    )
    latent_draws: int = option(
        2, "2: new draws for the classifier's half of a step (released code); 1: the same ones (text)", choices=(1, 2)
    )
    ot: str = option(
        "sinkhorn",
        "the distance D: sinkhorn, or paired, the mean of ‖f(x_i) − f(x_adv,i)‖² (an ablation of ours)",
        choices=("sinkhorn", "paired"),
    )
    sinkhorn_regularization: float = option(0.01, "of the optimal transport distance", minimum=1e-6)
    sinkhorn_iterations: int = option(100, "of the optimal transport distance", minimum=1)


class Draw(NamedTuple):
    """The random part of an adversarial batch: `latent` z [B, 640] and `noise` [B, 32, 32, 3], or None for none."""

    latent: tf.Tensor
    noise: tf.Tensor | None


LOSSES = {
    "total": "What the classifier minimises: cross-entropy, transport distance (unless left out), weight decay.",
    "cross_entropy": "Of the perturbed images, with smoothed labels.",
    "optimal_transport": "Distance D between the features of natural and of perturbed images.",
    "weight_decay": WEIGHT_DECAY,
    "generator": "What the generator minimises: −D, or the negative cross-entropy.",
}


@register
class RobustnessViaSynthesis(Defense):
    """A generator of perturbations against a classifier, each updated once per iteration (Algorithm 1)."""

    name = "rvs"
    Options = RvSOptions
    losses = LOSSES

    def __init__(self, classifier, options=None, seed=0):
        super().__init__(classifier, options, seed)
        self.generator = Generator(seed=seed + 1, dtype=classifier.dtype_policy)
        constant_rate = PiecewiseConstant([self.options.generator_learning_rate])
        self.networks["generator"] = self.generator
        self.optimizers["generator"] = self.optimizer(self.generator, constant_rate)

    def train_step(self, images, labels, step):
        first = self.draw(images, step, "generator")
        second = self.draw(images, step, "classifier") if self.options.latent_draws == 2 else first
        return self.iteration(images, labels, step, first, second)

    def draw(self, images, step, half: str) -> Draw:
        """z ~ N(0, I) and uniform noise in ±ε for one half of an iteration, "generator" or "classifier"."""
        latent_shape = [tf.shape(images)[0], self.generator.latent_dim]
        latent = replicas.draw(normal, latent_shape, draw_seed(self.seed, step, f"{half} latent"), images.dtype)
        if not self.options.uniform_noise:
            return Draw(latent, None)
        seed = draw_seed(self.seed, step, f"{half} noise")
        noise = replicas.draw(uniform, tf.shape(images), seed, -1, 1, images.dtype)
        return Draw(latent, self.options.epsilon * noise)

    def iteration(self, images, labels, step, first: Draw, second: Draw):
        """One iteration of Algorithm 1, with the random draws of its two halves given.

        The natural features f(x) are the same in both halves, so they are computed once; as the released code
        computes them twice, they move the running statistics twice.
        """
        options, classifier = self.options, self.classifier
        perturbed = "train" if options.perturbed_statistics else "frozen"
        targets = smooth_labels(labels, classifier.num_classes, options.label_smoothing, classifier.variable_dtype)

        # Φ* = argmax D(μ, μ_adv): the generator's half
        with tf.GradientTape(watch_accessed_variables=False) as generator_tape:
            generator_tape.watch(self.optimizers["generator"].variables)
            adversarial = classifier(self.synthesize(images, first), batch_norm=perturbed)
            with tf.GradientTape() as classifier_tape:
                natural = classifier(images, batch_norm="train", updates=2)
            if options.generator_loss == "ot":
                objective = self.distance(natural.features, adversarial.features)
            else:
                objective = soft_cross_entropy(adversarial.logits, targets)
            generator_loss = -objective
        self.minimize("generator", generator_loss, generator_tape, step)

        # θ* = argmin L_CE(x_adv, y) + D(μ, μ_adv) (Eq. 9): the classifier's half
        adversarial_images = self.synthesize(images, second)
        with classifier_tape:
            adversarial = classifier(adversarial_images, batch_norm=perturbed)
            cross_entropy = soft_cross_entropy(adversarial.logits, targets)
            distance = self.distance(natural.features, adversarial.features)
            weight_decay = self.weight_decay()
            total = cross_entropy + weight_decay
            if options.ot_regularizer:
                total += options.ot_weight * distance
        self.minimize("classifier", total, classifier_tape, step)
        return {
            "total": total,
            "cross_entropy": cross_entropy,
            "optimal_transport": distance,
            "weight_decay": weight_decay,
            "generator": generator_loss,
        }

    def synthesize(self, images, draw: Draw, batch_norm: str = "train"):
        """Adversarial images from one draw: Eq. 3 and 4."""
        return perturb(images, self.generator(draw.latent, batch_norm=batch_norm), self.options.epsilon, draw.noise)

    def distance(self, natural_features, adversarial_features):
        """D(μ, μ_adv), Eq. 7, between the whole batches, that is of all replicas."""
        natural_features, adversarial_features = map(replicas.gather, (natural_features, adversarial_features))
        if self.options.ot == "paired":  # what Eq. 7 is when the plan is the identity
            pairs = tf.math.squared_difference(natural_features, adversarial_features)
            return tf.reduce_mean(tf.reduce_sum(pairs, axis=1))
        return sinkhorn_distance(
            natural_features,
            adversarial_features,
            regularization=self.options.sinkhorn_regularization,
            iterations=self.options.sinkhorn_iterations,
        )

    def adversarial_images(self, images, labels, step):
        return self.synthesize(images, self.draw(images, step, "classifier"), batch_norm="frozen")
