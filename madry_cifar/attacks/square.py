"""Square: random squares of ±ε, kept where they bring the model nearer to an error; uses no gradient.

Andriushchenko, Croce, Flammarion and Hein, "Square Attack: a query-efficient black-box adversarial attack via random
search", ECCV 2020, L∞, with the published constants: 5,000 queries, squares of 80 % of the image at first, margin loss.
Each image has squares of its own, where their code draws one for all images of a batch.
"""

import functools
import zlib

import numpy as np
import tensorflow as tf

from madry_cifar.attacks import restarts as attempts
from madry_cifar.attacks.losses import lead
from madry_cifar.attacks.registry import Attack, linf, register
from madry_cifar.attacks.steps import project
from madry_cifar.randomness import GENERATOR, uniform

QUERIES = 5000
SHARE = 0.8  # of the image, that the first squares cover
HALVED = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # after so many of 10,000 queries, the share is


def sides(height: int, width: int, queries: int) -> np.ndarray:
    """The side in pixels of the square of each query, [queries] int32."""
    progress = np.arange(queries) * 10_000 // queries
    shares = SHARE / 2.0 ** np.sum(progress[:, np.newaxis] > np.array(HALVED), axis=1)
    return np.maximum(np.rint(np.sqrt(shares * height * width)), 1).astype(np.int32)


def square(model, images: tf.Tensor, labels: tf.Tensor, seed, *, epsilon, queries: int = QUERIES) -> tf.Tensor:
    """Searches the ε-ball around each image, until the model is wrong.

    Args:
      model: called as `model(images, batch_norm="eval")`, returns `.logits` [B, K].
      images: [B, H, W, C] pixels in [0, 255].
      labels: [B] true classes.
      seed: as an `Attack` is given it; the draws for an image depend on its first number and on the image's place.
      epsilon: radius of the ball, in grey levels.
      queries: forward passes for each image, beside two at the start.

    Returns:
      [B, H, W, C]: of each image the first point that the model got wrong, or else the nearest to it; images that it
      gets wrong as they are, as they are.
    """
    batch, height, width, channels = images.shape
    epsilon, side = tf.cast(epsilon, images.dtype), tf.constant(sides(height, width, queries))
    seed, place = tf.cast(seed, tf.int64), attempts.places(seed, batch)
    key = tf.stack([tf.reshape(seed, [-1])[0], zlib.crc32(b"square")])

    def draw(number, *shape):
        """Of each image; the draws of a batch, gathered by place, so that packing an image changes nothing for it."""
        drawn = uniform([batch, *shape], tf.random.fold_in(key, number, alg=GENERATOR), 0.0, 1.0, images.dtype)
        return tf.gather(drawn, place)

    def signs(draws):
        return tf.where(draws < 0.5, -epsilon, epsilon)

    def begin():
        stripes = project(images + signs(draw(tf.constant(-1, tf.int64), 1, width, channels)), images, epsilon)
        was_wrong = attempts.is_wrong(model, images, labels)
        logits = model(stripes, batch_norm="eval").logits
        point = tf.where(was_wrong[:, tf.newaxis, tf.newaxis, tf.newaxis], images, stripes)
        return point, lead(logits, labels), was_wrong | _is_wrong(logits, labels)

    def queries_until_a_tenth_falls(number, *state):
        """Gathering and putting back the images that are left costs as much as a small network does."""
        rows = attempts.packed(~state[-1])
        around, true = tf.gather(images, rows), tf.gather(labels, rows)

        def go_on(number, point, leads, wrong):
            return (number < queries) & (10 * tf.math.count_nonzero(wrong) < tf.size(rows, tf.int64))

        number, *part = tf.while_loop(
            go_on,
            lambda number, *part: (number + 1, *query(number, rows, around, true, *part)),
            (number, *(tf.gather(values, rows) for values in state)),
            parallel_iterations=1,
        )
        return number, *(attempts.put(values, rows, new) for values, new in zip(state, part, strict=True))

    def query(number, rows, around, true, point, leads, wrong):
        draws = tf.gather(draw(tf.cast(number, tf.int64), 2 + channels), rows)
        window = _window(draws[:, :2], side[number], height, width)
        change = 2 * signs(draws[:, 2:])[:, tf.newaxis, tf.newaxis]  # from one side of the ball to the other
        candidate = project(tf.where(window, point + change, point), around, epsilon)
        logits = model(candidate, batch_norm="eval").logits
        is_wrong, new_leads = _is_wrong(logits, true), lead(logits, true)
        is_better = ~wrong & (is_wrong | (new_leads < leads))
        point = tf.where(is_better[:, tf.newaxis, tf.newaxis, tf.newaxis], candidate, point)
        return point, tf.where(is_better, new_leads, leads), wrong | is_wrong

    return tf.while_loop(
        lambda number, point, leads, wrong: (number < queries) & ~tf.reduce_all(wrong),
        queries_until_a_tenth_falls,
        (0, *begin()),
        parallel_iterations=1,
    )[1]


def _is_wrong(logits, labels):
    return tf.argmax(logits, axis=1, output_type=labels.dtype) != labels


def _window(draws, side, height, width):
    """Whether each pixel [R, H, W, 1] is in a square whose place is drawn by `draws` [R, 2] from all there are."""
    inside = []
    for axis, size in enumerate((height, width)):
        first = tf.cast(draws[:, axis] * tf.cast(size - side + 1, draws.dtype), tf.int32)[:, tf.newaxis]
        inside.append((tf.range(size) >= first) & (tf.range(size) < first + side))
    return (inside[0][:, :, tf.newaxis] & inside[1][:, tf.newaxis])[..., tf.newaxis]


@register("square", "square")
def _named(match, sizes):
    protocol = linf(epsilon=sizes.epsilon, loss="margin", queries=QUERIES, random_start=True, stops_at_error=True)
    return Attack("square", functools.partial(square, epsilon=sizes.epsilon), protocol)
