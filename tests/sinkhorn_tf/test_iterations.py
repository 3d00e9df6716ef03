"""What the iterations keep and how they are compiled, read from the graphs; and what a float32 gradient is worth."""

import numpy as np
import pytest
import tensorflow as tf

from sinkhorn_tf import sinkhorn_distance
from sinkhorn_tf.iterations import iterate

N, M, D, ITERATIONS = 7, 5, 11, 13  # the products of any two differ


def value_and_gradients(distance, **settings):
    def function(x, y):
        with tf.GradientTape() as tape:
            tape.watch([x, y])
            value = distance(x, y, **settings)
        return value, *tape.gradient(value, [x, y])

    return function


def looped(x, y, iterations=ITERATIONS):
    """The iterations in a loop that TensorFlow differentiates: what ours is not."""
    cost = tf.reduce_sum(tf.math.squared_difference(x[:, tf.newaxis], y), axis=2)

    def iteration(_, g):
        f = tf.reduce_logsumexp(-cost - g, axis=1, keepdims=True)
        return f, tf.reduce_logsumexp(-cost - f, axis=0, keepdims=True)

    start = tf.zeros_like(cost[:, :1]), tf.zeros_like(cost[:1])
    f, g = tf.while_loop(lambda *_: True, iteration, start, maximum_iterations=iterations)
    return tf.reduce_sum(tf.exp(-cost - f - g) * cost)


def operations(graph):
    """The operations of a graph and of the loops in it."""
    for op in graph.get_operations():
        yield op
        if op.type.endswith("While"):
            owner, name = graph, op.get_attr("body").name
            while name not in owner._functions:
                owner = owner.outer_graph
            yield from operations(owner._functions[name].graph)


def concrete(distance, dtype="float32", **settings):
    specification = [tf.TensorSpec([count, D], dtype) for count in (N, M)]
    return tf.function(
        value_and_gradients(distance, **settings), specification, autograph=False
    ).get_concrete_function()


def stored(function):
    """The shapes of what the loops write into lists, one at each turn."""
    inputs = {"TensorListSetItem": 2, "TensorListPushBack": 1}
    found = [op.inputs[inputs[op.type]] for op in operations(function.graph) if op.type in inputs]
    return {tuple(item.shape) for item in found if item.dtype.is_floating}


def largest(function):
    """The number of elements of the largest tensor whose shape is known."""
    outputs = (tensor for op in operations(function.graph) for tensor in op.outputs)
    return max(tensor.shape.num_elements() or 0 for tensor in outputs)


@pytest.mark.parametrize("gradient", ["unrolled", "implicit", "envelope"])
def test_iterations_keep_their_potentials_alone(gradient):
    function = concrete(sinkhorn_distance, iterations=ITERATIONS, gradient=gradient)
    assert stored(function) == {(N, 1), (1, M)}
    assert (N, M) in stored(concrete(looped))  # where TensorFlow differentiates the loop


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_tensor_has_all_differences_or_all_plans(dtype):
    assert largest(concrete(sinkhorn_distance, dtype, iterations=ITERATIONS)) == ITERATIONS * N
    assert largest(concrete(looped)) >= N * M * D


def test_the_graph_does_not_grow_with_the_iterations():
    sizes = {sum(1 for _ in operations(concrete(sinkhorn_distance, iterations=count).graph)) for count in (2, 200)}
    assert len(sizes) == 1


@pytest.mark.parametrize("gradient", ["unrolled", "implicit", "envelope"])
@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-10), ("float32", 1e-3)])  # float32 is right to 5e-5
def test_one_trace_serves_every_batch_size(dtype, bound, gradient):
    rng, traces = np.random.default_rng(0), []
    settings = {"regularization": 0.3, "iterations": 20, "gradient": gradient}

    @tf.function(input_signature=[tf.TensorSpec([None, 3], dtype)] * 2, autograph=False)
    def compiled(x, y):
        traces.append(1)
        return value_and_gradients(sinkhorn_distance, **settings)(x, y)

    for n, m in ((2, 2), (7, 3), (1, 9), (7, 3)):
        points = [tf.constant(rng.normal(size=(count, 3)), dtype) for count in (n, m)]
        for result, expected in zip(
            compiled(*points), value_and_gradients(sinkhorn_distance, **settings)(*points), strict=True
        ):
            np.testing.assert_allclose(result, expected, rtol=bound, atol=bound / 100)
    assert len(traces) == 1


@pytest.mark.parametrize("gradient", ["unrolled", "implicit", "envelope"])
def test_xla_gives_the_same(gradient):
    rng = np.random.default_rng(0)
    x, y = (tf.constant(rng.normal(size=(count, 3)), "float64") for count in (6, 4))
    function = value_and_gradients(sinkhorn_distance, regularization=0.5, iterations=50, gradient=gradient)
    for result, expected in zip(tf.function(function, jit_compile=True)(x, y), function(x, y), strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_follows_the_last_iteration_is_that_one_bit_for_bit(dtype):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 1, 3))
    scores = -500 * np.sum((x - x[:, 0] - 0.1 * rng.normal(size=(6, 3))) ** 2, axis=2)
    scores = tf.constant(scores, dtype)
    fs, gs, last = (each.numpy() for each in iterate(scores, 200))
    assert last < 190  # it ended early
    assert np.array_equal(gs[last], gs[last + 1])
    for count in range(last + 1, last + 5):  # where the loop must end as it does
        f, g, final = (each.numpy() for each in iterate(scores, count))
        assert np.array_equal(f[final], fs[last])
        assert np.array_equal(g[final + 1], gs[last + 1])
    shorter = iterate(scores, int(last))[2]
    assert shorter == last - 1  # and no sooner


def test_a_large_cost_common_to_all_leaves_the_float32_gradient_its_digits():
    """Corners of a simplex against the same ones far off in another direction: so the plan is exact in float32, too.

    But P ∘ C/ε is a million times what is left of it in the gradient, unless what its columns share is taken off first.
    """
    corners, offset = np.eye(8), 1024
    x, y = np.pad(corners, [(0, 0), (0, 1)]), np.pad(corners, [(0, 0), (0, 1)], constant_values=[(0, 0), (0, offset)])
    function = value_and_gradients(sinkhorn_distance, regularization=1.0)
    _, *exact = function(tf.constant(x), tf.constant(y))
    _, *results = function(tf.constant(x, tf.float32), tf.constant(y, tf.float32))
    for result, expected in zip(results, exact, strict=True):
        assert np.linalg.norm(result.numpy() - expected.numpy()) <= 1e-6 * np.linalg.norm(expected)


def test_the_gradient_in_a_loop_of_a_graph_that_takes_much_memory():
    """There TensorFlow keeps sums of three or more in temporary variables, and fails with them in nested loops."""
    x, y = tf.constant(np.random.default_rng(3).uniform(size=(2, 4, 8)))

    def climb(x):
        _, gradient, _ = value_and_gradients(sinkhorn_distance, regularization=0.1)(x, y)
        return x + 0.1 * gradient

    def several(x, large):
        filled = large + tf.cast(x[0, 0], tf.float32)  # 240 MB; what follows keeps it alive during the loop
        start = x + tf.cast(0 * filled[0], x.dtype)
        _, end = tf.while_loop(lambda k, _: k < 3, lambda k, x: (k + 1, climb(x)), (0, start))
        return end, tf.reduce_sum(filled * tf.cast(end[0, 0], tf.float32))

    compiled, large = tf.function(several, autograph=False), tf.zeros([60_000_000])
    for _ in range(3):  # the first call or the second failed
        ended, _ = compiled(x, large)
    np.testing.assert_allclose(ended, climb(climb(climb(x))), rtol=1e-9)
