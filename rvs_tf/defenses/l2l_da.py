"""L2L-DA (Jang et al., ICCV 2019): a generator learns to attack in ten steps, in as many ways as its random vectors.

Released code: YunseokJANG/l2l-da `adv_defence/trainer.py`.
"""

import tensorflow as tf

from madry_cifar import attacks, replicas
from madry_cifar.attacks.steps import PIXEL_RANGE
from madry_cifar.cli.settings import like
from madry_cifar.randomness import draw_seed, normal
from madry_cifar.training.method import Defense
from madry_cifar.training.optimizers import Momentum, PiecewiseConstant
from madry_cifar.training.options import Options, option
from madry_cifar.training.registry import register
from rvs_tf.attackers import ConditionalUNet

STEP = 0.25  # of ε: the most that one step of the generator moves a pixel


class L2LDAOptions(Options):
    """Defaults: as released for CIFAR-10, but for the schedule, which is in the presets."""

    weight_decay: float = option(1e-5, "of both networks, added to their clipped gradients", minimum=0)
    weight_decay_on: str = like(Options, "weight_decay_on", default="all", choices=("all",))
    epsilon: float = option(8.0, "radius of the L∞ ball, in grey levels of 255", minimum=0, kind="radius")
    attacker_steps: int = option(10, "steps of the generator, through all of which it is trained", minimum=1)
    diversity_weight: float = option(0.5, "λ of the distance between images of two random vectors", minimum=0)
    generator_learning_rate: float = option(0.01, "of the generator, constant", minimum=0)
    generator_width: int = option(64, "channels of the generator's first layer", minimum=1)
    clip_norm: float = option(1.0, "largest norm of a network's gradients; larger ones are scaled to it", minimum=1e-6)


LOSSES = {
    "total": "What the classifier minimises: cross-entropy of natural and of both kinds of perturbed images.",
    "generator": "What the generator minimises: −(cross-entropy + λ · distance), summed over its steps.",
    "diversity": "How far the images of two random vectors are apart after the last step.",
}


@register
class L2LDA(Defense):
    """The generator G adds steps to a perturbation, seeing image, gradient, perturbation, class and z.

    It maximises the cross-entropy after every step, and how far the images of two z are apart; the classifier is
    trained on the images as they are and on both kinds of perturbed ones. It begins with a classifier that was trained
    on natural images.
    """

    name = "l2l_da"
    Options = L2LDAOptions
    losses = LOSSES
    starts_from = ("natural",)

    def __init__(self, classifier, options=None, seed=0):
        super().__init__(classifier, options, seed)
        sizes, policy = {"width": self.options.generator_width}, classifier.dtype_policy
        self.generator = ConditionalUNet(classifier.num_classes, **sizes, seed=seed + 1, dtype=policy)
        self.networks["generator"] = self.generator
        rate = PiecewiseConstant([self.options.generator_learning_rate])
        self.optimizers["generator"] = self.optimizer(self.generator, rate)

    def optimizer(self, network, schedule):
        variables = [variable.value for variable in network.trainable_variables]
        return Momentum(variables, schedule, self.options.momentum, weight_decay=self.options.weight_decay)

    def train_step(self, images, labels, step):
        options, latent = self.options, self.latent(images, step)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self.optimizers["generator"].variables)
            adversarial, objective, cross_entropies, diversities = self.rollout(images, labels, latent, "train", tape)
            diversity = options.diversity_weight * tf.add_n(diversities)
            generator_loss = -objective - diversity
        self.minimize("generator", generator_loss, tape, step, clip_norm=options.clip_norm)

        everything = tf.concat([images, tf.stop_gradient(adversarial)], axis=0)
        with tf.GradientTape() as tape:
            logits = self.classifier(everything, batch_norm="train").logits
            total = tf.reduce_mean(attacks.cross_entropy(logits, tf.tile(labels, [3])))
        self.minimize("classifier", total, tape, step, clip_norm=options.clip_norm)
        return {
            "total": total,
            "generator": -tf.add_n(cross_entropies) - diversity,
            "diversity": diversities[-1],
        }

    def latent(self, images, step):
        """z ~ N(0, I) for two perturbations of each image, [2B, latent_dim]."""
        shape = [tf.shape(images)[0], 2 * self.generator.latent_dim]
        pair = replicas.draw(normal, shape, draw_seed(self.seed, step, "latent"), images.dtype)
        return tf.concat(tf.split(pair, 2, axis=1), axis=0)

    def rollout(self, images, labels, latent, batch_norm: str, tape: tf.GradientTape):
        """Two perturbed versions of each image [2B, 32, 32, 3], and what the generator is paid for them.

        The classifier sees the image of each step once, for its cross-entropy and for its gradient there: the
        gradient that G gets next, and the one by which its loss depends on the image. The released code sees it twice.

        Args:
          latent: z [2B, latent_dim], the same in all steps.
          batch_norm: of the generator.
          tape: records the generator, and not the classifier.

        Returns:
          The images; a scalar with the gradient of the sum of the cross-entropies, but another value; that of each
          step; the diversity of each step.
        """
        options = self.options
        with tape.stop_recording():
            gradient, _ = self._gradient(images, labels)
        images, labels, gradient = (tf.concat([each, each], axis=0) for each in (images, labels, gradient))
        apart = tf.abs(tf.subtract(*tf.split(latent, 2)))
        apart = tf.reduce_mean(apart, axis=1) + 1e-8
        perturbation, objective, cross_entropies, diversities = tf.zeros_like(images), 0.0, [], []
        for _ in range(options.attacker_steps):
            inputs = tf.concat([images / 255, _normalized(gradient), perturbation / 255], axis=3)
            move = STEP * options.epsilon * self.generator(inputs, labels, latent, batch_norm=batch_norm)
            perturbation = tf.clip_by_value(perturbation + move, -options.epsilon, options.epsilon)
            adversarial = tf.clip_by_value(images + perturbation, *PIXEL_RANGE)
            with tape.stop_recording():
                gradient, cross_entropy = self._gradient(adversarial, labels)
            objective += tf.reduce_sum(gradient * adversarial)
            cross_entropies.append(cross_entropy)
            between = tf.abs(tf.subtract(*tf.split(adversarial, 2))) / 255
            diversities.append(tf.reduce_mean(tf.reduce_mean(between, axis=[1, 2, 3]) / apart))
        return adversarial, objective, cross_entropies, diversities

    def _gradient(self, images, labels):
        """Of the mean cross-entropy at images, and itself."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            cross_entropy = tf.reduce_mean(attacks.cross_entropy(self.classifier(images).logits, labels))
        return tape.gradient(cross_entropy, images), cross_entropy

    def adversarial_images(self, images, labels, step):
        tape = tf.GradientTape(watch_accessed_variables=False)
        with tape:
            adversarial, *_ = self.rollout(images, labels, self.latent(images, step), "eval", tape)
        return adversarial[: tf.shape(images)[0]]


def _normalized(gradient):
    """Divided by its norm in each channel of each image; 1e-15 is added to what the norm is of, in units of [0, 1]."""
    norm = tf.norm(gradient + 1e-15 / 255, axis=[1, 2], keepdims=True)
    return tf.math.divide_no_nan(gradient, norm)
