"""The MultiTargeted attack: PGD toward each class in turn, on the difference of two logits.

Gowal et al., "An alternative surrogate loss for PGD-based adversarial testing", 2019: where cross-entropy follows the
nearest class alone and may be caught in front of it, z_t − z_y is climbed for every class t. Here L∞, sign steps of
`--step_size`, 100 of them from a random start toward each of the nine classes with the next largest logits.
"""

import functools

import tensorflow as tf

from madry_cifar.attacks import restarts as attempts
from madry_cifar.attacks.registry import Attack, linf, register
from madry_cifar.attacks.steps import random_start, sign_steps

STEPS = 100
TARGETS = 9


def multitargeted(model, images, labels, seed, *, epsilon, step_size, restarts):
    """[B, H, W, C]: of each image the first attempt's result that the model gets wrong, or else the last one's."""
    classes = attempts.ranked(model, images, labels, TARGETS)

    def attempt(number, rows):
        target, true = tf.gather(classes[:, number // restarts], rows), tf.gather(labels, rows)

        def advance(adversarial):
            logits = model(adversarial, batch_norm="eval").logits
            return tf.gather(logits, target, batch_dims=1) - tf.gather(logits, true, batch_dims=1)

        start = random_start(images, epsilon, attempts.reseeded(seed, number))
        around, start = tf.gather(images, rows), tf.gather(start, rows)
        return sign_steps(advance, around, start, epsilon=epsilon, step_size=step_size, steps=STEPS)

    return attempts.first_error(model, images, labels, attempt, classes.shape[1] * restarts)


@register("multitargeted", "multitargeted", restarts=True)
def _named(match, sizes):
    settings = sizes._asdict()
    protocol = linf(
        **settings, loss="logit difference", steps=STEPS, targets=TARGETS, random_start=True, stops_at_error=True
    )
    return Attack("multitargeted", functools.partial(multitargeted, **settings), protocol)
