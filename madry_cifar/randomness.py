"""Stateless randomness: every draw is a function of (seed, step, purpose), so a resumed run repeats it.

The generator is named (Philox), because by default TensorFlow chooses another one when a function is compiled by XLA.
"""

import zlib

import tensorflow as tf

GENERATOR = "philox"


def draw_seed(seed: int, step, purpose: str) -> tf.Tensor:
    """The seed [2] int64 of a draw.

    `seed` is the run's seed, `step` the training step (int or scalar tensor) and `purpose` a name for what is drawn;
    draws of different purposes, steps or seeds are independent.
    """
    base = tf.constant([seed, zlib.crc32(purpose.encode())], tf.int64)
    return tf.random.fold_in(base, tf.cast(step, tf.int64), alg=GENERATOR)


def normal(shape, seed, dtype=tf.float32) -> tf.Tensor:
    """Draws from N(0, 1)."""
    return tf.random.stateless_normal(shape, seed, dtype=dtype, alg=GENERATOR)


def uniform(shape, seed, low, high, dtype=tf.float32) -> tf.Tensor:
    """Uniform draws from low (included) to high (not included)."""
    return tf.random.stateless_uniform(shape, seed, low, high, dtype, alg=GENERATOR)
