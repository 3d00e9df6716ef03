"""Stateless randomness: every draw is a function of (seed, step, purpose), so a resumed run repeats it.

The generator is named (Philox), because by default TensorFlow chooses another one when a function is compiled by XLA.

    draw_seed, uniform, normal    what a training step draws, for a batch at once
    Draws                         what an attack draws: for each image by its place, whatever else is in its batch
    noise                         what a predictor draws, for each image from the number that it is given
"""

import math
import zlib
from typing import NamedTuple

import tensorflow as tf

from madry_cifar import replicas

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
    bits_type = _LAYOUT[tf.as_dtype(dtype)][0]
    return _to_unit(tf.random.stateless_uniform(shape, seed, None, None, bits_type, alg=GENERATOR), dtype)


def _to_unit(bits, dtype):
    bits_type, mantissa, exponent = _LAYOUT[tf.as_dtype(dtype)]
    one = tf.constant(exponent << mantissa, bits_type)
    bits = tf.bitwise.bitwise_or(tf.bitwise.bitwise_and(bits, tf.constant((1 << mantissa) - 1, bits_type)), one)
    return tf.bitcast(bits, dtype) - 1


class Draws(NamedTuple):
    """The randomness of the images of a batch: a stream of numbers of which each image has its own stretch.

    What an image gets depends on `seed` [2] int64 and on its `place` alone, not on the rest of its batch.

    Attributes:
      place: [B] int64, where each image is in its split; None where the batch is all there is.
    """

    seed: tf.Tensor
    place: tf.Tensor | None = None

    def of(self, batch) -> "Draws":
        """With the places of a batch of this size, where they are not known."""
        return self if self.place is not None else self._replace(place=tf.range(tf.cast(batch, tf.int64)))

    def take(self, rows: tf.Tensor) -> "Draws":
        """Of some rows [R] of the batch."""
        return self._replace(place=tf.gather(self.place, rows))

    def again(self, number) -> "Draws":
        """Others, for another attempt; themselves for number 0."""
        seed = tf.cast(self.seed, tf.int64)
        first = tf.bitwise.left_shift(tf.cast(number, tf.int64), tf.constant(31, tf.int64))  # flags' seeds are below
        return self._replace(seed=seed + tf.stack([first, tf.zeros_like(first)]))

    def uniform(self, shape, low, high, dtype=tf.float32) -> tf.Tensor:
        """Uniform draws of a batch's `shape` [B, …] from low (included) to high (not included)."""
        if self.place is None:
            return replicas.draw(uniform, shape, self.seed, low, high, dtype)
        shape, bits_type = tf.cast(tf.convert_to_tensor(shape), tf.int64), _LAYOUT[tf.as_dtype(dtype)][0]
        each, first = tf.reduce_prod(shape[1:]), tf.reduce_min(self.place)
        span = self._span()
        key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=self.seed)
        per_counter = 16 // bits_type.size
        skipped = first * each % per_counter
        counter += tf.stack([tf.cast(first * each // per_counter, tf.uint64), tf.constant(0, tf.uint64)])
        bits = tf.raw_ops.StatelessRandomUniformFullIntV2(
            shape=[span * each + per_counter], key=key, counter=counter, alg=_PHILOX, dtype=bits_type
        )
        bits = tf.reshape(tf.slice(bits, [skipped], [span * each]), [span, each])
        stretches = tf.gather(bits, self.place - first)
        return tf.reshape(_to_unit(stretches, dtype), shape) * (high - low) + low

    def _span(self):
        """How many stretches there are from the first image's to the last one's, with those of images between them."""
        return tf.reduce_max(self.place) - tf.reduce_min(self.place) + 1

    def query(self, number) -> tf.Tensor:
        """[B] int64: the numbers that a predictor is given with the images at an attack's query of this number."""
        base = _mixed(_mixed(tf.cast(self.seed[0], tf.uint64)) + tf.cast(self.seed[1], tf.uint64))
        return tf.bitcast(_mixed(base + tf.cast(self.place, tf.uint64)), tf.int64) + tf.cast(number, tf.int64)


class ConsecutiveDraws(Draws):
    """Of images that follow each other in their split: XLA, which must know the size of all, can compile them."""

    def take(self, rows):
        return Draws(*self).take(rows)

    def _span(self):
        return tf.constant(self.place.shape[0], tf.int64)


_PHILOX = 1  # as the raw operations number it
_GOLDEN = 0x9E3779B97F4A7C15


def noise(draw, shape, dtype=tf.float32) -> tf.Tensor:
    """N(0, 1) noise [B, …] of a batch's `shape`, for each image from its number: `draw` [B] int64, or one for all.

    Equal numbers give equal noise, in any batch; different ones independent noise. SplitMix64 (Steele, Lea and Flood,
    2014), which unlike a TensorFlow generator takes another seed for each row, and Box and Muller's transform.
    """
    shape = tf.convert_to_tensor(shape, tf.int32)
    each = tf.reduce_prod(shape[1:])
    draw = tf.broadcast_to(tf.cast(draw, tf.int64), shape[:1])
    place = tf.cast(tf.range(2 * each) + 1, tf.uint64)
    bits = _mixed(_mixed(tf.bitcast(draw, tf.uint64))[:, tf.newaxis] + place * tf.constant(_GOLDEN, tf.uint64))
    unit = _to_unit(tf.cast(tf.bitwise.right_shift(bits, tf.constant(32, tf.uint64)), tf.uint32), tf.float32)
    first, second = tf.split(tf.cast(unit, dtype), 2, axis=1)
    radius = tf.sqrt(-2 * tf.math.log(tf.maximum(first, 1e-7)))
    return tf.reshape(radius * tf.sin(2 * math.pi * second), shape)


def _mixed(values):
    """SplitMix64's mixing of uint64 numbers: each bit of the result depends on all of a number's."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        values = tf.bitwise.bitwise_xor(values, tf.bitwise.right_shift(values, tf.constant(shift, tf.uint64)))
        values *= tf.constant(factor, tf.uint64)
    return tf.bitwise.bitwise_xor(values, tf.bitwise.right_shift(values, tf.constant(31, tf.uint64)))
