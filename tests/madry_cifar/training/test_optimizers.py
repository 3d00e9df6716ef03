"""The optimizers against their formulas in NumPy and Keras's Adam, the schedule against TensorFlow 1's."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from madry_cifar.training.optimizers import Adam, Momentum, PiecewiseConstant


@pytest.mark.parametrize("steps_are", ["integers", "tensors"])
@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-14), ("float32", 1e-6)])
def test_momentum_keeps_the_gradients_themselves_when_the_rate_drops(dtype, bound, steps_are):
    rates, momentum, rng = (0.5, 0.0625), 0.9, np.random.default_rng(0)  # rates that float32 holds
    weights = [rng.normal(size=(2, 3)), rng.normal(size=4)]
    slots = [np.zeros_like(weight) for weight in weights]
    variables = [tf.Variable(weight, dtype=dtype) for weight in weights]
    optimizer = Momentum(variables, PiecewiseConstant(rates, [2]), momentum)
    for step in range(6):
        gradients = [rng.normal(size=weight.shape) for weight in weights]
        optimizer.apply(
            [tf.constant(gradient, dtype) for gradient in gradients],
            step if steps_are == "integers" else tf.constant(step, tf.int64),
        )
        for index, gradient in enumerate(gradients):
            slots[index] = momentum * slots[index] + gradient
            weights[index] = weights[index] - rates[step > 2] * slots[index]
        for variable, slot, weight, accumulated in zip(variables, optimizer.slots, weights, slots, strict=True):
            np.testing.assert_allclose(variable, weight, rtol=bound, atol=bound)
            np.testing.assert_allclose(slot, accumulated, rtol=bound, atol=bound)


def test_momentum_needs_a_gradient_for_each_variable():
    variables = [tf.Variable(1.0), tf.Variable(2.0)]
    optimizer = Momentum(variables, PiecewiseConstant([0.1]))
    with pytest.raises(ValueError, match="zip"):
        optimizer.apply([tf.constant(1.0)], 0)
    assert [slot.trainable for slot in optimizer.slots] == [False, False]


@pytest.mark.parametrize("steps_are", ["integers", "tensors"])
@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-12), ("float32", 1e-5)])
def test_adam_is_its_formula(dtype, bound, steps_are):
    """w -= rate · m̂/(√v̂ + ε̂) with m̂ = m/(1 − β₁ᵗ), v̂ = v/(1 − β₂ᵗ) and, in TensorFlow's form, ε̂ = ε/√(1 − β₂ᵗ)."""
    rates, betas, epsilon, rng = (0.5, 0.0625), (0.75, 0.875), 0.01, np.random.default_rng(0)
    weights = [rng.normal(size=(2, 3)), rng.normal(size=4)]
    means, squares = ([np.zeros_like(weight) for weight in weights] for _ in range(2))
    variables = [tf.Variable(weight, dtype=dtype) for weight in weights]
    optimizer = Adam(variables, PiecewiseConstant(rates, [2]), *betas, epsilon)
    for step in range(6):
        gradients = [rng.normal(size=weight.shape) for weight in weights]
        optimizer.apply(
            [tf.constant(gradient, dtype) for gradient in gradients],
            step if steps_are == "integers" else tf.constant(step, tf.int64),
        )
        corrections = [1 - beta ** (step + 1) for beta in betas]
        for index, gradient in enumerate(gradients):
            means[index] = betas[0] * means[index] + (1 - betas[0]) * gradient
            squares[index] = betas[1] * squares[index] + (1 - betas[1]) * gradient**2
            root = np.sqrt(squares[index] / corrections[1]) + epsilon / np.sqrt(corrections[1])
            weights[index] = weights[index] - rates[step > 2] * means[index] / corrections[0] / root
        for variable, weight in zip(variables, weights, strict=True):
            np.testing.assert_allclose(variable, weight, rtol=bound, atol=bound)
        for name, kept in (("m", means), ("v", squares)):
            for slot, expected in zip(optimizer.state[name], kept, strict=True):
                np.testing.assert_allclose(slot, expected, rtol=bound, atol=bound)


@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-7), ("float32", 1e-5)])
def test_adam_is_that_of_keras(dtype, bound):
    """In float64 too Keras has its numbers in float32."""
    start, rng = np.random.default_rng(0).normal(size=(3, 4)), np.random.default_rng(1)
    ours, theirs = tf.Variable(start, dtype=dtype), keras.Variable(start, dtype=dtype)
    optimizer, keras_optimizer = Adam([ours], PiecewiseConstant([1e-3])), keras.optimizers.Adam(1e-3, epsilon=1e-8)
    for step in range(20):
        gradient = tf.constant(rng.normal(size=start.shape) * 10.0 ** rng.integers(-4, 2), dtype)
        optimizer.apply([gradient], step)
        keras_optimizer.apply([gradient], [theirs])
        np.testing.assert_allclose(ours - start, theirs - start, rtol=1e-4, atol=bound)
    assert np.abs(ours - start).max() > 1e-3


@pytest.mark.parametrize(("kind", "kept"), [(Momentum, ["momentum"]), (Adam, ["m", "v"])])
def test_what_an_optimizer_keeps(kind, kept):
    variables = [tf.Variable(np.ones((2, 3))), tf.Variable([1.0])]
    optimizer = kind(variables, PiecewiseConstant([0.1]))
    assert list(optimizer.state) == kept
    assert [slot.shape for slot in optimizer.slots] == len(kept) * [(2, 3), (1,)]
    for name, slots in zip(kept, np.reshape(np.arange(2 * len(kept)), (-1, 2)), strict=True):
        assert [id(slot) for slot in optimizer.state[name]] == [id(optimizer.slots[index]) for index in slots]
    assert not any(slot.trainable for slot in optimizer.slots)


schedules = st.lists(st.integers(0, 50), unique=True, max_size=4).map(sorted)


@given(schedules, st.integers(-1, 51))
def test_schedule_is_that_of_tensorflow_1(boundaries, step):
    rates = [0.5**k for k in range(len(boundaries) + 1)]
    schedule = PiecewiseConstant(rates, boundaries)
    theirs = rates[0]
    if boundaries:
        theirs = float(tf.compat.v1.train.piecewise_constant(tf.constant(step), boundaries, rates)())
    assert schedule(step) == theirs
    for dtype in (tf.int32, tf.int64):
        assert float(schedule(tf.constant(step, dtype))) == theirs


def test_old_rate_holds_at_the_boundary_itself():
    schedule = tf.function(PiecewiseConstant([0.1, 0.01, 0.001], [3, 5]))
    rates = [float(schedule(tf.constant(step, tf.int64))) for step in range(8)]
    np.testing.assert_allclose(rates, [0.1] * 4 + [0.01] * 2 + [0.001] * 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("rates", "boundaries", "message"),
    [
        ([0.1, 0.01], [], "2 learning rates need 1 boundaries, not 0"),
        ([0.1], [5], "1 learning rates need 0 boundaries, not 1"),
        ([], [], "0 learning rates need -1 boundaries"),
        ([0.1, 0.01, 0.001], [5, 3], r"must rise: \[5, 3\]"),
        ([0.1, 0.01, 0.001], [5, 5], r"must rise: \[5, 5\]"),
    ],
)
def test_schedules_without_sense_are_refused(rates, boundaries, message):
    with pytest.raises(ValueError, match=message):
        PiecewiseConstant(rates, boundaries)
