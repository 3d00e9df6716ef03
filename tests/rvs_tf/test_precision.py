"""Training with --precision=bfloat16: what is computed in which type, and how far the results are from float32."""

import numpy as np
import pytest
import tensorflow as tf

from madry_cifar import WideResNet
from madry_cifar.networks import initializers
from madry_cifar.randomness import uniform
from rvs_tf.defense import RobustnessViaSynthesis

IMAGES = uniform([8, 32, 32, 3], (0, 0), 0, 255)
LABELS = tf.range(8)


@pytest.fixture(scope="module")
def networks():
    """The same weights in float32 and in bfloat16."""
    networks = WideResNet(10, 1), WideResNet(10, 1, dtype="mixed_bfloat16")
    for network in networks:
        initializers.released(network, 3)
    return networks


@pytest.mark.parametrize("mode", ["eval", "train", "frozen"])
def test_outputs_are_float32_and_near(networks, mode):
    expected, outputs = (network(IMAGES, batch_norm=mode) for network in networks)
    for ours, exact in zip(outputs, expected, strict=True):
        assert ours.dtype == tf.float32
        assert 0 < np.abs(ours - exact).max() < 0.03 * np.abs(exact).max()  # bfloat16 has 8 bits: 0.4 %


def test_variables_are_float32(networks):
    assert {v.value.dtype for v in networks[1].variables} == {tf.float32}
    ours, exact = ([v.numpy() for v in network.non_trainable_variables] for network in networks)
    for moved, expected in zip(ours, exact, strict=True):  # by the mode "train" above
        np.testing.assert_allclose(moved, expected, rtol=0.02, atol=0.02 * np.abs(expected).max())


def test_less_than_a_grey_level_is_not_lost(networks):
    """bfloat16 rounds 255.4 to 256; the images are standardised before they become bfloat16."""
    light = tf.fill([1, 32, 32, 3], 200.0) + uniform([1, 32, 32, 3], (0, 1), 0, 50)
    moved = [
        network(light + uniform(light.shape, (0, 2), -0.4, 0.4)).features - network(light).features
        for network in networks
    ]
    cosine = np.sum(moved[0] * moved[1]) / np.linalg.norm(moved[0]) / np.linalg.norm(moved[1])
    assert cosine > 0.7


def operations(graph):
    """All operations of a function's graph and of the functions that it calls."""
    inner = [graph._functions[name].graph for name in graph._functions]
    return [*graph.get_operations(), *(op for other in inner for op in operations(other))]


@pytest.mark.parametrize(("dtype", "computed"), [("float32", tf.float32), ("mixed_bfloat16", tf.bfloat16)])
def test_what_a_step_computes_in_which_type(dtype, computed):
    defense = RobustnessViaSynthesis(WideResNet(10, 1, dtype=dtype))
    step = tf.function(lambda: defense.train_step(IMAGES, LABELS, tf.constant(0, tf.int64)), autograph=False)
    types = {}
    for op in operations(step.get_concrete_function().graph):
        if "T" in op.op_def.attr.__str__() and op.outputs:
            types.setdefault(op.type, set()).add(op.outputs[0].dtype)
    for kind in ("Conv2D", "Conv2DBackpropInput", "Conv2DBackpropFilter", "FusedBatchNormV3"):
        assert types[kind] == {computed}
    for kind in ("Exp", "Log", "SoftmaxCrossEntropyWithLogits"):  # Sinkhorn's and the losses'
        assert types[kind] <= {tf.float32}


def test_training_goes_the_same_way():
    """The losses of ten steps, which fall, in both types."""

    def losses(dtype):
        options = RobustnessViaSynthesis.Options(learning_rates=(0.01,), learning_rate_boundaries=())
        defense = RobustnessViaSynthesis(WideResNet(10, 1, dtype=dtype), options)
        step = tf.function(lambda k: defense.train_step(IMAGES, LABELS, k)["total"], autograph=False)
        return [float(step(tf.constant(k, tf.int64))) for k in range(10)]

    exact, ours = losses("float32"), losses("mixed_bfloat16")
    assert exact[-1] < exact[0] - 0.1
    np.testing.assert_allclose(ours, exact, rtol=0.02)
