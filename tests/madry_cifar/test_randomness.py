"""Draws: functions of their seed alone."""

import numpy as np
import pytest
import tensorflow as tf

from madry_cifar import attacks, data
from madry_cifar.randomness import draw_seed, normal, uniform


@pytest.mark.parametrize(
    ("draw", "rounding"),
    [
        (lambda step: draw_seed(3, step, "a"), 0),
        (lambda step: uniform([5], draw_seed(3, step, "a"), -1, 1), 0),
        (lambda step: uniform([5], draw_seed(3, step, "a"), -1, 1, tf.float64), 0),
        (lambda step: uniform([5], draw_seed(3, step, "a"), 0, 9, tf.int32), 0),
        (lambda step: normal([5], draw_seed(3, step, "a")), 1e-6),
        (lambda step: attacks.random_start(tf.fill([2, 4, 4, 3], 100.0), 8.0, draw_seed(3, step, "a")), 0),
        (lambda step: data.augment(tf.reshape(tf.range(96), [2, 4, 4, 3]), 3, step), 0),
    ],
)
def test_draws_are_the_same_with_and_without_xla(draw, rounding):
    """By default TensorFlow chooses another generator under XLA, and makes other floats of the same bits."""
    step = tf.constant(7, tf.int64)  # an argument: what depends on constants alone may never be compiled
    compiled, plain = tf.function(draw, jit_compile=True)(step), tf.function(draw)(step)
    np.testing.assert_allclose(compiled, plain, rtol=0, atol=rounding)


@pytest.mark.parametrize("shape", [[7], [4, 3, 5]])
def test_draws_are_those_of_tensorflow(shape):
    expected = tf.random.stateless_uniform(shape, (3, 4), -1, 3, alg="philox")
    np.testing.assert_array_equal(uniform(shape, (3, 4), -1, 3), expected)
    expected = tf.random.stateless_normal(shape, (3, 4), alg="philox")
    np.testing.assert_allclose(normal(shape, (3, 4)), expected, atol=1e-6)


def test_each_part_of_a_seed_matters():
    seeds = [draw_seed(3, 7, "a"), draw_seed(4, 7, "a"), draw_seed(3, 8, "a"), draw_seed(3, 7, "b")]
    assert len({tuple(seed.numpy()) for seed in seeds}) == 4
    np.testing.assert_array_equal(draw_seed(3, tf.constant(7), "a"), seeds[0])


def test_distributions():
    draws = normal([100_000], (1, 2), tf.float64).numpy()
    assert abs(draws.mean()) < 5 / 100_000**0.5
    assert abs(draws.var() - 1) < 5 * (2 / 100_000) ** 0.5
    draws = uniform([100_000], (1, 2), -1, 3, tf.float64).numpy()
    assert -1 <= draws.min() < -0.999
    assert 2.999 < draws.max() < 3
    assert abs(draws.mean() - 1) < 5 * (16 / 12 / 100_000) ** 0.5
