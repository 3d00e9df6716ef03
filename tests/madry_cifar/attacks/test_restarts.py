"""Attempts until the model is wrong: which rows are worked on, which result is kept, and the randomness of each."""

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from madry_cifar.attacks import restarts
from madry_cifar.predictor import Outputs, Predictor
from madry_cifar.randomness import Draws


class Threshold(Predictor):
    """Class 1 where the first pixel is at least 100, class 0 where it is less."""

    def __call__(self, images, draw=0):
        first = images[:, 0, 0, 0]
        return Outputs(None, tf.stack([100 - first, tf.fill(tf.shape(first), 0.5)], axis=1))


network = Threshold()


def draws(count):
    return Draws(tf.constant([7, 0], tf.int64)).of(count)


def images_of(values):
    return tf.reshape(tf.constant(values, tf.float32), [-1, 1, 1, 1])


@hypothesis.given(st.lists(st.booleans(), min_size=1, max_size=40).filter(any))
def test_rows(wanted):
    rows = restarts.rows_of(tf.constant(wanted)).numpy()
    expected = np.flatnonzero(wanted)
    assert len(rows) % 16 == 0
    assert len(rows) - len(expected) < 16
    np.testing.assert_array_equal(rows[: len(expected)], expected)
    assert set(rows[len(expected) :]) <= {expected[-1]}


@pytest.mark.parametrize("compiled", [False, True])
def test_the_first_error_is_kept(compiled):
    calls = []

    def attempt(number, rows, draws):
        tf.py_function(lambda n, r: calls.append((int(n), sorted(set(r.numpy())))), [number, rows], [])
        return tf.gather(images, rows) + 30.0 * tf.cast(number + 1, tf.float32)

    images, labels = images_of([120, 80, 50, 5]), tf.zeros(4, tf.int32)

    def find():
        return restarts.first_error(network, images, labels, draws(4), attempt, 3)

    found = (tf.function(find, autograph=False) if compiled else find)()
    assert found[:, 0, 0, 0].numpy().tolist() == [120, 110, 110, 95]  # as it was; 1st; 2nd; none: the last
    assert calls == [(0, [1, 2, 3]), (1, [2, 3]), (2, [3])]


def test_no_attempt_where_all_is_wrong():
    def attempt(number, rows, draws):
        raise AssertionError("attacked what is wrong already") if tf.executing_eagerly() else None

    images = images_of([150, 200])
    assert restarts.first_error(network, images, tf.zeros(2, tf.int32), draws(2), attempt, 3) is not None


@pytest.mark.parametrize(("count", "expected"), [(1, [[2], [0]]), (2, [[2, 0], [0, 1]]), (9, [[2, 0], [0, 1]])])
def test_nearest_classes(count, expected):
    class Constant(Predictor):
        def __call__(self, images, draw=0):
            return Outputs(None, tf.constant([[1.0, 9.0, 4.0], [3.0, 2.0, 1.0]]))

    classes = restarts.nearest_classes(Constant(), None, tf.constant([1, 2]), draws(2), count)
    assert classes.numpy().tolist() == expected
