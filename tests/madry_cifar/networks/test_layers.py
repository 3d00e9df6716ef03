"""The layers, against their formulas in NumPy, TensorFlow's own operations and finite differences."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from madry_cifar import WideResNet
from madry_cifar.networks.layers import BatchNorm, Conv, Dense, kernels, standardize
from rvs_tf import Generator

DTYPES = [("float64", 1e-12), ("float32", 1e-5)]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def batch_norm(dtype="float64", channels=3, **kwargs):
    """A layer with random weights and statistics."""
    layer = BatchNorm(dtype=dtype, **kwargs)
    layer.build((None, None, None, channels))
    for seed, variable in enumerate(layer.weights):
        variable.assign(np.abs(1 + 0.3 * normal(channels, seed=seed)))
    return layer


def central_differences(function, point, delta=1e-5):
    gradient = np.empty_like(point)
    for index in np.ndindex(point.shape):
        step = np.zeros_like(point)
        step[index] = delta
        gradient[index] = (function(point + step) - function(point - step)) / (2 * delta)
    return gradient


def statistics(layer):
    return layer.moving_mean.numpy().copy(), layer.moving_variance.numpy().copy()


def normalized(inputs, mean, variance, layer):
    gamma, beta = layer.gamma.numpy(), layer.beta.numpy()
    return gamma * (inputs - mean) / np.sqrt(variance + layer.epsilon) + beta


@pytest.mark.parametrize(("dtype", "bound"), DTYPES)
def test_batch_norm_in_evaluation_uses_and_keeps_the_running_statistics(dtype, bound):
    layer, inputs = batch_norm(dtype), 2 + 3 * normal(4, 5, 6, 3)
    before = statistics(layer)
    outputs = layer(inputs.astype(dtype))
    assert outputs.dtype == dtype
    np.testing.assert_allclose(outputs, normalized(inputs, *before, layer), rtol=bound, atol=bound)
    np.testing.assert_array_equal(statistics(layer), before)


@pytest.mark.parametrize("mode", ["train", "frozen"])
@pytest.mark.parametrize(("dtype", "bound"), DTYPES)
def test_batch_norm_in_training_uses_the_biased_variance_of_the_batch(dtype, bound, mode):
    layer, inputs = batch_norm(dtype), 2 + 3 * normal(2, 3, 2, 3)
    outputs = layer(inputs.astype(dtype), mode=mode)
    expected = normalized(inputs, inputs.mean(axis=(0, 1, 2)), inputs.var(axis=(0, 1, 2)), layer)
    np.testing.assert_allclose(outputs, expected, rtol=bound, atol=bound)


@pytest.mark.parametrize("decay", [0.9, 0.5])
@pytest.mark.parametrize("updates", [1, 2, 3])
@pytest.mark.parametrize(("dtype", "bound"), DTYPES)
def test_training_moves_the_running_statistics_to_the_unbiased_ones_of_the_batch(dtype, bound, updates, decay):
    layer, inputs = batch_norm(dtype, decay=decay), 2 + 3 * normal(2, 3, 2, 3)
    mean, variance = statistics(layer)
    layer(inputs.astype(dtype), mode="train", updates=updates)
    for _ in range(updates):
        mean = decay * mean + (1 - decay) * inputs.mean(axis=(0, 1, 2))
        variance = decay * variance + (1 - decay) * inputs.var(axis=(0, 1, 2), ddof=1)
    np.testing.assert_allclose(statistics(layer), (mean, variance), rtol=bound)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_frozen_batch_norm_keeps_its_statistics(dtype):
    layer = batch_norm(dtype)
    before = statistics(layer)
    layer(normal(4, 5, 6, 3).astype(dtype), mode="frozen", updates=2)
    np.testing.assert_array_equal(statistics(layer), before)


@pytest.mark.parametrize("mode", ["eval", "frozen", "train"])
@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-8), ("float32", 1e-5)])
def test_batch_norm_gradients(dtype, bound, mode):
    layer, inputs, weights = batch_norm(dtype), normal(2, 2, 3, 3), normal(2, 2, 3, 3, seed=1)
    mean, variance = statistics(layer)

    def formula(inputs):
        if mode == "eval":
            return normalized(inputs, mean, variance, layer)
        return normalized(inputs, inputs.mean(axis=(0, 1, 2)), inputs.var(axis=(0, 1, 2)), layer)

    with tf.GradientTape() as tape:
        watched = tf.constant(inputs, dtype)
        tape.watch(watched)
        value = tf.reduce_sum(weights.astype(dtype) * layer(watched, mode=mode))
    for_inputs, for_gamma, for_beta = tape.gradient(value, [watched, layer.gamma.value, layer.beta.value])
    np.testing.assert_allclose(
        for_inputs, central_differences(lambda x: np.sum(weights * formula(x)), inputs), atol=bound
    )
    bare = (formula(inputs) - layer.beta.numpy()) / layer.gamma.numpy()
    np.testing.assert_allclose(for_gamma, np.sum(weights * bare, axis=(0, 1, 2)), rtol=bound, atol=bound)
    np.testing.assert_allclose(for_beta, np.sum(weights, axis=(0, 1, 2)), rtol=bound, atol=bound)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_value_per_channel_moves_the_statistics_without_dividing_by_zero(dtype):
    layer, inputs = batch_norm(dtype), normal(1, 1, 1, 3).astype(dtype)
    mean, variance = statistics(layer)
    layer(inputs, mode="train")
    expected = 0.9 * mean + 0.1 * inputs[0, 0, 0], 0.9 * variance
    np.testing.assert_allclose(statistics(layer), expected, rtol=1e-6)


def test_unknown_mode_of_batch_norm_is_refused():
    with pytest.raises(ValueError, match=r"one of \('eval', 'train', 'frozen'\). Received: batch_norm='test'"):
        batch_norm()(normal(1, 2, 2, 3), mode="test")


def same_padded_convolution(inputs, kernel, stride):
    """ "SAME": as many outputs as inputs / stride, rounded up; what padding is missing is split, the odd one behind."""
    size, (_, height, width, _) = kernel.shape[0], inputs.shape
    counts = [-(-extent // stride) for extent in (height, width)]
    missing = [max((n - 1) * stride + size - extent, 0) for n, extent in zip(counts, (height, width), strict=True)]
    padded = np.pad(inputs, [(0, 0), *((m // 2, m - m // 2) for m in missing), (0, 0)])
    outputs = np.empty((len(inputs), *counts, kernel.shape[3]))
    for row, column in np.ndindex(*counts):
        patch = padded[:, row * stride : row * stride + size, column * stride : column * stride + size]
        outputs[:, row, column] = np.tensordot(patch, kernel, axes=3)
    return outputs


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [3, 4])
@pytest.mark.parametrize(("dtype", "bound"), DTYPES)
def test_convolution(dtype, bound, size, stride):
    layer, inputs = Conv(5, size=size, stride=stride, dtype=dtype), normal(2, 6, 7, 3)
    layer.build(inputs.shape)
    kernel = normal(size, size, 3, 5, seed=1)
    layer.kernel.assign(kernel)
    assert len(layer.weights) == 1
    expected = same_padded_convolution(inputs, kernel, stride)
    np.testing.assert_allclose(layer(inputs.astype(dtype)), expected, rtol=bound, atol=10 * bound)


@given(st.integers(1, 4), st.integers(1, 2), st.integers(1, 4), st.integers(1, 4), st.integers(0, 99))
def test_transposed_convolution_is_the_adjoint_of_the_convolution(size, stride, height, width, seed):
    transposed = Conv(5, size=size, stride=stride, transposed=True, dtype="float64")
    inputs = normal(2, height, width, 3, seed=seed)
    transposed.build(inputs.shape)
    kernel = normal(size, size, 5, 3, seed=seed + 1)
    transposed.kernel.assign(kernel)
    outputs = transposed(inputs)
    assert outputs.shape == (2, stride * height, stride * width, 5)
    other = normal(*outputs.shape, seed=seed + 2)
    forward = np.sum(same_padded_convolution(other, kernel, stride) * inputs)
    np.testing.assert_allclose(np.sum(other * outputs), forward, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("dtype", "bound"), DTYPES)
def test_dense(dtype, bound):
    layer, inputs = Dense(4, dtype=dtype), normal(5, 3)
    layer.build(inputs.shape)
    layer.kernel.assign(normal(3, 4, seed=1))
    layer.bias.assign(normal(4, seed=2))
    expected = inputs @ normal(3, 4, seed=1) + normal(4, seed=2)
    np.testing.assert_allclose(layer(inputs.astype(dtype)), expected, rtol=bound, atol=bound)


@pytest.mark.parametrize(
    "layer",
    [BatchNorm(0.5, 0.1), Conv(4, size=2, stride=3, transposed=True), Dense(7)],
    ids=lambda layer: type(layer).__name__,
)
def test_configuration_makes_the_same_layer(layer):
    copy = type(layer).from_config(layer.get_config())
    names = {
        "BatchNorm": ("decay", "epsilon"),
        "Conv": ("filters", "size", "stride", "transposed"),
        "Dense": ("units",),
    }
    for name in names[type(layer).__name__]:
        assert getattr(copy, name) == getattr(layer, name)
    assert copy.name == layer.name


@given(hnp.arrays(np.float32, (2, 4, 5, 3), elements=st.integers(0, 255)))
def test_standardization_is_that_of_tensorflow(images):
    expected = tf.image.per_image_standardization(images)
    np.testing.assert_allclose(standardize(tf.constant(images)), expected, rtol=1e-4, atol=1e-4)


def test_standardization_is_of_each_image_by_itself():
    images = 100 + np.array([1, 10, 50])[:, np.newaxis, np.newaxis, np.newaxis] * normal(3, 4, 5, 3)
    outputs = standardize(tf.constant(images)).numpy()
    np.testing.assert_allclose(outputs.mean(axis=(1, 2, 3)), 0, atol=1e-12)
    np.testing.assert_allclose(outputs.std(axis=(1, 2, 3)), 1, rtol=1e-12)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("spread", [0.0, 0.01, 30.0])  # constant, below the bound of the deviation, above it
def test_gradient_of_the_standardization(spread, compiled):
    images, weights = 100 + spread * normal(1, 3, 3, 3), normal(1, 3, 3, 3, seed=1)

    def formula(images):
        return np.sum(weights * (images - images.mean()) / np.maximum(images.std(), 27**-0.5))

    @tf.function(jit_compile=compiled)
    def gradient(images):
        return tf.gradients(tf.reduce_sum(weights * standardize(images)), images)[0]

    np.testing.assert_allclose(gradient(tf.constant(images)), central_differences(formula, images), atol=1e-7)


NETWORKS = {"classifier": lambda seed: WideResNet(10, 2, 10, seed=seed), "generator": lambda seed: Generator(seed=seed)}
DEVIATIONS = {  # sqrt(2 / (k·k·out)) of a convolution, sqrt(2 / (k·k·in)) of a transposed one, sqrt(1 / in) if dense
    "classifier": [
        *((2 / (9 * 16)) ** 0.5, (2 / (9 * 32)) ** 0.5, (2 / (9 * 32)) ** 0.5),
        *((2 / (9 * 64)) ** 0.5, (2 / (9 * 64)) ** 0.5, (2 / (9 * 128)) ** 0.5, (2 / (9 * 128)) ** 0.5),
        128**-0.5,
    ],
    "generator": [640**-0.5, (2 / (16 * 64)) ** 0.5, (2 / (16 * 32)) ** 0.5, (2 / (16 * 3)) ** 0.5],
}


@pytest.mark.parametrize("name", NETWORKS)
def test_initial_kernels_have_the_deviation_of_the_released_code(name):
    network = NETWORKS[name](0)
    for kernel, deviation in zip(kernels(network), DEVIATIONS[name], strict=True):
        values, uncertainty = kernel.numpy().ravel(), 5 / kernel.numpy().size ** 0.5  # five standard errors
        assert abs(values.mean()) <= uncertainty * deviation
        assert abs(values.std() / deviation - 1) <= uncertainty
        kurtosis = np.mean((values / values.std()) ** 4)
        if kernel.shape.rank == 2:
            assert np.abs(values).max() <= 3**0.5 * deviation * (1 + 1e-6)  # the bound itself is rounded
            assert abs(kurtosis - 1.8) <= 0.3  # uniform
        else:
            assert abs(kurtosis - 3) <= 5 * (24 / values.size) ** 0.5  # normal, not cut off
    constants = {"gamma": 1, "beta": 0, "bias": 0, "moving_mean": 0, "moving_variance": 1}
    for variable in network.variables:
        if variable.name != "kernel":
            np.testing.assert_array_equal(variable.numpy(), constants[variable.name])


@pytest.mark.parametrize("name", NETWORKS)
def test_initial_kernels_depend_on_the_seed_alone(name):
    networks = [NETWORKS[name](seed) for seed in (3, 3, 4)]
    for first, again, other in zip(*map(kernels, networks), strict=True):
        np.testing.assert_array_equal(first, again)
        assert np.mean(first.numpy() == other.numpy()) < 1e-3


def test_kernels_of_the_same_shape_are_drawn_independently():
    network = WideResNet(16, 1, 10)
    first, second = (network.get_layer(name).conv2.kernel.numpy() for name in ("unit_1_0", "unit_1_1"))
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) <= 5 / first.size**0.5


def test_kernels_are_those_of_convolutions_and_dense_layers():
    assert [kernel.shape.rank for kernel in kernels(WideResNet(10, 1, 10))] == [4] * 7 + [2]
    assert [kernel.shape.rank for kernel in kernels(Generator())] == [2, 4, 4, 4]
