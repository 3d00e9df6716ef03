"""Projected gradient descent, its margin-loss variant ("CW") and the fast gradient sign method, in the L∞ ball.

Pixels, ε and step sizes are in grey levels, [0, 255]. Released code: MadryLab/cifar10_challenge `pgd_attack.py`,
RvS `eval_pgd_attack.py`; in both "CW" is this loop with the margin loss, not Carlini and Wagner's own optimisation.
"""

import functools

import tensorflow as tf

from madry_cifar.attacks import restarts as attempts
from madry_cifar.attacks.losses import LOSSES
from madry_cifar.attacks.registry import Attack, linf, register
from madry_cifar.attacks.steps import number as _number
from madry_cifar.attacks.steps import random_start, sign_steps


def pgd(
    model,
    images,
    labels,
    *,
    epsilon=8.0,
    step_size=2.0,
    steps=20,
    loss="xent",
    random_start=True,
    seed=(0, 0),
    batch_norm="eval",
) -> tf.Tensor:
    """Projected gradient descent in the L∞ ball, one start, last iterate (the paper's PGD-n; CW-n with loss="cw").

    Called outside a `tf.function` it compiles itself, once per model, batch shape, loss and batch-norm mode.

    Args:
      model: called as `model(images, batch_norm=…)`, returns `.logits` [B, K].
      images: [B, H, W, C] pixels in [0, 255].
      labels: [B] true classes.
      epsilon: radius of the ball.
      step_size: of one step.
      steps: number of steps; 0 returns the start.
      loss: "xent" or "cw", or a function of logits [B, K] and labels [B] that returns [B], to be maximised.
      random_start: start from a uniform draw in the ball, else from the image.
      seed: two integers; the same ones give the same start. Or three for each image, [B, 3]: the two of a batch of B
        images and the image's row in it, to start as it would there.
      batch_norm: the mode in which the model is attacked; "eval" for evaluation.

    Returns:
      Adversarial images, [B, H, W, C], in the images' floating type (float32 for integers), not rounded.

    Raises:
      ValueError: for an unknown loss, or a radius, step or number of steps below zero.
    """
    if not callable(loss) and loss not in LOSSES:
        raise ValueError(f"loss must be one of {sorted(LOSSES)} or a function. Received: loss={loss!r}")
    for name, value in (("epsilon", epsilon), ("step_size", step_size), ("steps", steps)):
        if not tf.is_tensor(value) and not value >= 0:
            raise ValueError(f"{name} must be at least 0. Received: {name}={value}")
    images, labels = tf.convert_to_tensor(images), tf.convert_to_tensor(labels)
    if not images.dtype.is_floating:
        images = tf.cast(images, tf.float32)
    run = _compiled_pgd if tf.executing_eagerly() else _pgd
    numbers = (_number(epsilon, images.dtype), _number(step_size, images.dtype), _number(steps, tf.int32))
    return run(model, images, labels, *numbers, loss, random_start, tf.cast(seed, tf.int64), batch_norm)


def _pgd(model, images, labels, epsilon, step_size, steps, loss, random, seed, batch_norm):
    function = LOSSES.get(loss, loss)
    start = random_start(images, epsilon, seed) if random else images
    return sign_steps(
        lambda adversarial: function(model(adversarial, batch_norm=batch_norm).logits, labels),
        images,
        start,
        epsilon=epsilon,
        step_size=step_size,
        steps=steps,
    )


_compiled_pgd = tf.function(_pgd, autograph=False)


def fgsm(model, images, labels, *, epsilon=8.0, random_start=False, seed=(0, 0), batch_norm="eval") -> tf.Tensor:
    """The fast gradient sign method: one step of ε from the image or, as some papers have it, from a random start.

    Arguments, result and errors as in `pgd`.
    """
    return pgd(
        model,
        images,
        labels,
        epsilon=epsilon,
        step_size=epsilon,
        steps=1,
        random_start=random_start,
        seed=seed,
        batch_norm=batch_norm,
    )


def _run_natural(model, images, labels, seed):
    return images


def _run_fgsm(model, images, labels, seed, **settings):
    return fgsm(model, images, labels, seed=seed, **settings)


def _run_pgd(model, images, labels, seed, **settings):
    return pgd(model, images, labels, seed=seed, **settings)


def _run_restarted(model, images, labels, seed, restarts, epsilon, step_size, steps, loss):
    """PGD from several random starts, until the model is wrong."""

    def attempt(number, rows):
        start = random_start(images, epsilon, attempts.reseeded(seed, number))
        true = tf.gather(labels, rows)
        return sign_steps(
            lambda adversarial: LOSSES[loss](model(adversarial, batch_norm="eval").logits, true),
            tf.gather(images, rows),
            tf.gather(start, rows),
            epsilon=epsilon,
            step_size=step_size,
            steps=steps,
        )

    return attempts.first_error(model, images, labels, attempt, restarts)


@register("natural", "natural")
def _natural(match, sizes):
    return Attack("natural", _run_natural, {})


@register("fgsm(-rs)?", "fgsm", "fgsm-rs")
def _fgsm(match, sizes):
    settings = {"epsilon": sizes.epsilon, "random_start": bool(match[1])}
    protocol = linf(**settings, loss="xent", steps=1, step_size=sizes.epsilon)
    return Attack(match[0], functools.partial(_run_fgsm, **settings), protocol)


@register(r"(pgd|cw)-([1-9]\d*)", "pgd-7", "pgd-20", "pgd-100", "pgd-100x10", "cw-20", "cw-100", restarts=True)
def _steps(match, sizes):
    loss = {"pgd": "xent", "cw": "cw"}[match[1]]
    settings = {"epsilon": sizes.epsilon, "step_size": sizes.step_size, "steps": int(match[2]), "loss": loss}
    protocol = linf(**settings, random_start=True)
    if sizes.restarts == 1:
        return Attack(match[0], functools.partial(_run_pgd, **settings), protocol)
    run = functools.partial(_run_restarted, restarts=sizes.restarts, **settings)
    return Attack(match[0], run, protocol | {"restarts": sizes.restarts, "stops_at_error": True})
