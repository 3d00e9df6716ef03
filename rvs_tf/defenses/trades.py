"""TRADES (Zhang et al., ICML 2019): accuracy on natural images, and outputs that do not change around them.

Released code: yaodongyu/TRADES `trades.py`. In the text of the RvS paper; its Table II has no row of it.
"""

import tensorflow as tf

from madry_cifar import attacks, replicas
from madry_cifar.randomness import draw_seed, normal
from madry_cifar.training.method import WEIGHT_DECAY, Defense
from madry_cifar.training.options import Options, option
from madry_cifar.training.registry import register
from rvs_tf.losses import kl_divergence

START = 0.255  # standard deviation of the attack's start in grey levels; 0.001 where pixels are in [0, 1]


class TradesOptions(Options):
    """Defaults: ε = 8 and steps of 2; the released code has 0.031 and 0.007 of 1, that is 7.905 and 1.785."""

    epsilon: float = option(8.0, "radius of the L∞ ball, in grey levels of 255", minimum=0, kind="radius")
    attack_steps: int = option(10, "steps of the PGD attack trained on", minimum=1)
    attack_step_size: float = option(2.0, "size of such a step, in grey levels", minimum=0, kind="step")
    beta: float = option(6.0, "factor of the divergence between natural and perturbed outputs", minimum=0)
    clean_passes: int = option(
        2, "natural passes of a step, which move batch norm's statistics: 2 (released code) or 1", choices=(1, 2)
    )


LOSSES = {
    "total": "What the classifier minimises: cross-entropy, β times the divergence, weight decay.",
    "cross_entropy": "Of the natural images.",
    "divergence": "Mean KL(f(x) ‖ f(x')), from natural to perturbed outputs.",
    "weight_decay": WEIGHT_DECAY,
}


@register
class Trades(Defense):
    """CE(f(x), y) + β·KL(f(x) ‖ f(x')), with x' where that divergence is largest; labels have no part in x'."""

    name = "trades"
    Options = TradesOptions
    losses = LOSSES

    def train_step(self, images, labels, step):
        perturbed_images = self.adversarial_images(images, labels, step)
        with tf.GradientTape() as tape:
            natural = self.classifier(images, batch_norm="train").logits
            perturbed = self.classifier(perturbed_images, batch_norm="train").logits
            cross_entropy = tf.reduce_mean(attacks.cross_entropy(natural, labels))
            divergence = tf.reduce_mean(kl_divergence(natural, perturbed))
            weight_decay = self.weight_decay()
            total = cross_entropy + self.options.beta * divergence + weight_decay
        if self.options.clean_passes == 2:
            self.classifier(images, batch_norm="train")  # the divergence's own natural pass: the same logits again
        self.minimize("classifier", total, tape, step)
        return {
            "total": total,
            "cross_entropy": cross_entropy,
            "divergence": divergence,
            "weight_decay": weight_decay,
        }

    def adversarial_images(self, images, labels, step):
        natural = self.classifier(images).logits
        noise = replicas.draw(normal, tf.shape(images), draw_seed(self.seed, step, "attack start"), images.dtype)
        return attacks.sign_steps(
            lambda perturbed: kl_divergence(natural, self.classifier(perturbed).logits),
            images,
            images + START * noise,
            epsilon=self.options.epsilon,
            step_size=self.options.attack_step_size,
            steps=self.options.attack_steps,
        )
