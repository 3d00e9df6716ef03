"""Adversarial vertex mixup, AVmixup (Lee et al., CVPR 2020): images between the natural ones and beyond the attack's.

Released code: Saehyung-Lee/cifar10_challenge `pgd_attack.py`, `train.py`.
"""

import tensorflow as tf

from madry_cifar import replicas
from madry_cifar.attacks.steps import PIXEL_RANGE
from madry_cifar.cli.errors import UsageError
from madry_cifar.cli.settings import option
from madry_cifar.randomness import draw_seed, uniform
from madry_cifar.training.adversarial import AdversarialTraining, AdversarialTrainingOptions
from madry_cifar.training.registry import register
from rvs_tf.labels import vertex_labels


class AdvVertexOptions(AdversarialTrainingOptions):
    """Defaults: the settings of the released configuration."""

    attack_steps: int = option(10, "steps of the PGD attack trained on", minimum=0)
    attack_batch_norm: str = option(
        "frozen",
        "batch norm while attacking: frozen (batch statistics, none updated, as released), train or eval (as for AT)",
        choices=("train", "frozen", "eval"),
    )
    vertex_scale: float = option(2.0, "γ: how far the vertex is, in lengths of the attack's perturbation", minimum=0)
    lambda1: float = option(1.0, "share of the true class in a natural image's label", minimum=0, maximum=1)
    lambda2: float = option(0.1, "share of the true class in a vertex's label", minimum=0, maximum=1)


@register
class AdvVertex(AdversarialTraining):
    """Trains on α·x + (1 − α)·(x + γ·(x_pgd − x)), α ~ U(0, 1) an image, with labels interpolated as the images are."""

    name = "adv_vertex"
    Options = AdvVertexOptions

    def __init__(self, classifier, options=None, seed=0):
        super().__init__(classifier, options, seed)
        for name in ("lambda1", "lambda2"):
            kept, classes = getattr(self.options, name), classifier.num_classes
            if kept < 1 / classes:
                raise UsageError(
                    name,
                    kept,
                    f"must be at least {1 / classes:.2g}, or the true one of {classes} "
                    "classes gets less than the others",
                )

    def examples(self, images, labels, step):
        return self._mixed(images, labels, step, self.options.attack_batch_norm)

    def adversarial_images(self, images, labels, step):
        mode = self.options.attack_batch_norm
        return self._mixed(images, labels, step, "frozen" if mode == "train" else mode)[0]

    def _mixed(self, images, labels, step, batch_norm):
        attacked = self.attack(images, labels, step, batch_norm)
        vertex = tf.clip_by_value(images + self.options.vertex_scale * (attacked - images), *PIXEL_RANGE)
        seed = draw_seed(self.seed, step, "interpolation")
        share = replicas.draw(uniform, tf.shape(labels), seed, 0, 1, images.dtype)
        weight = share[:, tf.newaxis, tf.newaxis, tf.newaxis]
        lambdas = self.options.lambda1, self.options.lambda2
        soft_labels = vertex_labels(labels, share, self.classifier.num_classes, *lambdas)
        return weight * images + (1 - weight) * vertex, soft_labels
