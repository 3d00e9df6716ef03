"""GAT (Lee, Han and Lee, arXiv 1705.03387): a generator makes perturbations from each image's gradient.

Its authors' code is not public. This is what abstract and figure of their paper say; docs/fidelity.md has what is ours.
"""

import tensorflow as tf

from madry_cifar import attacks
from madry_cifar.attacks.losses import is_true
from madry_cifar.attacks.steps import PIXEL_RANGE, gradient_of, per_image
from madry_cifar.cli.errors import UsageError
from madry_cifar.training.method import WEIGHT_DECAY, Defense
from madry_cifar.training.optimizers import PiecewiseConstant, PyTorchAdam
from madry_cifar.training.options import Options, option
from madry_cifar.training.registry import register
from rvs_tf.attackers import PlainAttacker


class GATOptions(Options):
    """Defaults: `bounded`, which is ours, with what little is known of the rest.

    Raises UsageError for an ε of a perturbation without bound.
    """

    perturbation: str = option(
        "bounded",
        "bounded: ε·G, in the L∞ ball of the others; free: G itself, up to 255 grey levels, as published",
        choices=("bounded", "free"),
    )
    epsilon: float = option(8.0, "radius of the L∞ ball, in grey levels of 255", minimum=0, kind="radius")
    generator_updates: int = option(1, "of the generator in a step", minimum=1)
    generator_learning_rate: float = option(2e-4, "of the generator's Adam, constant", minimum=0)
    generator_width: int = option(48, "channels of the generator's first layer", minimum=1)
    penalty_weight: float = option(
        0.03, "c of the perturbation's squared norm in the generator's loss, for pixels in [0, 1]", minimum=0
    )
    natural_weight: float = option(
        0.5, "α of the natural cross-entropy in the classifier's loss; 1 - α is the other's", minimum=0, maximum=1
    )
    normalized_gradient: bool = option(
        True, "divide what the generator sees by its largest value in each image; off: for pixels in [0, 1], as it is"
    )

    def __post_init__(self):
        super().__post_init__()
        if self.perturbation == "free" and self.epsilon != type(self).epsilon:
            raise UsageError("epsilon", f"{self.epsilon:g}", "has no effect with --perturbation=free")


LOSSES = {
    "total": "What the classifier minimises: α · natural + (1 - α) · perturbed + weight decay.",
    "natural": "Cross-entropy of the natural images.",
    "perturbed": "Cross-entropy of the images that the generator makes, after its update.",
    "weight_decay": WEIGHT_DECAY,
    "generator": "What the generator minimised in its last update: mean probability of the true class + penalty.",
    "penalty": "Of that, c times the mean squared norm of a perturbation.",
}


@register
class GAT(Defense):
    """G(Δ), Δ the gradient of f's probability of an image's own class, lowers that probability of x + G(Δ)."""

    name = "gat"
    Options = GATOptions
    losses = LOSSES

    def __init__(self, classifier, options=None, seed=0):
        super().__init__(classifier, options, seed)
        options = self.options
        self.generator = PlainAttacker(options.generator_width, seed=seed + 1, dtype=classifier.dtype_policy)
        self.networks["generator"] = self.generator
        self.optimizers["generator"] = PyTorchAdam(
            [variable.value for variable in self.generator.trainable_variables],
            PiecewiseConstant([options.generator_learning_rate]),
            beta1=0.5,
        )

    def train_step(self, images, labels, step):
        options, gradient = self.options, self.gradient(images, labels)
        for _ in range(options.generator_updates):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(self.optimizers["generator"].variables)
                perturbation = self.perturbation(gradient, "train")
                probability = tf.sigmoid(self.lead(moved(images, perturbation), labels))
                norms = tf.reduce_sum(tf.square(perturbation / 255), axis=[1, 2, 3])
                penalty = options.penalty_weight * tf.reduce_mean(norms)
                generator_loss = tf.reduce_mean(probability) + penalty
            self.minimize("generator", generator_loss, tape, step)

        perturbed_images = moved(images, self.perturbation(gradient))
        with tf.GradientTape() as tape:
            natural, perturbed = (
                tf.reduce_mean(attacks.cross_entropy(self.classifier(each, batch_norm="train").logits, labels))
                for each in (images, perturbed_images)
            )
            weight_decay = self.weight_decay()
            total = options.natural_weight * natural + (1 - options.natural_weight) * perturbed + weight_decay
        self.minimize("classifier", total, tape, step)
        return {
            "total": total,
            "natural": natural,
            "perturbed": perturbed,
            "weight_decay": weight_decay,
            "generator": generator_loss,
            "penalty": penalty,
        }

    def gradient(self, images, labels):
        """Δ [B, 32, 32, 3]: of each image's own probability p of its class, for pixels in [0, 1].

        p is the sigmoid of how far that class leads, so Δ is p·(1 - p) times the gradient of this lead, which does not
        vanish where p is 1 in float32.
        """

        def lead(point, _):
            leads = self.lead(point, labels)
            return leads, leads

        _, gradient, leads = gradient_of(lead)(images, 0)
        if self.options.normalized_gradient:
            return tf.math.divide_no_nan(gradient, tf.reduce_max(tf.abs(gradient), axis=[1, 2, 3], keepdims=True))
        return 255 * per_image(tf.sigmoid(leads) * tf.sigmoid(-leads)) * gradient

    def lead(self, images, labels):
        """ln p/(1 - p) [B] of the probability p of each image's class: its logit less the logsumexp of the others."""
        logits = self.classifier(images).logits
        mask = is_true(labels, logits)
        others = tf.reduce_logsumexp(tf.where(mask, logits.dtype.min, logits), axis=1)
        return tf.reduce_sum(tf.where(mask, logits, 0), axis=1) - others

    @property
    def perturbation_bound(self):
        return self.options.epsilon if self.options.perturbation == "bounded" else None

    def perturbation(self, gradient, batch_norm: str = "frozen"):
        """In grey levels, from Δ; `batch_norm` of the generator."""
        size = 255 if self.perturbation_bound is None else self.perturbation_bound
        return size * self.generator(gradient, batch_norm=batch_norm)

    def adversarial_images(self, images, labels, step):
        return moved(images, self.perturbation(self.gradient(images, labels)))


def moved(images, perturbation):
    """Images moved by a perturbation, in the range of pixels."""
    return tf.clip_by_value(images + perturbation, *PIXEL_RANGE)
