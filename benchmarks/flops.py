"""Convolutions, matrix products and their floating-point operations in a compiled function, read from its graph."""

import collections
import math
from collections.abc import Iterator
from typing import NamedTuple

import tensorflow as tf

CONVOLUTIONS = ("Conv2D", "Conv2DBackpropInput", "Conv2DBackpropFilter")


class Convolution(NamedTuple):
    """A convolution or one of its gradients: `kind` is TensorFlow's name of the operation.

    `inputs` [B, H, W, C], `kernel` [k, k, in, out] and `outputs` are the shapes of the convolution itself, also where
    its gradient for the inputs or the kernel is computed.
    """

    kind: str
    inputs: tuple[int, ...]
    kernel: tuple[int, ...]
    outputs: tuple[int, ...]
    stride: int
    dtype: str

    @property
    def flops(self) -> int:
        """Each of the three kinds sums over all outputs and a kernel of [k, k, in]."""
        return 2 * math.prod(self.outputs) * math.prod(self.kernel[:3])


def count(function: tf.types.experimental.ConcreteFunction) -> int:
    """Operations (a multiplication and an addition are two) of all convolutions and matrix products in a call.

    Elementwise work is not counted, nor operations whose result nothing uses (TensorFlow prunes them before it runs
    the graph). A loop's body counts as often as its `maximum_iterations` says, or once; of two branches counts the one
    with more convolutions and products.
    """
    products = sum(times * _product(op) for op, times in _operations(function.graph) if op.type == "MatMul")
    return products + sum(times * each.flops for each, times in convolutions(function).items())


def convolutions(function: tf.types.experimental.ConcreteFunction) -> collections.Counter[Convolution]:
    """How often each convolution is done in a call; what is counted is as for `count`."""
    found = collections.Counter()
    for op, times in _operations(function.graph):
        if op.type in CONVOLUTIONS:
            found[_convolution(op)] += times
    return found


def _operations(graph) -> Iterator[tuple[tf.Operation, int]]:
    """The operations that are done in a call, each with how often."""
    for op in _used(graph):
        called, times = None, 1
        if op.type in ("If", "StatelessIf"):
            branches = [_function(graph, op.get_attr(f"{which}_branch").name) for which in ("then", "else")]
            yield from max((list(_operations(branch)) for branch in branches), key=_weight)
            continue
        if op.type in ("While", "StatelessWhile"):
            maximum = tf.get_static_value(op.inputs[1])
            called, times = op.get_attr("body").name, 1 if maximum is None else int(maximum)
        elif op.type in ("PartitionedCall", "StatefulPartitionedCall"):
            called = op.get_attr("f").name
        if called is None:
            yield op, 1
        else:
            yield from ((inner, times * often) for inner, often in _operations(_function(graph, called)))


def _weight(operations):
    """How many convolutions and products there are among operations with how often."""
    return sum(times for op, times in operations if op.type in (*CONVOLUTIONS, "MatMul"))


def _used(graph):
    """The operations that the graph's outputs and its updates of variables depend on."""
    waiting = [tensor.op for tensor in graph.outputs] + list(graph.control_outputs)
    found = set()
    while waiting:
        op = waiting.pop()
        if op not in found:
            found.add(op)
            waiting += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
    return found


def _function(graph, name):
    while name not in graph._functions and graph.outer_graph is not None:
        graph = graph.outer_graph
    return graph._functions[name].graph


def _convolution(op):
    inputs, kernel, outputs = {
        "Conv2D": lambda: (op.inputs[0], op.inputs[1], op.outputs[0]),
        "Conv2DBackpropInput": lambda: (op.outputs[0], op.inputs[1], op.inputs[2]),
        "Conv2DBackpropFilter": lambda: (op.inputs[0], op.outputs[0], op.inputs[2]),
    }[op.type]()
    shapes = (tuple(tensor.shape.as_list()) for tensor in (inputs, kernel, outputs))
    return Convolution(op.type, *shapes, op.get_attr("strides")[1], outputs.dtype.name)


def _product(op):
    transposed = op.get_attr("transpose_a")
    return 2 * op.outputs[0].shape.num_elements() * op.inputs[0].shape[0 if transposed else 1]
