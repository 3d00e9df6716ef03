"""L∞ attacks: fast gradient sign, projected gradient descent and its margin-loss variant, from one sign-step loop.

    sign_steps         the loop: step along the sign of the loss's gradient, project to the ε-ball, then to the pixels
    pgd, fgsm          the loop on a model's loss, from a random start or from the image
    LOSSES             what an attack maximises, per image: "xent" (cross-entropy) or "cw" (margin with κ = 50)
    attack, register   "pgd-20", "cw-100x10", "fgsm", … by name, as `--attacks` spells them; how to add a name

Pixels, ε and step sizes are in grey levels, [0, 255]. Released code: MadryLab/cifar10_challenge `pgd_attack.py`,
RvS `eval_pgd_attack.py`; in both "CW" is this loop with the margin loss, not Carlini and Wagner's own optimisation.
"""

import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from madry_cifar import attempts, replicas
from madry_cifar.errors import UsageError, unknown
from madry_cifar.randomness import uniform

KAPPA = 50.0
PIXEL_RANGE = (0.0, 255.0)


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Cross-entropy [B] of `logits` [B, K] with `labels`: integer classes [B], or soft ones [B, K]."""
    labels = tf.convert_to_tensor(labels)
    if labels.shape.rank == 2:
        return tf.nn.softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)


def lead(scores: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """s_y − max_{j≠y} s_j [B]: by how much the true class leads; `scores` [B, K] are logits or probabilities."""
    mask = attempts.is_true(labels, scores)
    true = tf.reduce_sum(tf.where(mask, scores, 0), axis=1)
    return true - tf.reduce_max(tf.where(mask, scores.dtype.min, scores), axis=1)


def margin(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """−max(z_y − max_{j≠y} z_j + κ, 0) [B], κ = 50: grows as the true class loses to the best other one."""
    return -tf.nn.relu(lead(logits, labels) + KAPPA)


LOSSES = {"xent": cross_entropy, "cw": margin}


def project(adversarial: tf.Tensor, images: tf.Tensor, epsilon) -> tf.Tensor:
    """The nearest point to `adversarial` in the ε-ball around `images`, then in the range of pixels."""
    return tf.clip_by_value(tf.clip_by_value(adversarial, images - epsilon, images + epsilon), *PIXEL_RANGE)


def _draws(shape, seed, *args):
    """Uniform draws [B, H, W, C] from a seed [2] or, from a seed [B, 3], rows of several such draws; see `pgd`."""
    seed = tf.convert_to_tensor(seed)
    if seed.shape.rank == 1:
        return uniform(shape, seed, *args)
    batches, rows = seed[:, :2], seed[:, 2]

    def fill(found, batch):
        is_from = tf.reduce_all(batches == batch, axis=1)[:, tf.newaxis, tf.newaxis, tf.newaxis]
        return tf.where(is_from, tf.gather(uniform(shape, batch, *args), rows), found)

    distinct, _ = tf.raw_ops.UniqueV2(x=batches, axis=[0])
    return tf.foldl(fill, tf.reshape(distinct, [-1, 2]), initializer=tf.zeros(shape, args[-1]))


def noisy(images: tf.Tensor, epsilon, seed) -> tf.Tensor:
    """A point drawn uniformly from the ε-ball around `images`, which may be outside the range of pixels."""
    noise = replicas.draw(_draws, tf.shape(images), seed, -1, 1, images.dtype)
    return images + _number(epsilon, images.dtype) * noise


def random_start(images: tf.Tensor, epsilon, seed) -> tf.Tensor:
    """The same, clipped to the range of pixels."""
    return tf.clip_by_value(noisy(images, epsilon, seed), *PIXEL_RANGE)


def _number(value, dtype):
    """A number or scalar tensor as a tensor of a type (`tf.cast` would take a float through float32)."""
    return tf.cast(value, dtype) if tf.is_tensor(value) else tf.constant(value, dtype)


def sign_steps(loss: Callable[[tf.Tensor], tf.Tensor], images: tf.Tensor, start: tf.Tensor, *, epsilon, step_size,
               steps) -> tf.Tensor:  # fmt: skip
    """From `start`, goes `steps` times by `step_size` along the sign of the gradient of `loss`, projecting each time.

    `loss` maps images [B, H, W, C] to a loss per image [B], or to one of the batch [], to be maximised.
    """
    epsilon, step_size = _number(epsilon, images.dtype), _number(step_size, images.dtype)

    def step(adversarial):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(adversarial)
            total = tf.reduce_sum(loss(adversarial))
        return [project(adversarial + step_size * tf.sign(tape.gradient(total, adversarial)), images, epsilon)]

    if replicas.count() > 1:  # inside a loop of the graph they could not exchange batch norm's statistics
        for _ in range(int(tf.get_static_value(steps))):
            (start,) = step(start)
        return start
    return tf.while_loop(
        lambda _: True, step, [start], maximum_iterations=_number(steps, tf.int32), parallel_iterations=1
    )[0]


def pgd(model, images, labels, *, epsilon=8.0, step_size=2.0, steps=20, loss="xent", random_start=True, seed=(0, 0),
        batch_norm="eval") -> tf.Tensor:  # fmt: skip
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
    return pgd(model, images, labels, epsilon=epsilon, step_size=epsilon, steps=1, random_start=random_start,
               seed=seed, batch_norm=batch_norm)  # fmt: skip


class Attack(NamedTuple):
    """An attack with its settings: `run(model, images, labels, seed)` returns adversarial images.

    What `run` does to an image depends on no other image of the batch; `seed` is [2], or [B, 3] as in `pgd`.

    Where `run` is a `functools.partial`, the numbers that it binds may be tensors too: so a function compiled once
    serves all attacks that differ in these numbers alone (see `Evaluator`).

    `protocol` is what a results file tells of it. If it says `stops_at_error`, an image is left alone from the first
    time on that the attacked network gets it wrong. An attack with `stages` has no `run`: they are run one after
    another, each on the images that have withstood all before.
    """

    name: str
    run: Callable[..., tf.Tensor] | None
    protocol: dict[str, Any]
    stages: tuple["Attack", ...] = ()


class Sizes(NamedTuple):
    """What the flags say for all attacks that have such a thing: ε and step in grey levels, number of restarts."""

    epsilon: float = 8.0
    step_size: float = 2.0
    restarts: int = 1


class _Family(NamedTuple):
    pattern: str
    examples: tuple[str, ...]
    restarts: bool
    make: Callable[[re.Match, Sizes], Attack]


_FAMILIES: list[_Family] = []


def register(pattern: str, *examples: str, restarts: bool = False):
    """Adds names for `attack`: the decorated function gets the match of `pattern` with a name, and `Sizes`.

    `examples` are told to who mistypes a name. With `restarts`, the names may end in xR, for R random starts.
    """

    def add(make):
        _FAMILIES.append(_Family(pattern, examples, restarts, make))
        return make

    return add


def attack(name: str, *, epsilon: float = 8.0, step_size: float = 2.0, restarts: int = 1) -> Attack:
    """The attack called `name`: natural, fgsm, fgsm-rs (random start), pgd-N or cw-N (N steps, random start), …

    Attacks with a random start are repeated from `restarts` of them, or from R if the name ends in xR (pgd-100x10),
    and an image counts as misclassified if it is after any of them.

    Raises:
      UsageError: for any other name, naming the nearest; for a negative ε or step.
    """
    for flag, value in (("epsilon", epsilon), ("step_size", step_size)):
        if not 0 <= value <= 255:
            raise UsageError(f"--{flag}={value}: must be from 0 to 255 (grey levels; the paper's is 8 with steps of 2)")
    stem, repeats = re.fullmatch(r"(.*?)(?:x([1-9]\d*))?", name, re.DOTALL).groups()
    for family in _FAMILIES:
        match = re.fullmatch(family.pattern, stem)
        if match is None:
            continue
        if repeats and not family.restarts:
            raise UsageError(f"--attacks={name}: {stem} has no random start to repeat")
        times = int(repeats or restarts) if family.restarts else 1
        found = family.make(match, Sizes(epsilon, step_size, times))
        return found._replace(name=f"{stem}x{times}" if times > 1 else stem)
    raise unknown("attacks", name, [example for family in _FAMILIES for example in family.examples])


def takes_restarts(name: str) -> bool:
    """Whether `restarts` matters to the attack called `name`, which does not say itself how often it is repeated."""
    return any(family.restarts and re.fullmatch(family.pattern, name) for family in _FAMILIES)


def linf(**settings) -> dict[str, Any]:
    """The protocol of an L∞ attack with these settings, for `Attack`."""
    return {"norm": "linf", "pixel_range": list(PIXEL_RANGE), "batch_norm": "eval", "restarts": 1} | settings


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
