"""Adversarial interpolation (Zhang and Xu, 2019): images moved towards another's features, labels away from its class.

Released code: Adv-Interp/adv_interp `adv_interp.py`.
"""

import tensorflow as tf

from madry_cifar import attacks, replicas
from madry_cifar.cli.errors import UsageError
from madry_cifar.training.method import OnExamples
from madry_cifar.training.options import Options, option
from madry_cifar.training.registry import register
from rvs_tf.labels import interpolation_labels


class AdvInterpOptions(Options):
    """Defaults: the attack and labels of the released script; its network and schedule are in the original presets."""

    epsilon: float = option(8.0, "radius of the L∞ ball, in grey levels of 255", minimum=0, kind="radius")
    label_share: float = option(
        0.5, "ε_y: share of the label that goes to all classes but the partner's", minimum=0, maximum=1
    )


@register
class AdvInterp(OnExamples):
    """Trains on one step of ε that lowers the cosine distance of the features to those of a partner.

    The partner of an image is the one at its place in the reversed batch; in a batch of odd size the middle one is its
    own.
    """

    name = "adv_interp"
    Options = AdvInterpOptions

    def __init__(self, classifier, options=None, seed=0):
        super().__init__(classifier, options, seed)
        share, classes = self.options.label_share, classifier.num_classes
        if share >= (classes - 1) / classes:
            raise UsageError(
                "label_share",
                share,
                f"must be below {(classes - 1) / classes:.2g}, or the true one of "
                f"{classes} classes is not ahead of the others",
            )

    def examples(self, images, labels, step):
        partners, partner_labels = reversed_batch(images), reversed_batch(labels)
        aim = tf.math.l2_normalize(self._features(partners), axis=1)

        def closeness(images):
            features = tf.math.l2_normalize(self._features(images), axis=1)
            return -tf.nn.relu(1 - tf.reduce_sum(features * aim, axis=1))

        perturbed = attacks.sign_steps(
            closeness,
            images,
            attacks.noisy(images, self.options.epsilon, self.start_draws(step)),
            epsilon=self.options.epsilon,
            step_size=self.options.epsilon,
            steps=1,
        )
        share, dtype = self.options.label_share, self.classifier.variable_dtype
        classes = self.classifier.num_classes
        return perturbed, interpolation_labels(labels, partner_labels, classes, share, dtype)

    def _features(self, images):
        return self.classifier(images).features


def reversed_batch(batch: tf.Tensor) -> tf.Tensor:
    """The partners of a batch [B, …]: it in reversed order, over all replicas."""
    return replicas.own(replicas.gather(batch)[::-1])
