"""The rates that an iteration is compared with."""

import collections

import pytest
import tensorflow as tf

from benchmarks import flops, rates

KINDS = {
    "Conv2D": lambda x, k, y: tf.nn.conv2d(x, k, 2, "SAME"),
    "Conv2DBackpropInput": lambda x, k, y: tf.nn.conv2d_transpose(y, k, tf.shape(x), 2, "SAME"),
    "Conv2DBackpropFilter": lambda x, k, y: tf.raw_ops.Conv2DBackpropFilter(
        input=x, filter_sizes=k.shape, out_backprop=y, strides=[1, 2, 2, 1], padding="SAME"
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_convolution_is_read_from_a_graph_and_done_again(kind):
    x, k, y = tf.ones([2, 8, 8, 3]), tf.ones([3, 3, 3, 5]), tf.ones([2, 4, 4, 5])
    function = tf.function(lambda: KINDS[kind](x, k, y), autograph=False).get_concrete_function()
    counts = flops.convolutions(function)
    assert counts == {flops.Convolution(kind, (2, 8, 8, 3), (3, 3, 3, 5), (2, 4, 4, 5), 2, "float32"): 1}
    alone = rates.Convolutions(counts)
    (again,) = alone._functions.values()
    assert flops.convolutions(again.get_concrete_function()) == counts
    assert flops.count(function) == 2 * (2 * 4 * 4 * 5) * (3 * 3 * 3)


def test_rate_of_convolutions_done_several_times(monkeypatch):
    shapes = (1, 4, 4, 1), (3, 3, 1, 1), (1, 4, 4, 1)
    one, other = (flops.Convolution(kind, *shapes, 1, "float32") for kind in ("Conv2D", "Conv2DBackpropInput"))
    alone = rates.Convolutions(collections.Counter({one: 3, other: 1}))
    times = iter([1.0, 10.0, 2.0, 20.0, 6.0, 30.0])  # medians 2 and 20
    monkeypatch.setattr(rates, "seconds", lambda function: next(times))
    for _ in range(3):
        alone.measure()
    assert alone.seconds == 3 * 2 + 20
    assert alone.gflop_per_second == pytest.approx(1e-9 * 4 * (2 * 16 * 9) / 26)


def test_rate_of_a_matrix_product(monkeypatch):
    product = rates.MatrixProduct(100)
    times = iter([0.5, 0.25])
    monkeypatch.setattr(rates, "seconds", lambda function: next(times))
    product.measure()
    product.measure()
    assert product.gflop_per_second == pytest.approx(2e-9 * 100**3 / 0.25)


def test_loops_count_as_often_as_they_run():
    x, k = tf.ones([1, 4, 4, 2]), tf.ones([3, 3, 2, 2])
    loop = tf.function(
        lambda: tf.while_loop(lambda y: True, lambda y: [tf.nn.conv2d(y, k, 1, "SAME")], [x], maximum_iterations=7)
    )
    assert list(flops.convolutions(loop.get_concrete_function()).values()) == [7]
