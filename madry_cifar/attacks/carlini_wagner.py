"""Carlini and Wagner's L2 attack: the nearest wrong image, by Adam on distance and margin, weighed by bisection.

Carlini and Wagner, "Towards evaluating the robustness of neural networks", S&P 2017, Sections V and VI.A: untargeted,
with the released code's constants. An optimisation of its own, unlike `cw-N`, which is PGD on the margin. There a batch
stops once the sum of its losses falls no more; here an image stops by itself, and only while c seems too small: past
the boundary one image's loss goes up and down, and to stop there would cost much of the way back to it.
"""

import functools
from typing import NamedTuple

import tensorflow as tf

from madry_cifar.attacks import restarts as attempts
from madry_cifar.attacks.losses import lead
from madry_cifar.attacks.registry import Attack, register
from madry_cifar.attacks.steps import PIXEL_RANGE

STEPS = 1000
RADIUS = 127.5  # grey levels: 0.5 of the pixels' range, RobustBench's L2 ball
PUBLISHED = {"searches": 9, "learning_rate": 0.01, "constant": 1e-3, "confidence": 0.0}

_LOW, _RANGE = PIXEL_RANGE[0], PIXEL_RANGE[1] - PIXEL_RANGE[0]
_INSIDE = 0.999999  # of the way to the ends of the range, where tanh has no inverse
_FALLS = 0.9999  # the share of the least loss that a tenth of the steps must bring it to
_BETA_1, _BETA_2, _TINY = 0.9, 0.999, 1e-8  # of Adam


class _State(NamedTuple):
    """Of each image: where Adam is for one c, and the nearest error for any. Tensors with the batch first."""

    w: tf.Tensor  # the point is (tanh w + 1) / 2 of the range
    mean: tf.Tensor  # of the gradient
    square: tf.Tensor
    least: tf.Tensor  # loss, with this c
    goes_on: tf.Tensor
    fooled: tf.Tensor  # with this c
    nearest: tf.Tensor
    distance: tf.Tensor


def carlini_wagner(
    model, images, labels, *, steps=STEPS, searches=9, learning_rate=0.01, constant=1e-3, confidence=0.0, radius=0.0
):
    """Minimises ‖x' − x‖² + c·max(z_y − max_{j≠y} z_j + κ, 0) for several c: ten times the last one until the model is
    wrong, from then on halfway between the largest that was too small and the smallest that was not.

    Args:
      model: called as `model(images, batch_norm="eval")`, returns `.logits` [B, K].
      images, labels: [B, H, W, C] pixels in [0, 255], and [B] true classes.
      steps: of Adam for each c; it ends early where a tenth of them brought neither an error nor a smaller loss.
      learning_rate: of Adam, for w of x' = (tanh w + 1) / 2.
      searches, constant: number of c, and the first, for a loss that takes the range of pixels as 1.
      confidence: κ, by which the logit of another class must lead.
      radius: in grey levels; an image is left alone once a wrong one is found within it. 0 looks for the nearest.

    Returns:
      The nearest wrong images found [B, H, W, C] and their L2 distances [B] in grey levels. Where there is none the
      image itself, with an infinite distance; where it is wrong already, with zero.
    """
    number = functools.partial(tf.cast, dtype=images.dtype)
    rate, constant, confidence, radius = map(number, (learning_rate, constant, confidence, radius))
    assess = functools.partial(_assess, model, confidence=confidence)

    def search(constant, lower, upper, nearest, distance):
        fooled, nearest, distance = _minimize(
            assess,
            images,
            labels,
            constant,
            nearest,
            distance,
            steps=tf.cast(steps, tf.int32),
            rate=rate,
            radius=radius,
        )
        lower, upper = tf.where(fooled, lower, constant), tf.where(fooled, constant, upper)
        constant = tf.where(tf.math.is_inf(upper), 10 * constant, (lower + upper) / 2)
        return constant, lower, upper, nearest, distance

    zeros, infinite, constants = (tf.fill(tf.shape(labels), number(value)) for value in (0, float("inf"), constant))
    start = (constants, zeros, infinite, images, tf.where(assess(images, labels)[1], zeros, infinite))
    return tf.while_loop(
        lambda *state: tf.reduce_any(state[-1] > radius),
        search,
        start,
        maximum_iterations=searches,
        parallel_iterations=1,
    )[-2:]


def _assess(model, points, labels, confidence):
    """max(z_y − max_{j≠y} z_j + κ, 0) [B], and whether another class is predicted with a lead of κ."""
    logits = model(points, batch_norm="eval").logits
    ahead = lead(logits, labels) + confidence
    return tf.nn.relu(ahead), (tf.argmax(logits, axis=1, output_type=labels.dtype) != labels) & (ahead <= 0)


def _minimize(assess, images, labels, constant, nearest, distance, *, steps, rate, radius):
    """Adam for one c, from the images: whether it met an error [B], and the nearest one so far with its distance."""
    w = tf.atanh(_INSIDE * (2 * (images - _LOW) / _RANGE - 1))
    zeros, no = tf.zeros_like(images), tf.zeros_like(labels, tf.bool)
    state = _State(w, zeros, zeros, constant + float("inf"), distance > radius, no, nearest, distance)
    interval = -(-steps // 10)

    def tenth(done, state):
        rows = attempts.packed(state.goes_on)
        of_all = (images, _pixels(w), labels, constant), state
        problem, before = tf.nest.map_structure(lambda values: tf.gather(values, rows), of_all)
        _, part = tf.while_loop(
            lambda _, part: tf.reduce_any(part.distance > radius),
            lambda step, part: (step + 1, _step(assess, *problem, part, step, rate, radius)),
            (done + 1, before),
            maximum_iterations=tf.minimum(interval, steps - done),
            parallel_iterations=1,
        )
        goes_on = (part.least <= _FALLS * before.least) | part.fooled
        part = part._replace(goes_on=goes_on & (part.distance > radius))
        return done + interval, tf.nest.map_structure(lambda values, new: attempts.put(values, rows, new), state, part)

    _, state = tf.while_loop(
        lambda done, state: (done < steps) & tf.reduce_any(state.goes_on), tenth, (0, state), parallel_iterations=1
    )
    return state.fooled, state.nearest, state.distance


def _step(assess, images, start, labels, constant, state, step, rate, radius):
    """Judges the point and goes on from it by Adam's step of this number, counted from 1; `start` is that of Adam."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(state.w)
        point = _pixels(state.w)
        excess, is_wrong = assess(point, labels)
        loss = _squared_norm((point - start) / _RANGE) + constant * excess
    gradient, step, least = tape.gradient(loss, state.w), tf.cast(step, loss.dtype), tf.minimum(loss, state.least)
    mean = _BETA_1 * state.mean + (1 - _BETA_1) * gradient
    square = _BETA_2 * state.square + (1 - _BETA_2) * gradient**2
    move = mean / (1 - _BETA_1**step) / (tf.sqrt(square / (1 - _BETA_2**step)) + _TINY)
    reached = tf.sqrt(_squared_norm(point - images))
    is_nearer = is_wrong & (reached < state.distance) & (state.distance > radius)
    nearest, distance = _where(is_nearer, point, state.nearest), tf.where(is_nearer, reached, state.distance)
    w, fooled = state.w - rate * move, state.fooled | is_wrong
    return _State(w, mean, square, least, state.goes_on, fooled, nearest, distance)


def _pixels(w):
    return _LOW + _RANGE * (tf.tanh(w) + 1) / 2


def _squared_norm(values):
    return tf.reduce_sum(values**2, axis=[1, 2, 3])


def _where(condition, one, other):
    return tf.where(condition[:, tf.newaxis, tf.newaxis, tf.newaxis], one, other)


def run(model, images, labels, seed, *, radius, **settings):
    """[B, H, W, C]: wrong images within the radius, else the images themselves. `seed` does not matter."""
    nearest, distance = carlini_wagner(model, images, labels, radius=radius, **settings)
    return _where(distance <= tf.cast(radius, distance.dtype), nearest, images)


@register(r"cw-l2(?:-([1-9]\d*))?", "cw-l2", "cw-l2-100")
def _named(match, sizes):
    settings = {"radius": RADIUS, "steps": int(match[1] or STEPS), **PUBLISHED}
    protocol = {
        "norm": "l2",
        "pixel_range": list(PIXEL_RANGE),
        "batch_norm": "eval",
        "loss": "margin and distance",
        "restarts": 1,
        "random_start": False,
        "stops_at_error": True,
    }
    return Attack(match[0], functools.partial(run, **settings), protocol | settings)
