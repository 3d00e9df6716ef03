"""ADT (Dong et al., NeurIPS 2020): each image has a distribution of perturbations, and f is trained on a sample of it.

Released code: dongyp13/Adversarial-Distributional-Training `adt_exp.py`, `adt_expam.py`, `adt_impam.py`.
"""

import abc
import math

import tensorflow as tf

from madry_cifar import attacks, randomness, replicas
from madry_cifar.attacks.steps import PIXEL_RANGE, Rule, Search, ascend, gradient_of
from madry_cifar.randomness import draw_seed
from madry_cifar.training.method import WEIGHT_DECAY, Defense, OnExamples
from madry_cifar.training.optimizers import PiecewiseConstant, PyTorchAdam
from madry_cifar.training.options import Options, option
from madry_cifar.training.registry import register
from rvs_tf.attackers import DistributionAttacker, LatentEncoder

TINY = 1e-8  # of the released code: added to a scale before the logarithm, and to what Adam divides by
LATENT = 64  # length of z


class ADTOptions(Options):
    """What all three have. ε = 8 here; the released code has 4 on SVHN."""

    epsilon: float = option(8.0, "radius of the L∞ ball, in grey levels of 255", minimum=0, kind="radius")
    entropy_weight: float = option(0.01, "λ of the entropy of the perturbations", minimum=0)


class ADTExpOptions(ADTOptions):
    """Defaults: as released."""

    inner_steps: int = option(7, "steps of Adam on each image's distribution", minimum=1)
    inner_samples: int = option(5, "samples of the distribution for a step", minimum=1)
    inner_learning_rate: float = option(0.3, "of these steps", minimum=0)
    accumulated_gradients: bool = option(
        True, "a step follows the sum of all gradients so far (released code, which never zeroes them); off: its own"
    )


class ADTExpAMOptions(ADTOptions):
    """Defaults: as released."""

    generator_learning_rate: float = option(2e-4, "of the generator's Adam, constant", minimum=0)
    generator_width: int = option(256, "channels of the generator's first layer", minimum=1)


class ADTImpAMOptions(ADTExpAMOptions):
    """Defaults: as released."""

    entropy_weight: float = option(1.0, "λ of the entropy of the perturbations", minimum=0)
    entropy_threshold: float = option(0.9, "nats a number of z that the bound of the negative entropy is free to reach")
    encoder_learning_rate: float = option(2e-4, "of the encoder's Adam, constant", minimum=0)


def sample(distribution, noise):
    """A perturbation tanh(m + s·n) in units of ε, and the entropy of each of its elements but for a constant.

    Args:
      distribution: m and, before the softplus, s of each element, [B, 32, 32, 6].
      noise: n ~ N(0, 1) [B, 32, 32, 3].
    """
    mean, scale = tf.split(distribution, 2, axis=3)
    scale = tf.nn.softplus(scale)
    perturbation = tf.tanh(mean + scale * noise)
    slope = (1 - perturbation) * (1 + perturbation)  # of tanh; 1 - x² + TINY may be compiled as (1 + TINY) - x²
    entropy = noise**2 / 2 + tf.math.log(scale + TINY) + tf.math.log(slope + TINY)
    return perturbation, entropy


def moments(distribution, epsilon):
    """For TensorBoard: mean before the tanh and deviation of a distribution, and ε·tanh of that mean."""
    mean, scale = tf.split(distribution, 2, axis=3)
    deviation = tf.nn.softplus(scale)
    return {"distribution/center": epsilon * tf.tanh(mean), "distribution/deviation": deviation}


def normal(images, seed, step, number):
    """Noise n [B, 32, 32, 3] for the sample of this number in a step."""
    seed = draw_seed(seed, step, "distribution")
    seed = tf.random.fold_in(seed, tf.cast(number, tf.int64), alg=randomness.GENERATOR)
    return replicas.draw(randomness.normal, tf.shape(images), seed, images.dtype)


def moved(images, perturbation, epsilon):
    """Images [B, 32, 32, 3] moved by a perturbation in units of ε."""
    return tf.clip_by_value(images + epsilon * perturbation, *PIXEL_RANGE)


@register
class ADTExp(OnExamples):
    """EXP: the distribution of each image is found anew, by Adam on mean cross-entropy + λ · mean entropy."""

    name = "adt_exp"
    Options = ADTExpOptions

    def examples(self, images, labels, step):
        options = self.options
        noise = self.noise(images, step, options.inner_steps * options.inner_samples)
        perturbation, _ = sample(self.search(images, labels, step).point, noise)
        return tf.stop_gradient(moved(images, perturbation, options.epsilon)), labels

    def noise(self, images, step, number):
        """Of a sample: see `normal`."""
        return normal(images, self.seed, step, number)

    def search(self, images, labels, step) -> Search:
        """What the inner steps make of each image's distribution [B, 32, 32, 6], from m = 0 and s = softplus(0) on."""
        options, rule = self.options, self.rule()

        def objective(distribution, number):
            perturbation, entropy = sample(distribution, self.noise(images, step, number))
            logits = self.classifier(moved(images, perturbation, options.epsilon)).logits
            loss = tf.reduce_mean(attacks.cross_entropy(logits, labels))
            loss += options.entropy_weight * tf.reduce_mean(entropy)
            return loss / replicas.count()  # means over all replicas' images: TINY is felt where gradients are small

        start = tf.concat([tf.zeros_like(images)] * 2, axis=3)
        passes = options.inner_steps * options.inner_samples
        return ascend(Search(start, rule.begin(start)), gradient_of(objective), rule, steps=passes)

    def rule(self) -> Rule:
        """Adam with β₁ = β₂ = 0 along the sum of the gradients: a step after every so many samples."""
        options = self.options

        def step(gradient, total, number):
            total += gradient
            due = (number + 1) % options.inner_samples == 0
            move = options.inner_learning_rate * total / (tf.abs(total) + TINY)
            if not options.accumulated_gradients:
                total = tf.where(due, tf.zeros_like(total), total)
            return tf.where(due, move, tf.zeros_like(move)), total

        return Rule(tf.zeros_like, step)

    def histograms(self, images, labels, step):
        return moments(self.search(images, labels, step).point, self.options.epsilon)


@tf.custom_gradient
def reversed_gradient(values):
    """The values, with −1 times their gradient: what comes before them ascends where what comes after descends."""
    return tf.identity(values), lambda upstream: -upstream


LOSSES = {
    "total": "What the classifier minimises: cross-entropy and weight decay.",
    "cross_entropy": "Of the images that the generator makes.",
    "weight_decay": WEIGHT_DECAY,
    "generator": "What the generator minimises: what it pays, less the cross-entropy.",
    "entropy_penalty": "What it pays for little entropy: −λ · mean entropy (EXP-AM), or λ times by how much the "
    "bound of the negative entropy exceeds the threshold (IMP-AM).",
}


class Amortized(Defense):
    """A network G makes the perturbations from an image and two gradients; one gradient updates all networks.

    f descends the cross-entropy of x' and G, whose gradient is reversed there, ascends it; G pays for its entropy.
    """

    Options = ADTExpAMOptions
    losses = LOSSES

    def add(self, name, network, rate, beta1):
        """Trains a network by Adam."""
        self.networks[name] = network
        variables = [variable.value for variable in network.trainable_variables]
        self.optimizers[name] = PyTorchAdam(variables, PiecewiseConstant([rate]), beta1=beta1)

    @abc.abstractmethod
    def perturb(self, seen, step, batch_norm: str):
        """From what G sees: a perturbation [B, 32, 32, 3] in units of ε, and what is paid for its entropy."""

    def train_step(self, images, labels, step):
        seen = self.seen(images, labels)
        with tf.GradientTape() as tape:
            perturbation, penalty = self.perturb(seen, step, "train")
            adversarial = reversed_gradient(moved(images, perturbation, self.options.epsilon))
            logits = self.classifier(adversarial, batch_norm="train").logits
            cross_entropy = tf.reduce_mean(attacks.cross_entropy(logits, labels))
            weight_decay = self.weight_decay()
            loss = cross_entropy + weight_decay + penalty
        variables = {name: optimizer.variables for name, optimizer in self.optimizers.items()}
        for name, gradients in tape.gradient(loss, variables).items():
            self.apply(name, gradients, step)
        return {
            "total": cross_entropy + weight_decay,
            "cross_entropy": cross_entropy,
            "weight_decay": weight_decay,
            "generator": penalty - cross_entropy,
            "entropy_penalty": penalty,
        }

    def seen(self, images, labels):
        """What G sees [B, 32, 32, 9]: x, the gradient at x, and that at the image of FGSM, in units of [0, 1].

        Both gradients are of the mean cross-entropy over all replicas' images: G sees them as they are.
        """

        def cross_entropy(point, _):
            return tf.reduce_mean(attacks.cross_entropy(self.classifier(point).logits, labels)) / replicas.count()

        here = gradient_of(cross_entropy)(images, 0).gradient
        there = gradient_of(cross_entropy)(moved(images, tf.sign(here), self.options.epsilon), 0).gradient
        return tf.concat([images / 255, 255 * here, 255 * there], axis=3)

    def adversarial_images(self, images, labels, step):
        perturbation, _ = self.perturb(self.seen(images, labels), step, "frozen")
        return moved(images, perturbation, self.options.epsilon)


@register
class ADTExpAM(Amortized):
    """EXP-AM: G tells the distribution, and pays −λ · mean entropy of a sample."""

    name = "adt_expam"

    def __init__(self, classifier, options=None, seed=0):
        super().__init__(classifier, options, seed)
        options, policy = self.options, classifier.dtype_policy
        self.generator = DistributionAttacker(6, 0, options.generator_width, seed=seed + 1, dtype=policy)
        self.add("generator", self.generator, options.generator_learning_rate, beta1=0.5)

    def perturb(self, seen, step, batch_norm):
        distribution = self.generator(seen, batch_norm=batch_norm)
        perturbation, entropy = sample(distribution, self.noise(seen, step))
        return perturbation, -self.options.entropy_weight * tf.reduce_mean(entropy)

    def noise(self, seen, step):
        """Of the sample: see `normal`."""
        return normal(seen[..., :3], self.seed, step, 0)

    def histograms(self, images, labels, step):
        return moments(self.generator(self.seen(images, labels), batch_norm="frozen"), self.options.epsilon)


@register
class ADTImpAM(Amortized):
    """IMP-AM: G is fed noise z; how badly an encoder guesses z from the perturbation bounds the negative entropy."""

    name = "adt_impam"
    Options = ADTImpAMOptions

    def __init__(self, classifier, options=None, seed=0):
        super().__init__(classifier, options, seed)
        options, policy = self.options, classifier.dtype_policy
        self.generator = DistributionAttacker(3, LATENT, options.generator_width, seed=seed + 1, dtype=policy)
        self.encoder = LatentEncoder(LATENT, seed=seed + 3, dtype=policy)
        self.add("generator", self.generator, options.generator_learning_rate, beta1=0.5)
        self.add("encoder", self.encoder, options.encoder_learning_rate, beta1=0.9)

    def perturb(self, seen, step, batch_norm):
        latent = self.latent(seen, step)
        perturbation = tf.tanh(self.generator(seen, latent, batch_norm=batch_norm))
        mean, scale = tf.split(self.encoder(perturbation, batch_norm=batch_norm), 2, axis=1)
        variance = tf.nn.softplus(scale)
        surprise = (latent - mean) ** 2 / (2 * variance + TINY) + tf.math.log(variance + TINY) / 2
        excess = tf.reduce_mean(surprise) + math.log(2 * math.pi) / 2 - self.options.entropy_threshold
        paid = replicas.mean(excess) > 0  # by all images together
        return perturbation, self.options.entropy_weight * tf.where(paid, excess, 0)

    def latent(self, seen, step):
        """z, uniform in ±1, [B, 64]."""
        shape = [tf.shape(seen)[0], LATENT]
        return replicas.draw(randomness.uniform, shape, draw_seed(self.seed, step, "latent"), -1, 1, seen.dtype)

    def histograms(self, images, labels, step):
        perturbation, _ = self.perturb(self.seen(images, labels), step, "frozen")
        return {"distribution/perturbation": self.options.epsilon * perturbation}
