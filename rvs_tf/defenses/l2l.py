"""L2L (Jiang et al., AISTATS 2021): a network learns to attack the classifier that is trained on its images.

Released code: YuyangShi/Learning-to-Defend-by-Learning-to-Attack `train_l2l_*_cifar10.py`.
"""

from collections.abc import Callable

import tensorflow as tf

from madry_cifar import attacks, replicas
from madry_cifar.attacks.steps import PIXEL_RANGE, gradient_of
from madry_cifar.cli.errors import UsageError
from madry_cifar.training.method import WEIGHT_DECAY, Defense
from madry_cifar.training.optimizers import PiecewiseConstant, PyTorchAdam
from madry_cifar.training.options import Options, option
from madry_cifar.training.registry import register
from rvs_tf.attackers import WideAttacker
from rvs_tf.defenses.adv_interp import reversed_batch
from rvs_tf.labels import interpolation_labels


class L2LOptions(Options):
    """Defaults: ε = 8 (the released code has 0.031 of 1, that is 7.905) and the released attacker's optimizer."""

    epsilon: float = option(8.0, "radius of the L∞ ball, in grey levels of 255", minimum=0, kind="radius")
    attacker_gradient: bool = option(True, "the attacker sees the gradient at the image too (off: naive L2L)")
    attacker_steps: int = option(1, "calls of the attacker, each at the image that it made; 2: two-step L2L", minimum=1)
    attacker_learning_rate: float = option(1e-3, "of the attacker's Adam, constant", minimum=0)
    attacker_weight_decay: float = option(2e-4, "of the attacker, added to its gradients", minimum=0)
    attacker_width: int = option(64, "channels of the attacker's first layer", minimum=1)
    attacker_batch_norm: str = option(
        "train",
        "batch norm in the attacker's own update: train, or first: its running statistics from the second step on "
        "(released script of two steps with interpolation)",
        choices=("train", "first"),
    )
    interpolation: bool = option(
        False, "the attacker moves features towards those of another image, as Adv-interp does, with its labels"
    )
    label_share: float = option(
        0.5, "with --interpolation, ε_y: share of the label to all classes but the partner's", minimum=0, maximum=1
    )

    def __post_init__(self):
        super().__post_init__()
        if not self.interpolation and self.label_share != type(self).label_share:
            raise UsageError("label_share", self.label_share, "has no effect without --interpolation")


LOSSES = {
    "total": "What the classifier minimises: cross-entropy and weight decay.",
    "cross_entropy": "Of the images that the attacker makes.",
    "weight_decay": WEIGHT_DECAY,
    "attacker": "What the attacker minimises: the negative cross-entropy, or (interpolation) the distance of features.",
}


@register
class L2L(Defense):
    """The classifier minimises, the attacker A maximises the cross-entropy of x + ε·A(x, ∇ₓ), one after the other.

    With interpolation A comes first, and minimises the distance of features to a partner's in place of it.
    """

    name = "l2l"
    Options = L2LOptions
    losses = LOSSES

    def __init__(self, classifier, options=None, seed=0):
        super().__init__(classifier, options, seed)
        options = self.options
        channels = 6 if options.attacker_gradient else 3
        policy = classifier.dtype_policy
        self.attacker = WideAttacker(channels, options.attacker_width, seed=seed + 1, dtype=policy)
        self.networks["attacker"] = self.attacker
        self.optimizers["attacker"] = PyTorchAdam(
            [variable.value for variable in self.attacker.trainable_variables],
            PiecewiseConstant([options.attacker_learning_rate]),
            weight_decay=options.attacker_weight_decay,
        )

    def train_step(self, images, labels, step):
        return (self._interpolated if self.options.interpolation else self._plain)(images, labels, step)

    def _plain(self, images, labels, step):
        adversarial = self.perturb(images, images, self._cross_entropy(labels, "train"), "eval")
        losses = self._classifier_update(adversarial, labels, step)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self.optimizers["attacker"].variables)
            cross_entropy = self._cross_entropy(labels, "eval")
            attacker_loss = -cross_entropy(self.perturb(images, images, cross_entropy, self._own_mode(step)))
        self.minimize("attacker", attacker_loss, tape, step)
        return losses | {"attacker": attacker_loss}

    def _interpolated(self, images, labels, step):
        partners, partner_labels = reversed_batch(images), reversed_batch(labels)
        start = attacks.noisy(images, self.options.epsilon, self.start_draws(step))
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self.optimizers["attacker"].variables)
            distance = self._distance(partners)
            adversarial = self.perturb(images, start, distance, self._own_mode(step))
            attacker_loss = distance(adversarial)
        self.minimize("attacker", attacker_loss, tape, step)
        classes, dtype = self.classifier.num_classes, self.classifier.variable_dtype
        targets = interpolation_labels(labels, partner_labels, classes, self.options.label_share, dtype)
        return self._classifier_update(adversarial, targets, step) | {"attacker": attacker_loss}

    def _classifier_update(self, images, labels, step):
        with tf.GradientTape() as tape:
            cross_entropy = self._cross_entropy(labels, "train")(tf.stop_gradient(images))
            weight_decay = self.weight_decay()
            total = cross_entropy + weight_decay
        self.minimize("classifier", total, tape, step)
        return {"total": total, "cross_entropy": cross_entropy, "weight_decay": weight_decay}

    def perturb(self, images, start, objective: Callable[[tf.Tensor], tf.Tensor], batch_norm):
        """What A makes of `images` [B, 32, 32, 3] from `start` on: x̃.

        Gradients flow through its calls and through the images that it gets; the gradients that it sees are constants.

        Args:
          objective: of images, the mean whose gradient A sees.
          batch_norm: of A; see `_own_mode`.
        """
        epsilon, point, moved = self.options.epsilon, start, 0.0
        for number in range(self.options.attacker_steps):
            move = epsilon * self._attacker(point, objective, batch_norm)
            if not self.options.interpolation:
                moved = tf.clip_by_value(moved + move, -epsilon, epsilon)
                point = images + moved
            elif number < self.options.attacker_steps - 1:
                point += move
            else:
                point = tf.clip_by_value(point + move, images - epsilon, images + epsilon)
            point = tf.clip_by_value(point, *PIXEL_RANGE)
        return point

    def _attacker(self, images, objective, batch_norm):
        """A's answer to images, in units of ε."""
        inputs = images / 255
        if self.options.attacker_gradient:
            gradient = gradient_of(lambda point, _: objective(point))(tf.stop_gradient(images), 0).gradient
            largest = tf.reduce_max(replicas.gather(tf.reduce_max(tf.abs(gradient))[tf.newaxis]))
            inputs = tf.concat([inputs, tf.math.divide_no_nan(gradient, largest)], axis=3)
        if isinstance(batch_norm, str):
            return self.attacker(inputs, batch_norm=batch_norm)
        return tf.cond(
            batch_norm,
            lambda: self.attacker(inputs, batch_norm="train"),
            lambda: self.attacker(inputs, batch_norm="eval"),
        )

    def _own_mode(self, step):
        """A's batch norm in its own update: a mode, or whether it is "train"."""
        return "train" if self.options.attacker_batch_norm == "train" else step == 0

    def _cross_entropy(self, labels, batch_norm):
        def objective(images):
            logits = self.classifier(images, batch_norm=batch_norm).logits
            return tf.reduce_mean(attacks.cross_entropy(logits, labels))

        return objective

    def _distance(self, partners):
        """Of images, the mean cosine distance of their features to those of `partners`."""

        def normalized(images):
            return tf.math.l2_normalize(self.classifier(images).features, axis=1, epsilon=1e-12)

        aim = normalized(partners)
        return lambda images: tf.reduce_mean(tf.nn.relu(1 - tf.reduce_sum(normalized(images) * aim, axis=1)))

    def adversarial_images(self, images, labels, step):
        if not self.options.interpolation:
            return self.perturb(images, images, self._cross_entropy(labels, "eval"), "eval")
        start = attacks.noisy(images, self.options.epsilon, self.start_draws(step))
        return self.perturb(images, start, self._distance(reversed_batch(images)), "eval")
