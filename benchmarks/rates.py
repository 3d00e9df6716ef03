"""What this machine can do, measured: the rates of a matrix product and of a network's own convolutions."""

import collections
import statistics
import time
from collections.abc import Callable

import tensorflow as tf

from benchmarks.flops import Convolution
from madry_cifar.randomness import normal


def seconds(function: Callable[[], tf.Tensor]) -> float:
    """How long it takes to have the number that the function returns."""
    started = time.perf_counter()
    function().numpy()
    return time.perf_counter() - started


class MatrixProduct:
    """The rate of a product of two square matrices of this size and type: the best of several."""

    def __init__(self, size: int = 2048, dtype: str = "float32"):
        matrix = tf.cast(normal([size, size], (0, 0)), dtype)
        self._flops, self._seconds = 2 * size**3, []
        self._product = tf.function(lambda: tf.reduce_sum(tf.matmul(matrix, matrix)))
        self._product()

    def measure(self) -> None:
        """Measures once more."""
        self._seconds.append(seconds(self._product))

    @property
    def gflop_per_second(self) -> float:
        return 1e-9 * self._flops / min(self._seconds)


class Convolutions:
    """The rate of convolutions that are done one by one, each by itself, as often as `counts` says.

    That is as fast as a training step could be on this machine, in this library, if it were nothing but them.
    """

    def __init__(self, counts: collections.Counter[Convolution], jit_compile: bool = False):
        self._counts, self._tensors = counts, {}
        self._functions = {each: self._function(each, jit_compile) for each in counts}
        self._seconds = {each: [] for each in counts}
        for function in self._functions.values():
            function()

    def measure(self) -> None:
        """Measures each once more."""
        for each, function in self._functions.items():
            self._seconds[each].append(seconds(function))

    @property
    def seconds(self) -> float:
        """Of all the convolutions together: the sum of their medians."""
        return sum(times * statistics.median(self._seconds[each]) for each, times in self._counts.items())

    @property
    def gflop_per_second(self) -> float:
        return 1e-9 * sum(times * each.flops for each, times in self._counts.items()) / self.seconds

    def _tensor(self, shape, dtype):
        return self._tensors.setdefault((shape, dtype), tf.cast(normal(shape, (0, len(shape))), dtype))

    def _function(self, each, jit_compile):
        shapes = each.inputs, each.kernel, each.outputs
        inputs, kernel, outputs = (self._tensor(shape, each.dtype) for shape in shapes)
        operands = {
            "Conv2D": {"input": inputs, "filter": kernel},
            "Conv2DBackpropInput": {"input_sizes": each.inputs, "filter": kernel, "out_backprop": outputs},
            "Conv2DBackpropFilter": {"input": inputs, "filter_sizes": each.kernel, "out_backprop": outputs},
        }[each.kind]
        strides = [1, each.stride, each.stride, 1]

        def function():
            result = getattr(tf.raw_ops, each.kind)(**operands, strides=strides, padding="SAME")
            return tf.reshape(result, [-1])[0]

        return tf.function(function, autograph=False, jit_compile=jit_compile)
