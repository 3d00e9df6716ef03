"""The one loop of attacks that follow a gradient, and the small functions that it is composed of.

    random_start, noisy           where an attack starts
    gradient_of, averaged         the gradient at a point: of a loss; of a random one, the mean over several draws (EOT)
    signs, adam                   how a step follows the gradient
    project                       back into the ball and the range of pixels
    ascend                        the loop; `sign_steps` is the loop of PGD, for a loss without randomness

Pixels, ε and step sizes are in grey levels, [0, 255].
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from madry_cifar import replicas
from madry_cifar.randomness import Draws

PIXEL_RANGE = (0.0, 255.0)


def project(adversarial: tf.Tensor, images: tf.Tensor, epsilon) -> tf.Tensor:
    """The nearest point to `adversarial` in the ε-ball around `images`, then in the range of pixels."""
    return tf.clip_by_value(tf.clip_by_value(adversarial, images - epsilon, images + epsilon), *PIXEL_RANGE)


def noisy(images: tf.Tensor, epsilon, draws: Draws) -> tf.Tensor:
    """A point drawn uniformly from the ε-ball around `images`, which may be outside the range of pixels."""
    return images + scalar(epsilon, images.dtype) * draws.uniform(tf.shape(images), -1, 1, images.dtype)


def random_start(images: tf.Tensor, epsilon, draws: Draws) -> tf.Tensor:
    """The same, clipped to the range of pixels."""
    return tf.clip_by_value(noisy(images, epsilon, draws), *PIXEL_RANGE)


def scalar(value, dtype):
    """A number or scalar tensor as a tensor of a type (`tf.cast` would take a float through float32)."""
    return tf.cast(value, dtype) if tf.is_tensor(value) else tf.constant(value, dtype)


def per_image(values: tf.Tensor) -> tf.Tensor:
    """[B] as [B, 1, 1, 1]."""
    return values[:, tf.newaxis, tf.newaxis, tf.newaxis]


def where(condition: tf.Tensor, one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Of each image [B, H, W, C] the one or, where the `condition` [B] does not hold, the other."""
    return tf.where(per_image(condition), one, other)


class Estimate(NamedTuple):
    """At a point: the loss per image [B] (or one of the batch), its gradient, and what else the loss returned."""

    loss: tf.Tensor
    gradient: tf.Tensor
    extra: Any = ()


def gradient_of(loss: Callable) -> Callable[[tf.Tensor, tf.Tensor], Estimate]:
    """Maps a point and the number of the query to the `Estimate` of `loss(point, number)`.

    The loss returns losses per image, to be maximised, or these and something else. Where it has no gradient, as
    rounding and the encoding of JPEG have none, the gradient is zero.
    """

    def estimate(point, number):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(point)
            losses = loss(point, number)
            losses, extra = losses if isinstance(losses, tuple) else (losses, ())
            total = tf.reduce_sum(losses)
        try:
            gradient = tape.gradient(total, point, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        except LookupError:  # an operation without a derivative, as the encoding of JPEG is
            gradient = tf.zeros_like(point)
        return Estimate(losses, gradient, extra)

    return estimate


def averaged(estimate: Callable, samples) -> Callable[[tf.Tensor, tf.Tensor], Estimate]:
    """Expectation over transformation (EOT): the mean of an estimate over `samples` queries, number·samples + i.

    What else the loss returns is that of the last query.
    """
    if isinstance(samples, int) and samples == 1:
        return estimate

    def mean(point, number):
        def share(index):
            loss, gradient, extra = estimate(point, number * samples + index)
            count = scalar(samples, gradient.dtype)
            return Estimate(loss / count, gradient / count, extra)

        def add(index, so_far):
            new = share(index)
            return index + 1, Estimate(so_far.loss + new.loss, so_far.gradient + new.gradient, new.extra)

        return tf.while_loop(lambda index, _: index < samples, add, (1, share(0)), parallel_iterations=1)[1]

    return mean


class Rule(NamedTuple):
    """How a step follows a gradient: `begin(point)` is what it remembers at first, `step(gradient, memory, number)` the
    move and what it remembers after it; steps are numbered from 0."""

    begin: Callable
    step: Callable


def signs(step_size) -> Rule:
    """Steps of one size along the sign of the gradient."""
    return Rule(lambda point: (), lambda gradient, memory, number: (step_size * tf.sign(gradient), memory))


def adam(rate, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8) -> Rule:
    """Adam's steps (Kingma and Ba, Algorithm 1)."""

    def step(gradient, memory, number):
        mean, square = memory
        count = tf.cast(number + 1, gradient.dtype)
        mean = beta1 * mean + (1 - beta1) * gradient
        square = beta2 * square + (1 - beta2) * gradient**2
        move = mean / (1 - beta1**count) / (tf.sqrt(square / (1 - beta2**count)) + epsilon)
        return rate * move, (mean, square)

    return Rule(lambda point: (tf.zeros_like(point), tf.zeros_like(point)), step)


class Search(NamedTuple):
    """Of each image: the point reached, what the step rule remembers, and what was `kept` of the points on the way."""

    point: tf.Tensor
    memory: Any
    kept: Any = ()


def ascend(
    search: Search,
    estimate: Callable[[tf.Tensor, tf.Tensor], Estimate],
    rule: Rule,
    *,
    steps,
    first=0,
    projection: Callable[[tf.Tensor], tf.Tensor] = lambda point: point,
    keep: Callable[[Any, tf.Tensor, Estimate], Any] = lambda kept, point, estimate: kept,
    until: Callable[[Any], tf.Tensor] = lambda kept: False,
) -> Search:
    """Takes `steps` steps up the loss: point ← projection(point + step), the steps numbered from `first` on.

    Args:
      search: where it begins.
      estimate: see `gradient_of`.
      rule: see `Rule`.
      projection: of a point that was stepped to.
      keep: told what was kept so far, a point and the estimate there (before the step), what is to be kept.
      until: told what was kept, whether to stop.
    """

    def step(number, search):
        here = estimate(search.point, number)
        kept = keep(search.kept, search.point, here)
        move, memory = rule.step(here.gradient, search.memory, number)
        return number + 1, Search(projection(search.point + move), memory, kept)

    if replicas.count() > 1:  # inside a loop of the graph they could not exchange batch norm's statistics
        for number in range(int(tf.get_static_value(steps))):
            _, search = step(first + number, search)
        return search
    return tf.while_loop(
        lambda number, search: tf.logical_not(until(search.kept)),
        step,
        (tf.constant(first) if isinstance(first, int) else first, search),
        maximum_iterations=scalar(steps, tf.int32),
        parallel_iterations=1,
    )[1]


def sign_steps(loss: Callable[[tf.Tensor], tf.Tensor], images, start, *, epsilon, step_size, steps) -> tf.Tensor:
    """From `start`, goes `steps` times by `step_size` along the sign of the gradient of `loss`, projecting each time.

    `loss` maps images [B, H, W, C] to a loss per image [B], or to one of the batch [], to be maximised.
    """
    return climb(gradient_of(lambda point, _: loss(point)), images, start, epsilon, step_size, steps)


def climb(estimate: Callable, images, start, epsilon, step_size, steps) -> tf.Tensor:
    """The same for an estimate of the gradient."""
    epsilon, rule = scalar(epsilon, images.dtype), signs(scalar(step_size, images.dtype))
    search = Search(start, rule.begin(start))
    return ascend(search, estimate, rule, steps=steps, projection=lambda p: project(p, images, epsilon)).point
