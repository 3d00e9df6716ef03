"""First weights by the rules of the methods' own code; each draw depends on a seed and the variable's place alone.

An initializer is called with a shape, a seed and a type. `gain` is the variance times the number of inputs (fan-in) of
an output, or what else `of` names.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from madry_cifar import randomness
from madry_cifar.networks.layers import kernels

Initializer = Callable[[list[int], tuple[int, int], tf.DType], tf.Tensor]


def _fan(shape, of):
    """Of a kernel [size, size, in, out] or [in, out]: how many inputs an output has, or outputs an input, or both."""
    inputs, outputs = math.prod(shape[:-1]), math.prod(shape[:-2]) * shape[-1]
    return {"inputs": inputs, "outputs": outputs, "both": (inputs + outputs) / 2}[of]


def normal(gain: float, of: str = "inputs") -> Initializer:
    """N(0, gain / fan)."""

    def draw(shape, seed, dtype):
        return (gain / _fan(shape, of)) ** 0.5 * randomness.normal(shape, seed, dtype)

    return draw


def truncated_normal(gain: float) -> Initializer:
    """N(0, ·) cut off at two deviations, so that the variance of what is left is gain / fan."""

    def draw(shape, seed, dtype):
        return (gain / _fan(shape, "inputs")) ** 0.5 / LEFT * _truncated(shape, seed, dtype)

    return draw


def truncated_deviation(value: float) -> Initializer:
    """N(0, value²) cut off at two deviations."""
    return lambda shape, seed, dtype: value * _truncated(shape, seed, dtype)


def _truncated(shape, seed, dtype):
    return tf.random.stateless_truncated_normal(shape, seed, dtype=dtype, alg=randomness.GENERATOR)


LEFT = 0.87962566103423978  # the deviation of what is left of N(0, 1)


def uniform(gain: float, of: str = "inputs") -> Initializer:
    """Uniform, of variance gain / fan."""

    def draw(shape, seed, dtype):
        bound = (3 * gain / _fan(shape, of)) ** 0.5
        return randomness.uniform(shape, seed, -bound, bound, dtype)

    return draw


def deviation(value: float) -> Initializer:
    """N(0, value²)."""
    return lambda shape, seed, dtype: value * randomness.normal(shape, seed, dtype)


def fill(variables: Sequence[tf.Variable], seed: int, initializer: Initializer) -> None:
    """Gives variables their first values; each remembers its as `first_value`, a `FirstValue`."""
    for index, variable in enumerate(variables):
        _fill(variable, (seed, index), initializer)


class FirstValue(NamedTuple):
    """What a variable began as: `draw(seed)`."""

    draw: Callable[[tf.Tensor | tuple[int, int]], tf.Tensor]
    seed: tuple[int, int]


def _fill(variable, seed, initializer):
    shape, dtype = variable.shape.as_list(), variable.dtype
    variable.first_value = FirstValue(lambda seed: initializer(shape, seed, dtype), seed)
    variable.assign(variable.first_value.draw(seed))


def released(network: keras.Model, seed: int, dense_gain: float = 1.0) -> None:
    """Fills a network's kernels as the released code does; every other variable keeps its constant start.

    Convolutions: N(0, 2 / (size · size · last axis)), the last axis being the outputs of a convolution and the inputs
    of a transposed one. Dense layers: uniform of variance `dense_gain` / inputs, that is U(±sqrt(3 gain / inputs)).
    The draw depends on `seed` and the variable's place in the network alone.
    """

    def draw(shape, seed, dtype):
        if len(shape) == 4:
            return (2.0 / (shape[0] * shape[1] * shape[3])) ** 0.5 * randomness.normal(shape, seed, dtype)
        bound = (3.0 * dense_gain / shape[0]) ** 0.5
        return randomness.uniform(shape, seed, -bound, bound, dtype)

    fill(kernels(network), seed, draw)


def pytorch(network: keras.Model, seed: int) -> None:
    """As PyTorch by default: weights and biases of convolutions and dense layers uniform in ±1/√inputs."""
    fill(kernels(network), seed, uniform(1 / 3))
    biases(network, seed + 1)


def biases(network: keras.Model, seed: int) -> None:
    """The biases of a network as PyTorch has them by default: uniform in ±1/√inputs of their layer."""
    layers = [layer for layer in network._flatten_layers() if getattr(layer, "bias", None) is not None]
    for index, layer in enumerate(layers):
        bound = math.prod(layer.kernel.shape[:-1]) ** -0.5
        _fill(layer.bias.value, (seed, index), _within(bound))


def _within(bound):
    return lambda shape, seed, dtype: randomness.uniform(shape, seed, -bound, bound, dtype)
