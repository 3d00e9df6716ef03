"""The wide residual network: its size, outputs, modes and errors. Its numbers: `tests/rvs_tf/test_golden.py`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from madry_cifar import Outputs, WideResNet
from madry_cifar.networks.wide_resnet import SCALINGS


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)


def shapes_of_trained_weights(depth, width, classes):
    """From the architecture: all 3×3 kernels, a scale and a shift for each channel that is normalised, the logits."""
    shapes, channels = [(3, 3, 3, 16)], 16
    for filters in (16 * width, 32 * width, 64 * width):
        for _ in range((depth - 4) // 6):
            shapes += [(channels,)] * 2 + [(3, 3, channels, filters)] + [(filters,)] * 2 + [(3, 3, filters, filters)]
            channels = filters
    return [*shapes, *[(channels,)] * 2, (channels, classes), (classes,)]


def count(shapes):
    return sum(int(np.prod(shape)) for shape in shapes)


@pytest.mark.parametrize(("depth", "width", "classes"), [(10, 1, 10), (16, 2, 100), (22, 3, 2)])
def test_trained_weights_are_those_of_the_architecture(depth, width, classes):
    network = WideResNet(depth, width, classes)
    shapes = [tuple(variable.shape) for variable in network.trainable_variables]
    assert sorted(shapes) == sorted(shapes_of_trained_weights(depth, width, classes))
    normalized = sum(len(shape) == 1 for shape in shapes) - 1  # but for the bias of the logits
    assert [len(variable.shape) for variable in network.non_trainable_variables] == [1] * normalized


@pytest.mark.parametrize(("depth", "millions"), [(28, 36.2), (34, 45.9)])
def test_size_of_the_papers_and_of_the_released_network(depth, millions):
    network = WideResNet(depth)
    assert network.width == 10
    size = count(variable.shape for variable in network.trainable_variables)
    assert size == count(shapes_of_trained_weights(depth, 10, 10))
    assert round(size / 1e6, 1) == millions


@pytest.mark.parametrize(("depth", "width", "classes"), [(10, 1, 2), (16, 3, 100)])
def test_outputs(images, depth, width, classes):
    network = WideResNet(depth, width, classes)
    outputs = network(images)
    assert isinstance(outputs, Outputs)
    assert outputs.features.shape == (3, 64 * width)
    assert outputs.logits.shape == (3, classes)
    network.logits.bias.assign(np.arange(classes))
    features, logits = network(images)
    kernel, bias = network.logits.kernel.numpy(), network.logits.bias.numpy()
    np.testing.assert_allclose(logits, features.numpy() @ kernel + bias, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pixels_of_any_type_are_taken(images, dtype):
    network = WideResNet(10, 1, 10, dtype=dtype)
    from_integers, from_floats = network(images), network(images.astype(dtype))
    assert from_integers.logits.dtype == from_floats.logits.dtype == dtype
    np.testing.assert_array_equal(from_integers.logits, from_floats.logits)


def test_brightness_and_contrast_of_an_image_do_not_matter(images):
    network = WideResNet(10, 1, 10, dtype="float64")
    scales = np.array([0.2, 0.5, 0.9])[:, np.newaxis, np.newaxis, np.newaxis]
    np.testing.assert_allclose(network(10 + scales * images).logits, network(images).logits, rtol=1e-9)


def running(network):
    return [variable.numpy().copy() for variable in network.non_trainable_variables]


def test_modes_of_batch_norm(images):
    network = WideResNet(10, 1, 10, dtype="float64")
    start = running(network)
    evaluated, frozen = network(images).logits, network(images, batch_norm="frozen").logits
    np.testing.assert_array_equal(evaluated, network(images, batch_norm="eval").logits)
    for before, after in zip(start, running(network), strict=True):
        np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(frozen, network(images, batch_norm="train").logits)
    for before, after in zip(start, running(network), strict=True):
        assert not np.any(before == after)
    assert np.abs(evaluated - frozen).min() > 1e-6
    assert np.abs(network(images).logits - evaluated).min() > 1e-6


def test_two_updates_of_the_running_statistics_in_one_pass(images):
    once, twice = WideResNet(10, 1, 10, dtype="float64"), WideResNet(10, 1, 10, dtype="float64")
    outputs = [once(images, batch_norm="train") for _ in range(2)]
    np.testing.assert_array_equal(outputs[1].logits, twice(images, batch_norm="train", updates=2).logits)
    for separate, together in zip(running(once), running(twice), strict=True):
        np.testing.assert_allclose(together, separate, rtol=1e-13)


def test_features_of_an_image_depend_on_the_batch_in_training_alone(images):
    network = WideResNet(10, 1, 10, dtype="float64")
    np.testing.assert_allclose(network(images[:2]).features, network(images).features[:2], rtol=1e-10)
    together = network(images, batch_norm="frozen").features[:2]
    assert np.abs(network(images[:2], batch_norm="frozen").features - together).max() > 1e-3


def test_batch_of_unknown_size_is_compiled_once(images):
    network, traces = WideResNet(10, 1, 10, dtype="float64"), []

    @tf.function(input_signature=[tf.TensorSpec([None, 32, 32, 3], tf.uint8)])
    def logits(images):
        traces.append(1)
        return network(images).logits

    for size in (1, 3):
        np.testing.assert_allclose(logits(images[:size]), network(images[:size]).logits, rtol=1e-9)
    assert len(traces) == 1


def test_configuration_makes_the_same_network(images):
    network = WideResNet(16, 2, 7, seed=3, dtype="float64", name="other")
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(network))
    assert copy.get_config() == network.get_config()
    assert {"depth": 16, "width": 2, "num_classes": 7, "seed": 3, "name": "other"}.items() <= copy.get_config().items()
    np.testing.assert_array_equal(copy(images).logits, network(images).logits)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((4, 1, 10), "depth=4: must be 6n"),
        ((-2, 1, 10), "depth=-2: must be 6n"),
        ((11, 1, 10), "depth=11: must be 6n"),
        ((32, 1, 10), "depth=32: must be 6n"),
        ((10, 0, 10), "width=0: must be at least 1"),
        ((10, 1, 1), "num_classes=1: must be at least 2"),
    ],
)
def test_sizes_that_no_such_network_has_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        WideResNet(*arguments)


def test_unknown_mode_of_batch_norm_is_refused(images):
    with pytest.raises(ValueError, match=r"batch_norm must be one of .*Received: batch_norm='training'"):
        WideResNet(10, 1, 10)(images, batch_norm="training")


# --- The standard architecture


@pytest.mark.parametrize(("depth", "weights"), [(28, 36_479_194), (34, 46_160_474)])
def test_size_of_the_standard_network(depth, weights):
    """As counted by others for PyTorch's WRN-28-10 and WRN-34-10 with ten classes."""
    network = WideResNet(depth, 10, architecture="standard")
    assert count(variable.shape for variable in network.trainable_variables) == weights


@pytest.mark.parametrize(("depth", "width"), [(10, 1), (16, 2)])
@pytest.mark.parametrize(
    "settings",
    [
        {"architecture": "standard", "input_scaling": "signed", "batch_norm_epsilon": 1e-5},
        {"architecture": "madry", "input_scaling": "standardize", "batch_norm_epsilon": 1e-3},
    ],
)
def test_outputs_are_those_in_pytorch(images, settings, depth, width):
    torch = pytest.importorskip("torch")
    from benchmarks import torch_network

    network = WideResNet(depth, width, 7, dtype="float64", **settings)
    draws = np.random.default_rng(2)
    for variable in network.variables:
        if len(variable.shape) == 1:  # batch norm and bias, which start as constants
            variable.assign(draws.uniform(0.5, 1.5, variable.shape))
    other, pixels = torch_network.of(network), torch.tensor(images / 255).permute(0, 3, 1, 2)
    for found, expected in zip(network(images), (other.features(pixels), other(pixels)), strict=True):
        # TensorFlow knows the slope of a leaky ReLU as a float32.
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("scaling", "black", "white"), [("signed", -1, 1), ("unit", 0, 1)])
def test_scaling_of_the_pixels(scaling, black, white):
    for grey, value in ((0.0, black), (255.0, white)):
        scaled = SCALINGS[scaling](tf.constant([grey, 127.5], tf.float64))
        np.testing.assert_allclose(scaled, [value, (black + white) / 2], atol=1e-15)


@pytest.mark.parametrize(("name", "value"), [("architecture", "resnet"), ("input_scaling", "mnist")])
def test_unknown_names_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}={value}: must be one of "):
        WideResNet(10, 1, **{name: value})


def test_the_initial_logits_of_the_standard_network_are_those_of_pytorch():
    """U(±1/√inputs), while MadryLab's have a variance of 1/inputs."""
    kernel = WideResNet(10, 10, architecture="standard").logits.kernel.numpy()
    assert 0.98 < abs(kernel).max() * np.sqrt(640) <= 1
    assert abs(kernel.std() * np.sqrt(640) - 1 / np.sqrt(3)) < 0.02
