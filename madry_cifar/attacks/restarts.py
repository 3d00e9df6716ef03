"""Attacks that try again, from another start or toward another class, as long as the model is right.

first_error   the loop: of several attempts on each image, the first that the model gets wrong
packed        the images still to work on, as rows to gather
ranked        the classes that are nearest to being predicted
reseeded, places   the randomness of each attempt, and of each image
"""

from collections.abc import Callable

import tensorflow as tf

from madry_cifar.attacks import losses

# Rows of fewer or other numbers may be rounded otherwise on a CPU: batch norm's last ones unless there are a multiple
# of 8, and the gradient of a dense layer where there are only 8
_MULTIPLE = 16


def packed(wanted: tf.Tensor) -> tf.Tensor:
    """The rows [R] int64 in which `wanted` [B] is true (at least one), the last repeated up to a multiple of 16."""
    rows = tf.where(wanted)[:, 0]
    count = tf.size(rows)
    return tf.gather(rows, tf.minimum(tf.range(-(-count // _MULTIPLE) * _MULTIPLE), count - 1))


def put(values: tf.Tensor, rows: tf.Tensor, new: tf.Tensor) -> tf.Tensor:
    """`values` [B, …] with `new` [R, …] in `rows` [R] as from `packed`."""
    return tf.tensor_scatter_nd_update(values, rows[:, tf.newaxis], new)


def is_wrong(model, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Whether the model gets each image wrong, [B]."""
    predicted = tf.argmax(model(images, batch_norm="eval").logits, axis=1, output_type=labels.dtype)
    return predicted != labels


def first_error(model, images: tf.Tensor, labels: tf.Tensor, attempt: Callable, count) -> tf.Tensor:
    """Of `count` attempts on each image, the first that the model gets wrong, or else the last.

    Images that the model gets wrong as they are, are returned so, and from its first error on an image is left alone.

    Args:
      model: called as `model(images, batch_norm="eval")`, returns `.logits` [B, K].
      images: [B, H, W, C].
      labels: [B] true classes.
      attempt: called as `attempt(number, rows)` with the number of the attempt, from 0 on, and the `packed` rows to
        attack; returns adversarial images [R, H, W, C] of these.
      count: of attempts, at least one; may be a scalar tensor.

    Returns:
      Adversarial images [B, H, W, C].
    """

    def body(number, adversarial, wrong):
        rows = packed(~wrong)
        found = attempt(number, rows)
        is_error = is_wrong(model, found, tf.gather(labels, rows))
        return number + 1, put(adversarial, rows, found), put(wrong, rows, is_error)

    return tf.while_loop(
        lambda number, adversarial, wrong: (number < count) & ~tf.reduce_all(wrong),
        body,
        (0, images, is_wrong(model, images, labels)),
        parallel_iterations=1,
    )[1]


def ranked(model, images: tf.Tensor, labels: tf.Tensor, count: int) -> tf.Tensor:
    """The `count` classes other than the true one with the largest logits, [B, count], the largest first."""
    logits = model(images, batch_norm="eval").logits
    return tf.math.top_k(
        tf.where(losses.is_true(labels, logits), logits.dtype.min, logits), min(count, logits.shape[1] - 1)
    ).indices


def reseeded(seed, number) -> tf.Tensor:
    """The seed, [2] or [B, 3] int64 as an `Attack` is given it, for another attempt; itself for number 0."""
    seed = tf.cast(seed, tf.int64)
    first = tf.bitwise.left_shift(tf.cast(number, tf.int64), tf.constant(31, tf.int64))  # flags' seeds are below
    return seed + tf.one_hot(0, seed.shape[-1], on_value=first, off_value=tf.constant(0, tf.int64), dtype=tf.int64)


def places(seed, batch) -> tf.Tensor:
    """The row [B] of each of `batch` images in the batch that it had its place in before images were packed."""
    seed = tf.cast(seed, tf.int64)
    return tf.range(tf.cast(batch, tf.int64)) if seed.shape.rank == 1 else seed[:, 2]
