"""Square: random squares of ±ε, kept where they bring the model nearer to an error; uses no gradient.

Andriushchenko, Croce, Flammarion and Hein, "Square Attack: a query-efficient black-box adversarial attack via random
search", ECCV 2020, L∞, with the published constants: 5,000 queries, squares of 80 % of the image at first, margin loss.
Each image has squares of its own, where their code draws one for all images of a batch.
"""

import zlib

import numpy as np
import tensorflow as tf

from madry_cifar.attacks.losses import lead
from madry_cifar.attacks.registry import Attack, linf, register
from madry_cifar.attacks.restarts import LOOK, is_settled, put, rows_of, take
from madry_cifar.attacks.steps import project, where
from madry_cifar.predictor import Predictor
from madry_cifar.randomness import GENERATOR, Draws

QUERIES = 5000
SHARE = 0.8  # of the image, that the first squares cover
HALVED = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # after so many of 10,000 queries, the share is


def sides(height: int, width: int, queries: int) -> np.ndarray:
    """The side in pixels of the square of each query, [queries] int32."""
    progress = np.arange(queries) * 10_000 // queries
    shares = SHARE / 2.0 ** np.sum(progress[:, np.newaxis] > np.array(HALVED), axis=1)
    return np.maximum(np.rint(np.sqrt(shares * height * width)), 1).astype(np.int32)


def square(
    predictor: Predictor,
    images: tf.Tensor,
    labels: tf.Tensor,
    draws: Draws,
    *,
    epsilon,
    queries: int = QUERIES,
) -> tf.Tensor:
    """Searches the ε-ball around each image, until the predictor is wrong.

    Args:
      predictor: what is attacked.
      images: [B, H, W, C] pixels in [0, 255].
      labels: [B] true classes.
      draws: of the images.
      epsilon: radius of the ball, in grey levels.
      queries: forward passes for each image, beside two at the start.

    Returns:
      [B, H, W, C]: of each image the first point that the predictor got wrong, or else the nearest to it; images that
      it gets wrong as they are, as they are.
    """
    _, height, width, channels = images.shape
    epsilon, side = tf.cast(epsilon, images.dtype), tf.constant(sides(height, width, queries))
    key = tf.stack([tf.cast(draws.seed, tf.int64)[0], zlib.crc32(b"square")])

    def draw(number, draws, *shape):
        """Uniform in [0, 1), of each image for the query of this number."""
        of_query = draws._replace(seed=tf.random.fold_in(key, tf.cast(number, tf.int64), alg=GENERATOR))
        return of_query.uniform([tf.size(draws.place), *shape], 0.0, 1.0, images.dtype)

    def signs(uniform):
        return tf.where(uniform < 0.5, -epsilon, epsilon)

    def ask(points, labels, draws, number):
        logits = predictor(points, draws.query(number)).logits
        return lead(logits, labels), is_settled(predictor, logits, labels)

    def begin():
        stripes = project(images + signs(draw(-1, draws, 1, width, channels)), images, epsilon)
        _, was_wrong = ask(images, labels, draws, LOOK)
        leads, wrong = ask(stripes, labels, draws, 0)
        return where(was_wrong, images, stripes), leads, was_wrong | wrong

    def queries_until_a_tenth_falls(number, *state):
        """Gathering and putting back the images that are left costs as much as a small network does."""
        rows = rows_of(~state[-1])
        around, true = take(rows, (images, labels))

        def go_on(number, point, leads, wrong):
            return (number < queries) & (10 * tf.math.count_nonzero(wrong) < tf.size(rows, tf.int64))

        number, *part = tf.while_loop(
            go_on,
            lambda number, *part: (number + 1, *query(number, around, true, draws.take(rows), *part)),
            (number, *take(rows, state)),
            parallel_iterations=1,
        )
        return number, *put(rows, tuple(part), state)

    def query(number, around, true, draws, point, leads, wrong):
        drawn = draw(number, draws, 2 + channels)
        window = _window(drawn[:, :2], side[number], height, width)
        change = 2 * signs(drawn[:, 2:])[:, tf.newaxis, tf.newaxis]  # from one side of the ball to the other
        candidate = project(tf.where(window, point + change, point), around, epsilon)
        new_leads, new_wrong = ask(candidate, true, draws, number + 1)
        better = ~wrong & (new_wrong | (new_leads < leads))
        return where(better, candidate, point), tf.where(better, new_leads, leads), wrong | new_wrong

    return tf.while_loop(
        lambda number, point, leads, wrong: (number < queries) & ~tf.reduce_all(wrong),
        queries_until_a_tenth_falls,
        (0, *begin()),
        parallel_iterations=1,
    )[1]


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
    return Attack("square", square, protocol, {"epsilon": sizes.epsilon})
