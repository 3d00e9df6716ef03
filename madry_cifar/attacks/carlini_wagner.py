"""Carlini and Wagner's L2 attack: the nearest wrong image, by Adam on distance and margin, weighed by bisection.

Carlini and Wagner, "Towards evaluating the robustness of neural networks", S&P 2017, Sections V and VI.A: untargeted,
with the released code's constants. An optimisation of its own, unlike `cw-N`, which is PGD on the margin. There a batch
stops once the sum of its losses falls no more; here an image stops by itself, and only while c seems too small: past
the boundary one image's loss goes up and down, and to stop there would cost much of the way back to it.

Pixels are (tanh w / s + 1) / 2 of their range, with s = 0.95 and w kept where this is within it. There (in Foolbox and
ART too) they are (tanh w + 1) / 2 with images drawn in by 0.999999, and black or white pixels start where tanh is flat:
a hundred steps of 0.01 do not move them, and on images of such pixels find nothing.
"""

import functools
from typing import NamedTuple

import tensorflow as tf

from madry_cifar.attacks.losses import is_wrong, lead
from madry_cifar.attacks.registry import Attack, register
from madry_cifar.attacks.restarts import LOOK, put, rows_of, take
from madry_cifar.attacks.steps import PIXEL_RANGE, Search, adam, ascend, gradient_of, where
from madry_cifar.predictor import Predictor
from madry_cifar.randomness import Draws

STEPS = 1000
RADIUS = 127.5  # grey levels: 0.5 of the pixels' range, RobustBench's L2 ball
PUBLISHED = {"searches": 9, "learning_rate": 0.01, "constant": 1e-3, "confidence": 0.0}

_LOW, _RANGE = PIXEL_RANGE[0], PIXEL_RANGE[1] - PIXEL_RANGE[0]
_SPAN = 0.95  # s: the value of tanh at the ends of the range, where its slope is still a tenth of the largest
_FALLS = 0.9999  # the share of the least loss that a tenth of the steps must bring it to


class _Kept(NamedTuple):
    """Of each image: the nearest error for any c, and what happened with this one. Tensors with the batch first."""

    least: tf.Tensor  # loss, with this c
    fooled: tf.Tensor  # with this c
    nearest: tf.Tensor
    distance: tf.Tensor


def carlini_wagner(
    predictor: Predictor,
    images,
    labels,
    draws: Draws,
    *,
    steps=STEPS,
    searches=9,
    learning_rate=0.01,
    constant=1e-3,
    confidence=0.0,
    radius=0.0,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Minimises ‖x' − x‖² + c·max(z_y − max_{j≠y} z_j + κ, 0) for several c: ten times the last one until the predictor
    is wrong, from then on halfway between the largest that was too small and the smallest that was not.

    Args:
      predictor: what is attacked.
      images, labels: [B, H, W, C] pixels in [0, 255], and [B] true classes.
      draws: of the images, for a stochastic predictor.
      steps: of Adam for each c; it ends early where a tenth of them brought neither an error nor a smaller loss.
      learning_rate: of Adam, for w.
      searches, constant: number of c, and the first, for a loss that takes the range of pixels as 1.
      confidence: κ, by which the logit of another class must lead.
      radius: in grey levels; an image is left alone once a wrong one is found within it. 0 looks for the nearest.

    Returns:
      The nearest wrong images found [B, H, W, C] and their L2 distances [B] in grey levels. Where there is none the
      image itself, with an infinite distance; where it is wrong already, with zero.
    """
    number = functools.partial(tf.cast, dtype=images.dtype)
    rate, constant, confidence, radius = map(number, (learning_rate, constant, confidence, radius))
    assess = functools.partial(_assess, predictor, confidence=confidence)

    def search(constant, lower, upper, nearest, distance):
        fooled, nearest, distance = _minimize(
            assess, images, labels, draws, constant, nearest, distance, tf.cast(steps, tf.int32), adam(rate), radius
        )
        lower, upper = tf.where(fooled, lower, constant), tf.where(fooled, constant, upper)
        constant = tf.where(tf.math.is_inf(upper), 10 * constant, (lower + upper) / 2)
        return constant, lower, upper, nearest, distance

    zeros, infinite, constants = (tf.fill(tf.shape(labels), number(value)) for value in (0, float("inf"), constant))
    wrong = labels < 0 if predictor.stochastic else assess(images, labels, draws, LOOK)[1]  # as `is_settled`
    return tf.while_loop(
        lambda *state: tf.reduce_any(state[-1] > radius),
        search,
        (constants, zeros, infinite, images, tf.where(wrong, zeros, infinite)),
        maximum_iterations=searches,
        parallel_iterations=1,
    )[-2:]


def _assess(predictor, points, labels, draws, query, confidence):
    """max(z_y − max_{j≠y} z_j + κ, 0) [B], and whether another class is predicted with a lead of κ."""
    predict, draw = predictor.differentiable(), draws.query(query)
    logits = predict(points, draw).logits
    judged = logits if predict is predictor else predictor(points, draw).logits
    return tf.nn.relu(lead(logits, labels) + confidence), is_wrong(judged, labels) & (
        lead(judged, labels) + confidence <= 0
    )


def _minimize(assess, images, labels, draws, constant, nearest, distance, steps, rule, radius):
    """Adam for one c, from the images: whether it met an error [B], and the nearest one so far with its distance."""
    w = tf.atanh(_SPAN * (2 * (images - _LOW) / _RANGE - 1))
    end = tf.atanh(tf.cast(_SPAN, w.dtype))
    kept = _Kept(constant + float("inf"), tf.zeros_like(labels, tf.bool), nearest, distance)
    interval = -(-steps // 10)

    def tenth(done, goes_on, search):
        rows = rows_of(goes_on)
        start, around, true, weight, before = take(rows, (_pixels(w), images, labels, constant, search))
        part = ascend(
            before,
            gradient_of(_loss(assess, start, true, draws.take(rows), weight)),
            rule,
            steps=tf.minimum(interval, steps - done),
            first=done,
            projection=lambda w: tf.clip_by_value(w, -end, end),
            keep=functools.partial(_keep, around, radius),
            until=lambda kept: ~tf.reduce_any(kept.distance > radius),
        )
        part_goes_on = (part.kept.least <= _FALLS * before.kept.least) | part.kept.fooled
        part_goes_on &= part.kept.distance > radius
        return done + interval, *put(rows, (part_goes_on, part), (goes_on, search))

    _, _, search = tf.while_loop(
        lambda done, goes_on, _: (done < steps) & tf.reduce_any(goes_on),
        tenth,
        (0, distance > radius, Search(w, rule.begin(w), kept)),
        parallel_iterations=1,
    )
    return search.kept.fooled, search.kept.nearest, search.kept.distance


def _loss(assess, start, labels, draws, constant):
    """Of w, negative as it is to be minimised; with the point and whether it is an error. `start` is that of Adam."""

    def loss(w, query):
        point = _pixels(w)
        excess, wrong = assess(point, labels, draws, query)
        return -(_squared_norm((point - start) / _RANGE) + constant * excess), (point, wrong)

    return loss


def _keep(images, radius, kept, _, estimate):
    point, wrong = estimate.extra
    reached = tf.sqrt(_squared_norm(point - images))
    nearer = wrong & (reached < kept.distance) & (kept.distance > radius)
    return _Kept(
        tf.minimum(-estimate.loss, kept.least),
        kept.fooled | wrong,
        where(nearer, point, kept.nearest),
        tf.where(nearer, reached, kept.distance),
    )


def _pixels(w):
    pixels = _LOW + _RANGE * (tf.tanh(w) / _SPAN + 1) / 2
    return pixels + tf.stop_gradient(tf.clip_by_value(pixels, *PIXEL_RANGE) - pixels)  # which rounding may have passed


def _squared_norm(values):
    return tf.reduce_sum(values**2, axis=[1, 2, 3])


def run(predictor, images, labels, draws, *, radius, **settings):
    """[B, H, W, C]: wrong images within the radius, else the images themselves."""
    nearest, distance = carlini_wagner(predictor, images, labels, draws, radius=radius, **settings)
    return where(distance <= tf.cast(radius, distance.dtype), nearest, images)


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
    return Attack(match[0], run, protocol | settings, settings)
