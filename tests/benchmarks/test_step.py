"""What an iteration consists of, and the benchmark that times it beside others."""

import collections
import json

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context

from benchmarks import flops, iteration, plain, step
from madry_cifar import WideResNet
from sinkhorn_tf import sinkhorn_distance

SETTINGS = {"defense": "rvs", "depth": 10, "width": 1, "batch_size": 4, "precision": "float32", "jit_compile": False}
SMALL = ("--depth=10", "--width=1", "--batch_size=2")


def convolutions(function):
    """How many of each kind are in a function's graph and those that it calls."""
    found = collections.Counter()
    for each, times in flops.convolutions(function.get_concrete_function()).items():
        found[each.kind] += times
    return found


@pytest.mark.parametrize(("depth", "precision"), [(10, "float32"), (16, "float32"), (10, "bfloat16")])
def test_convolutions_of_an_iteration(depth, precision):
    """Three forward passes; in the generator's half the gradient through one of them, down to its images; in the
    classifier's half the gradients through two, down to the first kernel. The generator is used twice, trained once."""
    layers = 1 + depth - 4  # the first one, and two for each of (depth - 4) / 6 units in three stages
    deconvolutions, last = 2, 1  # of the generator; a transposed convolution is another one's gradient
    expected = {
        "Conv2D": 3 * layers + 2 * last + deconvolutions,
        "Conv2DBackpropInput": layers + 2 * (layers - 1) + 2 * deconvolutions + last,
        "Conv2DBackpropFilter": 2 * layers + deconvolutions + last,
    }
    assert convolutions(iteration.ours(SETTINGS | {"depth": depth, "precision": precision})) == expected


def test_no_other_convolution_runs():
    """The graph that TensorFlow runs, after its optimisations: a tape writes down gradients that nobody asked for."""
    function = iteration.ours(SETTINGS)
    context.context().enable_graph_collection()
    try:
        iteration.run(function, 0)
        graphs = context.context().export_run_metadata().function_graphs
    finally:
        context.context().disable_graph_collection()
    ran = collections.Counter(node.op for graph in graphs for node in graph.post_optimization_graph.node)
    assert {kind: ran[kind] for kind in flops.CONVOLUTIONS} == convolutions(function)


def test_convolutions_with_keras_layers():
    """As the released code has it: a fourth forward pass, of the natural images again."""
    theirs = convolutions(iteration.plain(SETTINGS, unrolled=False))
    difference = collections.Counter({"Conv2D": 7})
    assert theirs == convolutions(iteration.ours(SETTINGS)) + difference


def test_convolutions_are_computed_in_bfloat16():
    found = flops.convolutions(iteration.ours(SETTINGS | {"precision": "bfloat16"}).get_concrete_function())
    assert {each.dtype for each in found} == {"bfloat16"}


def test_keras_network_is_ours():
    """With the same weights, both compute the same features and logits."""
    ours, theirs = WideResNet(16, 2), plain.classifier(16, 2)
    rng = np.random.default_rng(0)
    for name in ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance"):
        pairs = zip(*([v for v in network.variables if v.name == name] for network in (ours, theirs)), strict=True)
        for variable, other in pairs:
            variable.assign(variable + 0.1 * rng.uniform(size=variable.shape))
            other.assign(variable)
    images = tf.constant(rng.uniform(0, 255, (4, 32, 32, 3)), tf.float32)
    for mode, training in (("eval", False), ("frozen", True)):
        for actual, expected in zip(theirs(images, training=training), ours(images, batch_norm=mode), strict=True):
            np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4)


def test_unrolled_sinkhorn_is_ours():
    rng = np.random.default_rng(0)
    x, y = (tf.constant(rng.normal(size=(5, 3))) for _ in range(2))
    results = []
    for function in (plain.unrolled_sinkhorn, sinkhorn_distance):
        with tf.GradientTape() as tape:
            tape.watch((x, y))
            distance = function(x, y, regularization=0.5, iterations=7)
        results.append([distance, *tape.gradient(distance, (x, y))])
    for actual, expected in zip(*results, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-9)


def test_iteration_with_keras_layers_trains_both_networks():
    subject = plain.PlainRvS(10, 1, unrolled=False)
    before = [[v.numpy() for v in network.trainable_variables] for network in (subject.classifier, subject.generator)]
    losses = subject.train_step(*iteration.batch(4))
    assert np.all(np.isfinite(losses))
    for network, values in zip((subject.classifier, subject.generator), before, strict=True):
        for variable, value in zip(network.trainable_variables, values, strict=True):
            assert not np.array_equal(variable, value), variable.path


def test_times_are_medians_and_ratios_of_the_same_round():
    class Contender:
        def __init__(self, name, seconds):
            self.name, self.seconds = name, seconds

        def end(self):
            return {"memory_gib": 0.5}

    ours, other = Contender("ours", [9.0, 1.0, 2.0, 4.0]), Contender("other", [8.0, 3.0, 2.0, 8.0])
    row = step._row(other, ours, batch_size=6)
    assert row == {
        "iteration": "other",
        "seconds": 3.0,
        "times_ours": 2.0,
        "images_per_second": 2.0,
        "first_step_seconds": 8.0,
        "memory_gib": 0.5,
    }


def test_command(invoke):
    status, out, err = invoke(step.command, *SMALL, "--nokeras", "--repeats=1", "--json")
    assert status == 0, err
    result = json.loads(out.splitlines()[-1])
    (ours,), (rates,) = result["iterations"], result["rates"]
    assert ours["times_ours"] == 1
    assert 0 < ours["seconds"] < ours["first_step_seconds"]
    assert 0 < ours["memory_gib"] < 2
    work = iteration.ours(SETTINGS | {"batch_size": 2}).get_concrete_function()
    assert rates["gflop"] == pytest.approx(1e-9 * flops.count(work))
    assert rates["gflop_per_second"] == pytest.approx(rates["gflop"] / ours["seconds"])
    assert result["machine"]["cores"] >= 1
    assert "| ours, float32 |" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--depth=11"], "--depth=11: must be 6n + 4"),
        (["--precision=float32,float16"], "--precision=float16: unknown; did you mean 'bfloat16'?"),
        (["--defense=rsv"], "--defense=rsv: unknown; did you mean 'rvs'?"),
        (["--reference=/nowhere"], "--reference=/nowhere: no train.py there"),
    ],
)
def test_wrong_flags(invoke, arguments, message):
    status, _, err = invoke(step.command, *arguments)
    assert status == 2
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1
