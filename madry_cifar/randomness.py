"""Stateless randomness: every draw is a function of (seed, step, purpose), so a resumed run repeats it."""

import zlib

import tensorflow as tf


def draw_seed(seed: int, step, purpose: str) -> tf.Tensor:
    """The seed [2] int64 of a `tf.random.stateless_*` call.

    `seed` is the run's seed, `step` the training step (int or scalar tensor) and `purpose` a name for what is drawn;
    draws of different purposes, steps or seeds are independent.
    """
    return tf.random.fold_in(tf.constant([seed, zlib.crc32(purpose.encode())], tf.int64), tf.cast(step, tf.int64))
