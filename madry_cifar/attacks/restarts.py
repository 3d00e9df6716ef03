"""Attacks that try again, from another start or toward another class, as long as the predictor is right.

first_error    the loop: of several attempts on each image, the first that the predictor gets wrong
is_settled     which images an attack need not go on with
rows_of, put   the images still to work on, as rows to gather, and back
nearest_classes  the classes that are nearest to being predicted
"""

from collections.abc import Callable

import tensorflow as tf

from madry_cifar.attacks.losses import is_true, is_wrong
from madry_cifar.attacks.steps import where
from madry_cifar.predictor import Predictor
from madry_cifar.randomness import Draws

# Rows of fewer or other numbers may be rounded otherwise on a CPU: batch norm's last ones unless there are a multiple
# of 8, and the gradient of a dense layer where there are only 8
_MULTIPLE = 16
# Numbers of the queries by which an attack looks at the image, and at what it has made of it; its steps start at 0
LOOK, LOOK_AGAIN = -2, -3
# Of a stochastic predictor: how many draws tell how often it gets an image wrong, and the last of their numbers
COUNTED, LAST_COUNTED = 20, -(10**5)


def rows_of(wanted: tf.Tensor) -> tf.Tensor:
    """The rows [R] int64 in which `wanted` [B] is true (at least one), the last repeated up to a multiple of 16."""
    rows = tf.where(wanted)[:, 0]
    count = tf.size(rows)
    return tf.gather(rows, tf.minimum(tf.range(-(-count // _MULTIPLE) * _MULTIPLE), count - 1))


def take(rows: tf.Tensor, values):
    """The rows [R] of each tensor [B, …] of a structure."""
    return tf.nest.map_structure(lambda value: tf.gather(value, rows), values)


def put(rows: tf.Tensor, new, values):
    """A structure of `values` [B, …] with `new` [R, …] in `rows` [R] as from `rows_of`."""
    return tf.nest.map_structure(
        lambda value, part: tf.tensor_scatter_nd_update(value, rows[:, tf.newaxis], part), values, new
    )


def is_settled(predictor: Predictor, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Which images [B] an attack need not go on with: those that the predictor gets wrong.

    None, where outputs are random: a point that is wrong by one draw may be right by the next one, and images with
    better points around them would be left there. Copies that fill a batch (label -1) always are.
    """
    return labels < 0 if predictor.stochastic else is_wrong(logits, labels)


def first_error(predictor: Predictor, images, labels, draws: Draws, attempt: Callable, count) -> tf.Tensor:
    """Of `count` attempts on each image, the first that the predictor gets wrong, or else the last.

    Images that the predictor gets wrong as they are, are returned so, and from its first error on an image is left
    alone. Of a predictor with random outputs it is the attempt that most of 20 draws get wrong, the first of several.

    Args:
      predictor: what is attacked.
      images: [B, H, W, C].
      labels: [B] true classes.
      draws: of the images.
      attempt: called as `attempt(number, rows, draws)` with the number of the attempt, from 0 on, the rows to attack
        and their draws for it; returns adversarial images [R, H, W, C] of these.
      count: of attempts, at least one; may be a scalar tensor.

    Returns:
      Adversarial images [B, H, W, C].
    """

    if predictor.stochastic:
        return _most_errors(predictor, images, labels, draws, attempt, count)

    def wrong_on(images, labels, draws, look):
        return is_wrong(predictor(images, draws.query(look)).logits, labels)

    def body(number, adversarial, wrong):
        rows = rows_of(~wrong)
        of_rows = draws.again(number).take(rows)
        new = attempt(number, rows, of_rows)
        new_wrong = wrong_on(new, tf.gather(labels, rows), of_rows, LOOK_AGAIN)
        return number + 1, *put(rows, (new, new_wrong), (adversarial, wrong))

    return tf.while_loop(
        lambda number, adversarial, wrong: (number < count) & ~tf.reduce_all(wrong),
        body,
        (0, images, wrong_on(images, labels, draws, LOOK)),
        parallel_iterations=1,
    )[1]


def _most_errors(predictor, images, labels, draws, attempt, count):
    rows = rows_of(labels >= 0)
    true = tf.gather(labels, rows)

    def errors(images, draws):
        def add(number, so_far):
            wrong = is_wrong(predictor(images, draws.query(LAST_COUNTED - number)).logits, true)
            return number + 1, so_far + tf.cast(wrong, tf.int32)

        return tf.while_loop(
            lambda number, _: number < COUNTED, add, (0, tf.zeros_like(true, tf.int32)), parallel_iterations=1
        )[1]

    def body(number, adversarial, most):
        of_rows = draws.again(number).take(rows)
        new = attempt(number, rows, of_rows)
        found = errors(new, of_rows)
        return number + 1, where(found > most, new, adversarial), tf.maximum(found, most)

    _, adversarial, _ = tf.while_loop(
        lambda number, _, most: (number < count) & tf.reduce_any(most < COUNTED),
        body,
        (0, tf.gather(images, rows), tf.fill(tf.shape(rows), -1)),
        parallel_iterations=1,
    )
    return put(rows, adversarial, images)


def nearest_classes(predictor: Predictor, images, labels, draws: Draws, count: int) -> tf.Tensor:
    """The `count` classes other than the true one with the largest logits, [B, count], the largest first."""
    logits = predictor(images, draws.query(LOOK)).logits
    return tf.math.top_k(
        tf.where(is_true(labels, logits), logits.dtype.min, logits), min(count, logits.shape[1] - 1)
    ).indices
