"""Floating-point operations of a compiled function, counted from its graph."""

import math

import tensorflow as tf


def count(function: tf.types.experimental.ConcreteFunction) -> int:
    """Operations (a multiplication and an addition are two) of all convolutions and matrix products in a call.

    Elementwise work is not counted, nor operations whose result nothing uses (TensorFlow prunes them before it runs
    the graph). A loop's body counts as often as its `maximum_iterations` says, or once.
    """
    return _count(function.graph, {})


def _count(graph, known):
    total = 0
    for op in _used(graph):
        if op.type in _RULES:
            total += _RULES[op.type](op)
        elif op.type in ("While", "StatelessWhile"):
            times = tf.get_static_value(op.inputs[1])
            total += _count_called(graph, op.get_attr("body").name, known) * (1 if times is None else int(times))
        elif op.type in ("PartitionedCall", "StatefulPartitionedCall"):
            total += _count_called(graph, op.get_attr("f").name, known)
    return total


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


def _count_called(graph, name, known):
    if name not in known:
        outer = graph
        while name not in outer._functions and outer.outer_graph is not None:
            outer = outer.outer_graph
        known[name] = _count(outer._functions[name].graph, known)
    return known[name]


def _convolution(op):  # every one of the three sums over [batch, height, width, out] and a kernel of [k, k, in]
    outputs, kernel = {
        "Conv2D": lambda: (op.outputs[0], op.inputs[1].shape),
        "Conv2DBackpropInput": lambda: (op.inputs[2], op.inputs[1].shape),
        "Conv2DBackpropFilter": lambda: (op.inputs[2], op.outputs[0].shape),
    }[op.type]()
    return 2 * outputs.shape.num_elements() * math.prod(kernel[:3])


def _product(op):
    transposed = op.get_attr("transpose_a")
    return 2 * op.outputs[0].shape.num_elements() * op.inputs[0].shape[0 if transposed else 1]


_RULES = {
    "Conv2D": _convolution,
    "Conv2DBackpropInput": _convolution,
    "Conv2DBackpropFilter": _convolution,
    "MatMul": _product,
}
