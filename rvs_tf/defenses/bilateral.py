"""Bilateral adversarial training (Wang and Zhang, ICCV 2019): images and labels are both perturbed.

Released code: wjyouch/bilateral-adversarial-training `train.py`, `utils.py`. The row of Table II is its R-MC-LA: random
start, most confusing target, label adversary, one step of ε.
"""

import tensorflow as tf

from madry_cifar import attacks, replicas
from madry_cifar.attacks.losses import is_true
from madry_cifar.networks.wide_resnet import Outputs
from madry_cifar.randomness import draw_seed, uniform
from madry_cifar.training.method import OnExamples
from madry_cifar.training.options import Options, option
from madry_cifar.training.registry import register
from rvs_tf.labels import bilateral_labels


class BilateralOptions(Options):
    """The defaults of the released code, seven steps of 2; R-MC-LA (8) is `attack_steps=1, attack_step_size=8`."""

    epsilon: float = option(8.0, "radius of the L∞ ball, in grey levels of 255", minimum=0, kind="radius")
    attack_steps: int = option(7, "steps of the attack trained on", minimum=1)
    attack_step_size: float = option(2.0, "size of such a step, in grey levels", minimum=0, kind="step")
    target: str = option(
        "mc",
        "the wrong class that the attack moves to: mc (most confusing: the largest logit), mosa (the nearest boundary, "
        "linearly), mix (mosa where the image is classified rightly, else mc) or random",
        choices=("mc", "mosa", "mix", "random"),
    )
    label_ratio: float = option(9.0, "β: the true class's label over the largest wrong one", minimum=1)
    label_gamma: float = option(0.01, "γ: what the most likely wrong class gets, before scaling", minimum=1e-6)


@register
class Bilateral(OnExamples):
    """Steps towards a wrong class, on labels that give most to the least likely of the wrong classes."""

    name = "bilateral"
    Options = BilateralOptions

    def examples(self, images, labels, step):
        natural = self.classifier(images)
        targets = self.targets(natural, labels, step)
        perturbed = attacks.sign_steps(
            lambda images: -attacks.cross_entropy(self.classifier(images).logits, targets),
            images,
            attacks.noisy(images, self.options.epsilon, self.start_draws(step)),
            epsilon=self.options.epsilon,
            step_size=self.options.attack_step_size,
            steps=self.options.attack_steps,
        )
        ratio, gamma = self.options.label_ratio, self.options.label_gamma
        return perturbed, bilateral_labels(tf.nn.softmax(natural.logits), labels, ratio=ratio, gamma=gamma)

    def targets(self, natural: Outputs, labels, step) -> tf.Tensor:
        """The wrong class [B] that each image is moved to."""
        logits, rule = natural.logits, self.options.target
        if rule == "random":
            seed = draw_seed(self.seed, step, "target")
            shift = replicas.draw(uniform, tf.shape(labels), seed, 1, self.classifier.num_classes, labels.dtype)
            return (labels + shift) % self.classifier.num_classes
        true = is_true(labels, logits)
        most_confusing = tf.argmax(tf.where(true, logits.dtype.min, logits), axis=1, output_type=labels.dtype)
        if rule == "mc":
            return most_confusing
        lead = tf.gather(logits, labels, axis=1, batch_dims=1)[:, tf.newaxis] - logits
        columns = tf.transpose(self.classifier.logits.kernel.value)
        between = tf.norm(tf.gather(columns, labels)[:, tf.newaxis] - columns, axis=2)
        behind = lead > 1e-4
        distance = tf.where(behind, lead / tf.where(true, tf.ones_like(between), between), lead.dtype.max)
        nearest = tf.argmin(distance, axis=1, output_type=labels.dtype)
        use_nearest = tf.reduce_any(behind, axis=1)
        if rule == "mix":
            use_nearest &= tf.argmax(logits, axis=1, output_type=labels.dtype) == labels
        return tf.where(use_nearest, nearest, most_confusing)
