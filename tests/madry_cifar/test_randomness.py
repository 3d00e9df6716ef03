"""Draws: functions of their seed alone."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from madry_cifar import attacks, data
from madry_cifar.randomness import Draws, draw_seed, noise, normal, uniform


@pytest.mark.parametrize(
    ("draw", "rounding"),
    [
        (lambda step: draw_seed(3, step, "a"), 0),
        (lambda step: uniform([5], draw_seed(3, step, "a"), -1, 1), 0),
        (lambda step: uniform([5], draw_seed(3, step, "a"), -1, 1, tf.float64), 0),
        (lambda step: uniform([5], draw_seed(3, step, "a"), 0, 9, tf.int32), 0),
        (lambda step: normal([5], draw_seed(3, step, "a")), 1e-6),
        (lambda step: attacks.random_start(tf.fill([2, 4, 4, 3], 100.0), 8.0, Draws(draw_seed(3, step, "a"))), 0),
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


@pytest.mark.parametrize("shape", [[4, 4, 3], [3, 3, 1], [5], [1]])
@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_an_image_has_its_own_stretch_of_the_stream(shape, dtype):
    """Whatever the others of its batch: that of its place in a draw for all images."""
    seed, places = tf.constant([3, 0], tf.int64), [4, 2, 5, 2]
    whole = uniform([6, *shape], seed, -1, 1, dtype)
    draws = Draws(seed, tf.constant(places, tf.int64))
    np.testing.assert_array_equal(draws.uniform([4, *shape], -1, 1, dtype), tf.gather(whole, places))
    np.testing.assert_array_equal(draws.take([1]).uniform([1, *shape], -1, 1, dtype), whole[2:3])
    np.testing.assert_array_equal(Draws(seed).uniform([6, *shape], -1, 1, dtype), whole)
    assert not np.any(draws.again(1).uniform([4, *shape], -1, 1, dtype) == tf.gather(whole, places))


def test_numbers_of_queries():
    """Each image's own, whatever the others; another one for each query, attempt and seed."""
    seeds = [tf.constant(seed, tf.int64) for seed in ([3, 0], [4, 0], [3, 1])]
    draws = [Draws(seed).of(50) for seed in seeds] + [Draws(seeds[0]).of(50).again(1)]
    numbers = [each.query(number).numpy() for each in draws for number in (-2, -1, 0, 1, 2)]
    assert len(set(np.concatenate(numbers).tolist())) == 50 * 5 * 4
    np.testing.assert_array_equal(draws[0].take([7, 3]).query(1), numbers[3][[7, 3]])


def test_noise_belongs_to_its_number():
    some = noise(tf.constant([5, 9, 5], tf.int64), [3, 4, 2]).numpy()
    np.testing.assert_array_equal(some[0], some[2])
    np.testing.assert_array_equal(noise(tf.constant([9], tf.int64), [1, 4, 2])[0], some[1])
    np.testing.assert_array_equal(noise(9, [2, 4, 2]), [some[1]] * 2)


def test_noise_is_normal_and_independent():
    """For numbers that follow one another, as those of queries do."""
    draws = noise(tf.range(4000, dtype=tf.int64), [4000, 25]).numpy().astype(np.float64)
    assert stats.kstest(draws.ravel(), stats.norm.cdf).pvalue > 1e-4
    for other in (draws[:, 1:] * draws[:, :-1], draws[1:] * draws[:-1]):
        assert abs(other.mean()) < 5 / other.size**0.5
