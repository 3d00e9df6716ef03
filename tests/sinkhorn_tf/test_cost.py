"""The costs, against SciPy and finite differences."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import cdist

from sinkhorn_tf import cosine_cost, squared_euclidean_cost

coordinates = st.floats(-1e3, 1e3, allow_subnormal=False)


@settings(deadline=None, max_examples=50)
@given(st.data(), st.integers(1, 6), st.integers(1, 6), st.integers(1, 5))
def test_costs_are_those_of_scipy(data, n, m, d):
    x = data.draw(hnp.arrays(np.float64, (n, d), elements=coordinates))
    y = data.draw(hnp.arrays(np.float64, (m, d), elements=coordinates))
    cost = squared_euclidean_cost(x, y)
    assert cost.shape == (n, m)
    np.testing.assert_allclose(cost, cdist(x, y, "sqeuclidean"), rtol=1e-13, atol=1e-300)


def test_small_distances_far_from_the_origin_keep_their_digits():
    rng = np.random.default_rng(0)
    x = (1000 + rng.normal(size=(8, 640))).astype(np.float32)
    y = (x + 0.01 * rng.normal(size=x.shape)).astype(np.float32)
    exact = cdist(x.astype(np.float64), y.astype(np.float64), "sqeuclidean")
    cost = squared_euclidean_cost(x, y)
    assert cost.dtype == tf.float32
    np.testing.assert_allclose(cost, exact, rtol=1e-5)


@pytest.mark.parametrize(("n", "m", "d"), [(1, 1, 1), (3, 5, 4), (6, 2, 1)])
def test_gradient_is_that_of_finite_differences(n, m, d):
    rng = np.random.default_rng(n)
    x, y, weights = rng.normal(size=(n, d)), rng.normal(size=(m, d)), rng.normal(size=(n, m))
    analytic, numeric = tf.test.compute_gradient(
        lambda x, y: tf.reduce_sum(weights * squared_euclidean_cost(x, y)), [x, y], delta=1e-3
    )
    for ours, finite_difference in zip(analytic, numeric, strict=True):
        np.testing.assert_allclose(ours, finite_difference, atol=1e-9)


@pytest.mark.parametrize(
    ("x_shape", "y_shape"), [((4, 3), (4, 2)), ((3,), (4, 3)), ((4, 3), (3,)), ((2, 4, 3), (4, 3))]
)
def test_points_of_the_wrong_shape_are_refused(x_shape, y_shape):
    with pytest.raises(ValueError, match=r"x and y must be \[n, d\] and \[m, d\]"):
        squared_euclidean_cost(tf.zeros(x_shape), tf.zeros(y_shape))


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(2, 5), st.sampled_from([1e-2, 1.0, 1e3]), st.integers(0, 99))
def test_cosine_costs_are_those_of_scipy(n, m, d, scale, seed):
    rng = np.random.default_rng(seed)
    x, y = scale * rng.normal(size=(n, d)), scale * rng.normal(size=(m, d))
    np.testing.assert_allclose(cosine_cost(x, y), cdist(x, y, "cosine"), rtol=1e-12, atol=1e-14)


def test_cosine_costs_of_near_points_keep_their_digits():
    rng = np.random.default_rng(0)
    x = (5 + rng.normal(size=(8, 10))).astype(np.float32)
    y = (x + 1e-3 * rng.normal(size=x.shape)).astype(np.float32)
    cost = cosine_cost(x, y)
    assert cost.dtype == tf.float32
    np.testing.assert_allclose(cost, cdist(x.astype(np.float64), y.astype(np.float64), "cosine"), rtol=1e-6)


def test_gradient_of_cosine_costs_is_that_of_finite_differences():
    rng = np.random.default_rng(0)
    x, y, weights = rng.normal(size=(3, 4)), rng.normal(size=(5, 4)), rng.normal(size=(3, 5))
    analytic, numeric = tf.test.compute_gradient(
        lambda x, y: tf.reduce_sum(weights * cosine_cost(x, y)), [x, y], delta=1e-5
    )
    for ours, finite_difference in zip(analytic, numeric, strict=True):
        np.testing.assert_allclose(ours, finite_difference, atol=1e-8)


def test_points_at_the_origin_have_no_angle():
    x = tf.zeros([2, 3])
    with tf.GradientTape() as tape:
        tape.watch(x)
        cost = cosine_cost(x, tf.ones([1, 3]))
    np.testing.assert_array_equal(cost, 1)
    assert np.isfinite(tape.gradient(cost, x)).all()
