"""Stateless randomness: every draw is a function of (seed, step, purpose), so a resumed run repeats it.

The generator is named (Philox), because by default TensorFlow chooses another one when a function is compiled by XLA.
"""

import math
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


def uniform(shape, seed, low, high, dtype=tf.float32) -> tf.Tensor:
    """Uniform draws from low (included) to high (not included)."""
    if not tf.as_dtype(dtype).is_floating:
        return tf.random.stateless_uniform(shape, seed, low, high, dtype, alg=GENERATOR)
    return _unit(shape, seed, dtype) * (high - low) + low


def normal(shape, seed, dtype=tf.float32) -> tf.Tensor:
    """Draws from N(0, 1): Box and Muller's transform of pairs of uniform ones."""
    count = tf.reduce_prod(tf.convert_to_tensor(shape, tf.int32))
    first, second = tf.unstack(_unit([(count + 1) // 2, 2], seed, dtype), axis=1)
    radius, angle = tf.sqrt(-2 * tf.math.log(tf.maximum(first, 1e-7))), 2 * math.pi * second
    pairs = tf.stack([tf.sin(angle), tf.cos(angle)], axis=1) * radius[:, tf.newaxis]
    return tf.reshape(tf.reshape(pairs, [-1])[:count], shape)


_LAYOUT = {tf.float32: (tf.uint32, 23, 127), tf.float64: (tf.uint64, 52, 1023)}  # bits, of the mantissa, exponent of 1


def _unit(shape, seed, dtype):
    """Uniform draws from [0, 1): random bits as the mantissa of a number in [1, 2), less 1.

    Written out, because XLA makes other numbers of the same bits than TensorFlow's own operation, which does this.
    """
    bits_type, mantissa, exponent = _LAYOUT[tf.as_dtype(dtype)]
    bits = tf.random.stateless_uniform(shape, seed, None, None, bits_type, alg=GENERATOR)
    one = tf.constant(exponent << mantissa, bits_type)
    bits = tf.bitwise.bitwise_or(tf.bitwise.bitwise_and(bits, tf.constant((1 << mantissa) - 1, bits_type)), one)
    return tf.bitcast(bits, dtype) - 1
