"""The implicit gradient, against finite differences, the unrolled gradient and the derivative in closed form."""

import numpy as np
import pytest
import tensorflow as tf

from sinkhorn_tf import sinkhorn_distance


def clouds(n, m, d=3):
    rng = np.random.default_rng([n, m])
    return rng.normal(size=(n, d)), rng.normal(size=(m, d))


def gradients(x, y, gradient="implicit", **settings):
    x, y = tf.convert_to_tensor(x), tf.convert_to_tensor(y)
    with tf.GradientTape() as tape:
        tape.watch([x, y])
        value = sinkhorn_distance(x, y, gradient=gradient, **settings)
    return tf.concat(tape.gradient(value, [x, y]), axis=0)


def relative_error(value, expected):
    return np.linalg.norm(np.asarray(value, np.float64) - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize(("n", "m"), [(5, 5), (4, 7), (6, 3), (1, 4), (4, 1)])
def test_converged_it_is_that_of_finite_differences(n, m):
    x, y = clouds(n, m)

    @tf.function(autograph=False)
    def distance(x, y):
        return sinkhorn_distance(x, y, regularization=1.0, iterations=500)

    numeric = tf.test.compute_gradient(distance, [x, y], delta=1e-5)[1]
    expected = np.concatenate([each.reshape(-1, 3) for each in numeric])
    np.testing.assert_allclose(gradients(x, y, regularization=1.0, iterations=500), expected, atol=1e-8)


@pytest.mark.parametrize(("n", "m"), [(5, 5), (4, 7), (6, 3)])
def test_the_unrolled_gradient_tends_to_it(n, m):
    points = clouds(n, m)
    errors = []
    for iterations in (2, 20, 200):
        settings = {"regularization": 1.0, "iterations": iterations}
        errors.append(relative_error(gradients(*points, **settings), gradients(*points, "unrolled", **settings)))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1e-2  # not right before
    assert errors[-1] < 1e-10
    assert relative_error(gradients(*points, "envelope", **settings), gradients(*points, **settings)) > 0.05


@pytest.mark.parametrize("s", [0.1, 1.0, 5.0])
def test_two_points_against_themselves(s):
    """Points 0 and s: D = s²/(1 + e^(s²/ε)) whatever the number of iterations."""
    regularization = 0.7
    points = np.array([[0.0], [s]])
    share = 1 / (1 + np.exp(s**2 / regularization))
    result = gradients(points, points, regularization=regularization).numpy()[[1, 3]].sum()  # both points s move
    np.testing.assert_allclose(result, 2 * s * share * (1 - s**2 / regularization * (1 - share)), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_at_a_permutation_where_its_equations_are_singular(dtype, jit_compile):
    x, _ = clouds(8, 8, d=20)
    y = x[::-1] + 0.01
    results = tf.function(gradients, jit_compile=jit_compile)(tf.constant(x, dtype), tf.constant(y, dtype))
    paired = 2 * (x - y[::-1]) / 8
    assert relative_error(results, np.concatenate([paired, -paired[::-1]])) <= (1e-4 if dtype == "float32" else 1e-11)


@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e2])
def test_float32_is_near_float64_at_every_scale(scale):
    x, y = (scale * points.astype(np.float32) for points in clouds(6, 5))
    settings = {"regularization": float(scale**2), "iterations": 300}
    exact = gradients(x.astype(np.float64), y.astype(np.float64), **settings)
    assert relative_error(gradients(x, y, **settings), exact) <= 1e-5
