"""Projected gradient descent, its margin-loss variant ("CW") and the fast gradient sign method, in the L∞ ball.

Released code: MadryLab/cifar10_challenge `pgd_attack.py`, RvS `eval_pgd_attack.py`; in both "CW" is this loop with the
margin loss, not Carlini and Wagner's own optimisation (`carlini_wagner.py`).
"""

import functools
import warnings

import numpy as np
import tensorflow as tf

from madry_cifar.attacks.inputs import NO_GRADIENT, SAME, Inputs, admit, check_passes, has_gradient
from madry_cifar.attacks.losses import LOSSES
from madry_cifar.attacks.registry import Attack, linf, register
from madry_cifar.attacks.restarts import first_error, take
from madry_cifar.attacks.steps import averaged, climb, gradient_of, random_start, scalar
from madry_cifar.predictor import as_predictor
from madry_cifar.randomness import Draws


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
) -> tf.Tensor:
    """Projected gradient descent in the L∞ ball, one start, last iterate (the paper's PGD-n; CW-n with loss="cw").

    Called outside a `tf.function` it compiles itself, once per model, batch shape and loss.

    Example:
      >>> import madry_cifar, tensorflow as tf
      >>> network = madry_cifar.WideResNet(depth=10, width=1)
      >>> images, labels = tf.random.uniform([4, 32, 32, 3], 0, 255), tf.constant([3, 1, 4, 1])
      >>> adversarial = madry_cifar.attacks.pgd(network, images, labels, epsilon=8, step_size=2, steps=5)
      >>> bool(tf.reduce_max(tf.abs(adversarial - images)) <= 8.001)
      True

    Args:
      model: a `Predictor` or a network of this package, which is attacked as it is evaluated; or a Keras model or
        function that takes pixels in [0, 255] and returns logits (`rvs_tf.predictor` adapts others).
      images: [B, H, W, C] pixels in [0, 255], of any type of numbers.
      labels: true classes: integers [B] or [B, 1], or one-hot [B, K].
      epsilon: radius of the ball, in grey levels.
      step_size: of one step, in grey levels.
      steps: number of steps; 0 returns the start.
      loss: "xent" or "cw", or a function of logits [B, K] and labels [B] that returns [B], to be maximised.
      random_start: start from a uniform draw in the ball, else from the image.
      seed: two integers; the same ones give the same start.

    Returns:
      Adversarial images, [B, H, W, C], in the images' floating type (float32 for integers), not rounded.

    Raises:
      ValueError: for an unknown loss, a radius, step or number of steps below zero; or for a model, images or labels
        that would give a wrong number (see `inputs`; not within a `tf.function`).
    """
    if not callable(loss) and loss not in LOSSES:
        raise ValueError(f"loss must be one of {sorted(LOSSES)} or a function. Received: loss={loss!r}")
    for name, value in (("epsilon", epsilon), ("step_size", step_size), ("steps", steps)):
        if not tf.is_tensor(value) and not value >= 0:
            raise ValueError(f"{name} must be at least 0. Received: {name}={value}")
    run = functools.partial(_pgd, model)
    if tf.executing_eagerly():
        inputs = admit(model, images, labels)
        if not np.isfinite(inputs.logits).all():
            raise ValueError("the model's logits are not finite")
        run, images, labels = _compiled(model, inputs).attack, inputs.images, inputs.labels
    images, labels = tf.convert_to_tensor(images), tf.convert_to_tensor(labels)
    if not images.dtype.is_floating:
        images = tf.cast(images, tf.float32)
    numbers = (scalar(epsilon, images.dtype), scalar(step_size, images.dtype), scalar(steps, tf.int32))
    return run(images, labels, tf.cast(seed, tf.int64), *numbers, loss, random_start)


def _pgd(model, images, labels, seed, *args):
    return run_pgd(as_predictor(model), images, labels, Draws(seed).of(tf.shape(images)[0]), *args)


class _Compiled:
    """PGD on a model, compiled; and the model's logits, by which it shows whether the model is still the same one."""

    def __init__(self, inputs: Inputs):
        check_passes(inputs)
        if not has_gradient(inputs):
            warnings.warn(NO_GRADIENT, stacklevel=4)
        self.attack = tf.function(functools.partial(_pgd, inputs.predictor), autograph=False)
        self._logits = tf.function(lambda images: inputs.predictor(images).logits, autograph=False)
        self._logits(tf.constant(inputs.sample))  # compiled now, as long as the model is what it is

    def is_of(self, inputs: Inputs) -> bool:
        """Whether the model computes now what was compiled, and none of its Python attributes was replaced."""
        logits = self._logits(tf.constant(inputs.sample)).numpy()
        return np.allclose(logits, inputs.logits, rtol=0, atol=1e2 * SAME * np.abs(logits).max())


_LAST: dict[int, tuple[object, _Compiled]] = {}  # of the last few models, by id; they are held, so that ids are theirs


def _compiled(model, inputs):
    _, compiled = _LAST.pop(id(model), (None, None))
    if compiled is None or not compiled.is_of(inputs):
        compiled = _Compiled(inputs)
    _LAST[id(model)] = model, compiled
    if len(_LAST) > 4:
        del _LAST[next(iter(_LAST))]
    return compiled


def run_pgd(predictor, images, labels, draws, epsilon, step_size, steps, loss, is_random, eot=1):
    """PGD from one start, for an `Attack`; each step follows the mean gradient of `eot` draws of the predictor."""
    function, predict = LOSSES.get(loss, loss), predictor.differentiable()
    estimate = gradient_of(lambda point, number: function(predict(point, draws.query(number)).logits, labels))
    return climb(
        averaged(estimate, eot),
        images,
        random_start(images, epsilon, draws) if is_random else images,
        epsilon,
        step_size,
        steps,
    )


def run_restarted(predictor, images, labels, draws, restarts, **settings):
    """PGD from several random starts, until the predictor is wrong."""

    def attempt(number, rows, draws):
        return run_pgd(predictor, *take(rows, (images, labels)), draws, **settings, is_random=True)

    return first_error(predictor, images, labels, draws, attempt, restarts)


def fgsm(model, images, labels, *, epsilon=8.0, random_start=False, seed=(0, 0)) -> tf.Tensor:
    """The fast gradient sign method: one step of ε from the image or, as some papers have it, from a random start.

    Arguments, result and errors as in `pgd`.
    """
    settings = {"epsilon": epsilon, "step_size": epsilon, "steps": 1, "random_start": random_start}
    return pgd(model, images, labels, seed=seed, **settings)


def run_natural(predictor, images, labels, draws):
    """No attack, for an `Attack`."""
    return images


@register("natural", "natural")
def _natural(match, sizes):
    return Attack("natural", run_natural, {})


@register("fgsm(-rs)?", "fgsm", "fgsm-rs")
def _fgsm(match, sizes):
    settings = {"epsilon": sizes.epsilon, "step_size": sizes.epsilon, "steps": 1, "loss": "xent"}
    is_random = bool(match[1])
    protocol = linf(**settings, random_start=is_random)
    return Attack(match[0], run_pgd, protocol, settings | {"is_random": is_random})


EOT = 20  # gradients averaged at each point, for networks whose outputs are random


def _is_not_random(predictor):
    if predictor.stochastic:
        return None
    return "the model's outputs are not random, so the mean of 20 draws is each of them: use pgd-N or cw-N"


@register(r"eot-(pgd|cw)-([1-9]\d*)", "eot-pgd-20")
def _averaged_steps(match, sizes):
    settings = {"epsilon": sizes.epsilon, "step_size": sizes.step_size, "steps": int(match[2]), "eot": EOT}
    settings |= {"loss": {"pgd": "xent", "cw": "cw"}[match[1]]}
    protocol = linf(**settings, random_start=True)
    return Attack(match[0], run_pgd, protocol, settings | {"is_random": True}, refusal=_is_not_random)


STAND_IN = "of a stand-in (BPDA)"
BPDA_EOT = 10  # the same for those that a stand-in's gradient leads through, where their outputs are random


def run_bpda(predictor, images, labels, draws, eot, **settings):
    """PGD along the gradient of a predictor's stand-in (BPDA), the mean over draws if it draws at all."""
    return run_pgd(predictor, images, labels, draws, **settings, eot=eot if predictor.stochastic else 1)


def _has_no_stand_in(predictor):
    if predictor.differentiable() is not predictor:
        return None
    return (
        "the model has a gradient of its own, and no stand-in for it: use pgd-N, or eot-pgd-N if it is random; where "
        "images are purified, attack what purifies them, without --surrogate_dir"
    )


@register(r"bpda-(pgd|cw)-([1-9]\d*)", "bpda-pgd-20")
def _through_a_stand_in(match, sizes):
    settings = {"epsilon": sizes.epsilon, "step_size": sizes.step_size, "steps": int(match[2])}
    settings |= {"loss": {"pgd": "xent", "cw": "cw"}[match[1]]}
    protocol = linf(**settings, random_start=True, gradient=STAND_IN, eot_if_random=BPDA_EOT)
    settings |= {"eot": BPDA_EOT, "is_random": True}
    return Attack(match[0], run_bpda, protocol, settings, refusal=_has_no_stand_in)


@register(r"(pgd|cw)-([1-9]\d*)", "pgd-7", "pgd-20", "pgd-100", "pgd-100x10", "cw-20", "cw-100", restarts=True)
def _steps(match, sizes):
    loss = {"pgd": "xent", "cw": "cw"}[match[1]]
    settings = {"epsilon": sizes.epsilon, "step_size": sizes.step_size, "steps": int(match[2]), "loss": loss}
    protocol = linf(**settings, random_start=True)
    if sizes.restarts == 1:
        return Attack(match[0], run_pgd, protocol, settings | {"is_random": True})
    again = {"restarts": sizes.restarts}
    return Attack(match[0], run_restarted, protocol | again | {"stops_at_error": True}, settings | again)
