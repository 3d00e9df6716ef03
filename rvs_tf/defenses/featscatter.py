"""Feature Scattering (Zhang and Wang, NeurIPS 2019): perturbed batches far from the natural one, by optimal transport.

Released code: Haichao-Zhang/FeatureScatter `attack_methods.py`, `ot.py`. The paper speaks of features; the code takes
logits.
"""

import dataclasses

import tensorflow as tf

from madry_cifar import attacks, replicas
from madry_cifar.cli.errors import UsageError
from madry_cifar.training.method import OnExamples
from madry_cifar.training.options import Options, option
from madry_cifar.training.registry import register
from rvs_tf.labels import smooth_labels
from sinkhorn_tf import sinkhorn_distance


class FeatScatterOptions(Options):
    """Defaults: the attack and labels of the released script; its network and schedule are in the original presets."""

    epsilon: float = option(8.0, "radius of the L∞ ball, in grey levels of 255", minimum=0, kind="radius")
    attack_steps: int = option(1, "steps of the attack trained on", minimum=1)
    attack_step_size: float = option(8.0, "size of such a step, in grey levels", minimum=0, kind="step")
    label_smoothing: float = option(0.5, "share of the label given to the wrong classes", minimum=0, maximum=1)
    scattered: str = option(
        "logits", "what is moved apart: logits (released code) or features (paper)", choices=("logits", "features")
    )
    sinkhorn_regularization: float = option(0.01, "of the optimal transport distance", minimum=1e-6)
    sinkhorn_iterations: int = option(100, "of the optimal transport distance, at most", minimum=1)
    sinkhorn_threshold: float = option(
        0.1, "its last iteration is the first that changes the potential u by less, summed; 0: all", minimum=0
    )
    sinkhorn_floor: float = option(
        0.0, "added to its sums before their logarithm: 0 is exact, 1e-6 the released code's", minimum=0
    )
    statistics_every: int = option(
        0,
        "at every so many steps, the first of an epoch included, natural images move batch norm's running statistics "
        "too, as in the released script, which logs at every 10th; 0: never",
        minimum=0,
    )
    statistics_epoch: int = option(0, "steps of an epoch in this count; 0: those of the data set's", minimum=0)

    def in_steps(self, steps_per_epoch):
        epoch = self.statistics_epoch or (steps_per_epoch if self.statistics_every else 0)
        return dataclasses.replace(super().in_steps(steps_per_epoch), statistics_epoch=epoch)


@register
class FeatScatter(OnExamples):
    """Trains on one step that raises the transport distance, with cosine costs, from the natural batch; no labels."""

    name = "featscatter"
    Options = FeatScatterOptions

    def __init__(self, classifier, options=None, seed=0):
        super().__init__(classifier, options, seed)
        smoothing, classes = self.options.label_smoothing, classifier.num_classes
        if smoothing >= (classes - 1) / classes:
            raise UsageError(
                "label_smoothing",
                smoothing,
                f"must be below {(classes - 1) / classes:.2g}, or the true "
                f"one of {classes} classes is not ahead of the others",
            )

    def train_step(self, images, labels, step):
        losses = super().train_step(images, labels, step)
        if every := self.options.statistics_every:
            number = step % (self.options.statistics_epoch or self.options.steps)
            self.classifier(images, batch_norm="train", updates=tf.cast(number % every == 0, images.dtype))
        return losses

    def examples(self, images, labels, step):
        natural = replicas.gather(self._scattered(images))
        perturbed = attacks.sign_steps(
            lambda images: self.distance(natural, replicas.gather(self._scattered(images))),
            images,
            attacks.noisy(images, self.options.epsilon, self.start_draws(step)),
            epsilon=self.options.epsilon,
            step_size=self.options.attack_step_size,
            steps=self.options.attack_steps,
        )
        smoothing, dtype = self.options.label_smoothing, self.classifier.variable_dtype
        return perturbed, smooth_labels(labels, self.classifier.num_classes, smoothing, dtype)

    def distance(self, natural, perturbed):
        """The transport distance between two batches of logits or features, of all replicas."""
        return sinkhorn_distance(
            natural,
            perturbed,
            cost="cosine",
            regularization=self.options.sinkhorn_regularization,
            iterations=self.options.sinkhorn_iterations,
            threshold=self.options.sinkhorn_threshold,
            floor=self.options.sinkhorn_floor,
        )

    def _scattered(self, images):
        return getattr(self.classifier(images), self.options.scattered)
