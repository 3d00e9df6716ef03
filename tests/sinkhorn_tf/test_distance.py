"""The Sinkhorn distance, against the released code, POT, SciPy, closed forms, and iterations unrolled in the graph."""

import itertools

import numpy as np
import ot
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from released import RELEASED
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from sinkhorn_tf import sinkhorn_distance, transport_plan


def relative_error(value, expected):
    return np.linalg.norm(value - np.asarray(expected, np.float64)) / np.linalg.norm(expected)


def clouds(n, m, d=3, scale=1.0, seed=0):
    rng = np.random.default_rng([seed, n, m])
    return scale * rng.normal(size=(n, d)), scale * rng.normal(size=(m, d))


def value_and_gradients(function, x, y):
    x, y = tf.convert_to_tensor(x), tf.convert_to_tensor(y)
    with tf.GradientTape() as tape:
        tape.watch([x, y])
        value = function(x, y)
    return value, *tape.gradient(value, [x, y])


def ours(iterations=100, regularization=0.01, **kwargs):
    return lambda x, y: sinkhorn_distance(x, y, regularization=regularization, iterations=iterations, **kwargs)


def plain(iterations=100, regularization=0.01, potentials=None):
    """Every iteration written out, to be differentiated by TensorFlow."""

    def distance(x, y):
        n, m = x.shape[0], y.shape[0]
        cost = tf.reduce_sum((x[:, tf.newaxis] - y) ** 2, axis=-1)
        v = tf.zeros(m, cost.dtype)
        for _ in range(iterations):
            u = -regularization * (np.log(n) + tf.reduce_logsumexp((v - cost) / regularization, axis=1))
            exponents = (u[:, tf.newaxis] - cost) / regularization
            v = -regularization * (np.log(m) + tf.reduce_logsumexp(exponents, axis=0))
            if potentials is not None:
                potentials.append(v.numpy())
        return tf.reduce_sum(tf.exp((u[:, tf.newaxis] + v - cost) / regularization) * cost)

    return distance


@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-6), ("float32", 1e-4)])
@pytest.mark.parametrize(("case", "way"), [*itertools.product(range(6), ("eager", "function")), (1, "xla"), (3, "xla")])
def test_released_code(case, way, dtype, bound):
    def run(x, y):
        return value_and_gradients(sinkhorn_distance, x, y)

    if way != "eager":
        run = tf.function(run, jit_compile=way == "xla")
    results = run(*(tf.constant(RELEASED[f"sink{case}_{name}"], dtype) for name in "xy"))
    for name, result in zip(("cost", "gx", "gy"), results, strict=True):
        assert result.dtype == dtype
        assert relative_error(result, RELEASED[f"sink{case}_{name}"]) <= bound, name


@pytest.mark.parametrize("iterations", [1, 2, 7, 200])
@pytest.mark.parametrize(("n", "m"), [(5, 5), (4, 7), (6, 3)])
def test_plan_and_cost_after_each_number_of_iterations_are_those_of_pot(n, m, iterations):
    x, y = clouds(n, m)
    cost = cdist(x, y, "sqeuclidean")
    # POT updates the potential of the second marginal first, so it is given the transposed problem.
    theirs = ot.sinkhorn(
        np.full(m, 1 / m),
        np.full(n, 1 / n),
        cost.T,
        reg=0.5,
        method="sinkhorn_log",
        numItermax=iterations,
        stopThr=0,
        warn=False,
    ).T
    settings = {"regularization": 0.5, "iterations": iterations}
    np.testing.assert_allclose(transport_plan(x, y, **settings), theirs, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(sinkhorn_distance(x, y, **settings), np.sum(theirs * cost), rtol=1e-11)


@pytest.mark.parametrize("regularization", [0.3, 1.0])
def test_distance_is_within_the_entropy_of_the_best_assignment(regularization):
    """best ≤ D ≤ best + ε log n, up to what the rows miss of their weights where the plan has not quite converged."""

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float64)] * 2)
    def plan_and_distance(x, y):
        kwargs = {"regularization": regularization, "iterations": 400}
        return transport_plan(x, y, **kwargs), sinkhorn_distance(x, y, **kwargs)

    @settings(deadline=None, max_examples=20)
    @given(st.integers(2, 6), st.integers(0, 1000))
    def check(n, seed):
        x, y = clouds(n, n, seed=seed)
        cost = cdist(x, y, "sqeuclidean")
        best = cost[linear_sum_assignment(cost)].mean()
        plan, distance = plan_and_distance(x, y)
        slack = 1e-12 + 2 * np.abs(plan.numpy().sum(axis=1) - 1 / n).sum() * cost.max()
        assert best - slack <= distance <= best + regularization * np.log(n) + slack

    check()


def test_distance_is_the_cost_of_the_best_assignment_at_a_small_regularization():
    x, _ = clouds(8, 8)
    rng = np.random.default_rng(1)
    y = (x + 0.05 * rng.normal(size=x.shape))[rng.permutation(8)]
    cost = cdist(x, y, "sqeuclidean")
    rows, columns = linear_sum_assignment(cost)
    plan = np.zeros((8, 8))
    plan[rows, columns] = 1 / 8
    np.testing.assert_allclose(transport_plan(x, y, regularization=1e-3), plan, atol=1e-12)
    np.testing.assert_allclose(sinkhorn_distance(x, y, regularization=1e-3), cost[rows, columns].mean(), rtol=1e-12)


@pytest.mark.parametrize("iterations", [1, 3, 100])
def test_columns_of_the_plan_always_sum_to_their_weight(iterations):
    plan = transport_plan(*clouds(5, 9, scale=4.0), iterations=iterations).numpy()
    assert plan.min() >= 0
    np.testing.assert_allclose(plan.sum(axis=0), 1 / 9, rtol=1e-14)


def test_rows_of_the_plan_tend_to_their_weight():
    x, y = clouds(5, 9)
    errors = [
        np.abs(transport_plan(x, y, regularization=0.5, iterations=n).numpy().sum(axis=1) - 1 / 5).sum()
        for n in (1, 10, 100, 1000)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1e-2
    assert errors[-1] < 1e-13


def test_distance_is_symmetric_once_converged():
    x, y = clouds(5, 8)
    run = tf.function(lambda x, y: value_and_gradients(ours(300, 1.0), x, y))
    (forward, gx, gy), (backward, hy, hx) = run(x, y), run(y, x)
    np.testing.assert_allclose(forward, backward, rtol=1e-13)
    assert relative_error(gx, hx) <= 1e-12
    assert relative_error(gy, hy) <= 1e-12
    few, reverse = (float(ours(2, 1.0)(*points)) for points in ((x, y), (y, x)))
    assert abs(few - reverse) > 1e-3  # not so before


@pytest.mark.parametrize("regularization", [0.2, 1.0, 5.0])
def test_two_points_against_themselves(regularization):
    """Points 0 and s: off the diagonal the plan is e^(-s²/ε) / (1 + e^(-s²/ε)) / 2, from the first iteration on."""
    s, points = 1.3, np.array([[0.0], [1.3]])
    value, gx, gy = value_and_gradients(ours(100, regularization), points, points)
    share = np.exp(-(s**2) / regularization) / (1 + np.exp(-(s**2) / regularization))
    np.testing.assert_allclose(value, s**2 * share, rtol=1e-13)
    by_square = share - s**2 / regularization * share * (1 - share)
    np.testing.assert_allclose(tf.reduce_sum((gx + gy) * points), by_square * 2 * s**2, rtol=1e-11)


@pytest.mark.parametrize(("n", "m", "iterations"), [(5, 3, 1), (3, 6, 2), (4, 4, 5), (1, 4, 5), (5, 3, 100)])
def test_gradient_is_that_of_finite_differences(n, m, iterations):
    x, y = clouds(n, m)
    analytic, numeric = tf.test.compute_gradient(tf.function(ours(iterations, 0.3)), [x, y], delta=1e-5)
    for exact, approximate in zip(analytic, numeric, strict=True):
        np.testing.assert_allclose(exact, approximate, atol=1e-7)


@pytest.mark.parametrize("iterations", [1, 2, 5, 100])
@pytest.mark.parametrize("scale", [0.03, 0.3, 3.0])
@pytest.mark.parametrize(("n", "m"), [(1, 5), (7, 4), (3, 8)])
def test_value_and_gradients_are_those_of_the_unrolled_iterations(n, m, scale, iterations):
    x, y = clouds(n, m, scale=scale)
    results = value_and_gradients(ours(iterations), x, y)
    for result, expected in zip(results, value_and_gradients(plain(iterations), x, y), strict=True):
        assert relative_error(result, expected) <= 1e-10


def test_upstream_gradients_are_passed_on():
    x, y = clouds(4, 5)
    _, gx, gy = value_and_gradients(lambda x, y: 3 * ours(5)(x, y) ** 2, x, y)
    _, hx, hy = value_and_gradients(lambda x, y: 3 * plain(5)(x, y) ** 2, x, y)
    assert relative_error(gx, hx) <= 1e-10
    assert relative_error(gy, hy) <= 1e-10


@pytest.mark.parametrize(("scale", "repeats"), [(0.02, True), (0.1, True), (0.3, False)])
def test_leaving_the_loop_early_changes_nothing(scale, repeats):
    x, y = clouds(6, 6, scale=scale)
    potentials = []
    expected = value_and_gradients(plain(100, potentials=potentials), x, y)
    results = value_and_gradients(ours(100), x, y)
    same = [np.array_equal(*pair) for pair in itertools.pairwise(potentials)]
    assert any(same[:90]) == repeats  # the case is what it is meant to be
    assert relative_error(results[0], expected[0]) <= 1e-14
    assert relative_error(results[1], expected[1]) <= 1e-12
    assert relative_error(results[2], expected[2]) <= 1e-12


@pytest.mark.parametrize("gradient", ["unrolled", "implicit", "envelope"])
def test_collapsed_points_have_distance_and_gradient_zero(gradient):
    points = np.full((6, 4), 0.7)
    value, gx, gy = value_and_gradients(ours(gradient=gradient), points, points)
    assert float(value) == 0
    np.testing.assert_allclose(gx, 0, atol=1e-15)
    np.testing.assert_allclose(gy, 0, atol=1e-15)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_huge_costs_neither_overflow_nor_cancel(dtype):
    """Far from every other point, each has its own partner: D is the mean of their squared distances."""
    rng = np.random.default_rng(0)
    x = (1e4 * np.arange(8)[:, np.newaxis] + rng.normal(size=(8, 3))).astype(dtype)
    y = (x + 100 * rng.normal(size=x.shape)).astype(dtype)
    value, gx, gy = value_and_gradients(sinkhorn_distance, x, y)
    bound = 1e-6 if dtype == "float32" else 1e-13
    assert relative_error(value, np.sum((x - y).astype(np.float64) ** 2) / 8) <= bound
    assert relative_error(gx, 2 * (x - y).astype(np.float64) / 8) <= bound
    assert relative_error(gy, 2 * (y - x).astype(np.float64) / 8) <= bound


def test_one_point_each():
    x, y = clouds(1, 1, d=10)
    value, gx, gy = value_and_gradients(sinkhorn_distance, x, y)
    np.testing.assert_allclose(value, np.sum((x - y) ** 2), rtol=1e-14)
    np.testing.assert_allclose(gx, 2 * (x - y), rtol=1e-14)
    np.testing.assert_allclose(gy, 2 * (y - x), rtol=1e-14)


def test_many_points():
    points = 10 * np.arange(1500.0)[:, np.newaxis]
    value, gx, gy = value_and_gradients(sinkhorn_distance, points, points[::-1] + 0.5)
    np.testing.assert_allclose(value, 0.5**2, rtol=1e-12)
    np.testing.assert_allclose(gx, -2 * 0.5 / 1500, rtol=1e-9)
    np.testing.assert_allclose(gy, 2 * 0.5 / 1500, rtol=1e-9)


def test_points_that_are_not_finite_do_not_go_unseen():
    x, y = clouds(4, 4)
    x[1, 2] = np.nan
    assert np.isnan(sinkhorn_distance(x, y))


def test_envelope_gradient_takes_the_plan_as_constant():
    x, y = clouds(4, 6)
    kwargs = {"regularization": 0.5, "iterations": 20}
    plan = transport_plan(x, y, **kwargs).numpy()
    value, gx, gy = value_and_gradients(ours(20, 0.5, gradient="envelope"), x, y)
    np.testing.assert_allclose(value, sinkhorn_distance(x, y, **kwargs), rtol=1e-14)
    np.testing.assert_allclose(gx, 2 * (plan.sum(axis=1)[:, np.newaxis] * x - plan @ y), rtol=1e-12)
    np.testing.assert_allclose(gy, 2 * (plan.sum(axis=0)[:, np.newaxis] * y - plan.T @ x), rtol=1e-12)
    assert relative_error(gx, value_and_gradients(ours(20, 0.5), x, y)[1]) > 0.05  # here the plan reacts


def test_envelope_gradient_is_the_unrolled_one_where_the_plan_is_a_permutation():
    x, _ = clouds(8, 8, d=20)
    y = x[::-1] + 0.01
    for unrolled, envelope in zip(
        value_and_gradients(ours(), x, y), value_and_gradients(ours(gradient="envelope"), x, y), strict=True
    ):
        assert relative_error(envelope, unrolled) <= 1e-12


def test_plan_is_constant_to_differentiation():
    x, y = clouds(3, 3)
    assert value_and_gradients(transport_plan, x, y)[1:] == (None, None)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"regularization": 0.0}, "regularization must be positive.*0.0"),
        ({"regularization": -1.0}, "regularization must be positive.*-1.0"),
        ({"regularization": float("nan")}, "regularization must be positive.*nan"),
        ({"iterations": 0}, "iterations must be at least 1.*0"),
    ],
)
@pytest.mark.parametrize("function", [sinkhorn_distance, transport_plan])
def test_arguments_out_of_range_are_refused(function, kwargs, message):
    with pytest.raises(ValueError, match=message):
        function(*clouds(2, 2), **kwargs)


def test_unknown_gradient_is_refused():
    with pytest.raises(ValueError, match=r"gradient must be one of .*'unrolled'.*Received: gradient='exact'"):
        sinkhorn_distance(*clouds(2, 2), gradient="exact")


def test_points_of_different_dimension_are_refused():
    with pytest.raises(ValueError, match=r"x.shape=\(2, 3\), y.shape=\(2, 4\)"):
        sinkhorn_distance(np.zeros((2, 3)), np.zeros((2, 4)))
