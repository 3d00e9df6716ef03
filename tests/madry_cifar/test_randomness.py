"""Draws: functions of their seed alone."""

import numpy as np
import pytest
import tensorflow as tf

from madry_cifar import attacks, data
from madry_cifar.randomness import draw_seed, normal, uniform


@pytest.mark.parametrize(
    "draw",
    [
        lambda: draw_seed(3, 7, "a"),
        lambda: normal([5], draw_seed(3, 7, "a")),
        lambda: uniform([5], draw_seed(3, 7, "a"), -1, 1),
        lambda: attacks.random_start(tf.fill([2, 4, 4, 3], 100.0), 8.0, draw_seed(3, 7, "a")),
        lambda: data.augment(tf.reshape(tf.range(96), [2, 4, 4, 3]), 3, 7),
    ],
)
def test_draws_are_the_same_with_and_without_xla(draw):
    """By default TensorFlow chooses another generator under XLA, and a run would go on otherwise on a GPU."""
    np.testing.assert_array_equal(tf.function(draw, jit_compile=True)(), tf.function(draw)())


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
