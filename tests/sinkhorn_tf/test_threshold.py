"""The stopping rule of the Sinkhorn iterations, against counting them in NumPy with the potentials u and v."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import logsumexp

from sinkhorn_tf import cosine_cost, sinkhorn_distance, squared_euclidean_cost, transport_plan

COSTS = {"squared_euclidean": squared_euclidean_cost, "cosine": cosine_cost}


def iterations_taken(cost, regularization, threshold, most):
    """How many iterations u = ε(log 1/n − log Σ_j exp((v_j − C_ij)/ε)) takes to move by less than the threshold."""
    n, m = cost.shape
    u, v = np.zeros(n), np.zeros(m)
    for number in range(1, most + 1):
        before = u
        u = regularization * (np.log(1 / n) - logsumexp((v - cost) / regularization, axis=1))
        v = regularization * (np.log(1 / m) - logsumexp((u[:, np.newaxis] - cost) / regularization, axis=0))
        if abs(u - before).sum() < threshold:
            return number
    return most


def value_and_gradients(x, y, **settings):
    x, y = tf.constant(x), tf.constant(y)
    with tf.GradientTape() as tape:
        tape.watch((x, y))
        value = sinkhorn_distance(x, y, **settings)
    return value, *tape.gradient(value, (x, y))


@pytest.mark.parametrize("cost", sorted(COSTS))
@pytest.mark.parametrize(("n", "m", "threshold"), [(12, 12, 0.1), (5, 9, 0.1), (12, 12, 1e-2), (6, 6, 100.0)])
def test_the_last_iteration_is_the_first_that_moves_less(cost, n, m, threshold):
    rng = np.random.default_rng([n, m])
    x, y = rng.normal(size=(n, 4)), rng.normal(size=(m, 4))
    settings = {"cost": cost, "regularization": 0.3}
    taken = iterations_taken(COSTS[cost](x, y).numpy(), 0.3, threshold, 100)
    assert (taken == 1) if threshold == 100 else (1 < taken < 100)
    stopped = value_and_gradients(x, y, threshold=threshold, iterations=100, **settings)
    counted = value_and_gradients(x, y, iterations=taken, **settings)
    for found, expected in zip(stopped, counted, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
    plans = (transport_plan(x, y, **settings, **kwargs) for kwargs in ({"threshold": threshold}, {"iterations": taken}))
    np.testing.assert_allclose(*plans, rtol=1e-12)
    further = value_and_gradients(x, y, iterations=taken + 1, **settings)
    assert not np.allclose(further[2], stopped[2], rtol=1e-6, atol=0)


def test_iterations_bound_what_a_threshold_would_allow():
    x, y = np.random.default_rng(0).normal(size=(2, 8, 3))
    stopped = value_and_gradients(x, y, threshold=1e-12, iterations=3)
    counted = value_and_gradients(x, y, iterations=3)
    for found, expected in zip(stopped, counted, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"threshold": -1.0}, "threshold must be at least 0.*-1.0"), ({"cost": "l1"}, "cost must be one of.*'l1'")],
)
@pytest.mark.parametrize("function", [sinkhorn_distance, transport_plan])
def test_what_is_refused(function, settings, message):
    with pytest.raises(ValueError, match=message):
        function(np.zeros((2, 2)), np.zeros((2, 2)), **settings)
