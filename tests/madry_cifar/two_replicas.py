"""Trains on one device and on two replicas, and prints what differs, as JSON: started by test_replicas.py.

A process of its own, as a CPU is split into virtual devices before TensorFlow starts. In float64: in float32, rounding
alone (of sums in another order) grows to 0.1 within 20 steps at these learning rates.
"""

import dataclasses
import json

import numpy as np
import tensorflow as tf

import rvs_tf  # noqa: F401 (registers the defences)
from madry_cifar import data, replicas
from madry_cifar.networks.layers import synchronize
from madry_cifar.networks.wide_resnet import WideResNet
from madry_cifar.training import registry, strategies
from madry_cifar.training.adversarial import Natural
from madry_cifar.training.optimizers import PiecewiseConstant, PyTorchAdam
from madry_cifar.training.steps import Steps
from tests import two_layers

STEPS, BATCH_SIZE, SEED = {"rvs": 20, "at": 3, "featscatter": 2, "adv_interp": 2, "adv_vertex": 2}, 8, 1


def train(name, digits, strategy, sync_bn=False, steps_per_call=1):
    """The losses after each call, and for each variable its value on each replica at the end."""
    kind = registry.find(name)
    with strategy.scope():
        subject = kind(WideResNet(10, 1, dtype="float64"), kind.Options(batch_size=BATCH_SIZE), SEED)
    if sync_bn:
        for network in subject.networks.values():
            synchronize(network)
    batches = data.Batches(len(digits.train), BATCH_SIZE, SEED)
    steps = Steps(subject, digits, strategy=strategy, steps_per_call=steps_per_call)
    losses = {}
    for step in range(0, STEPS[name], steps_per_call):
        rows = np.stack([batches(step + k) for k in range(steps_per_call)])
        _, seen, _ = steps.train(rows, step)
        losses[step + steps_per_call] = np.array([loss.numpy() for loss in seen.values()])
    variables = [v.value for network in subject.networks.values() for v in network.variables]
    return losses, [[copy.numpy() for copy in strategy.experimental_local_results(v)] for v in variables]


def train_by_adam(strategy):
    """The same for a network of two layers, of which each step makes two updates, with clipped gradients."""
    images, labels = two_layers.batch(8)
    with strategy.scope():
        method = Natural(two_layers.TwoLayers())
        weights = [v.value for v in method.classifier.trainable_variables]
        optimizer = method.optimizers["any"] = PyTorchAdam(weights, PiecewiseConstant([0.01]), weight_decay=0.1)

    def step(number):
        for _ in range(2):
            with tf.GradientTape() as tape:
                logits = method.classifier(replicas.own(tf.constant(images))).logits
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(replicas.own(tf.constant(labels)), logits)
                loss = tf.reduce_mean(losses)
            method.minimize("any", loss, tape, number, clip_norm=0.1)
        return replicas.mean(loss)

    run = tf.function(lambda number: strategy.run(step, (number,)), autograph=False)
    losses = {k: strategy.experimental_local_results(run(tf.constant(k, tf.int64)))[0].numpy() for k in range(3)}
    assert {int(count) for count in strategy.experimental_local_results(optimizer.count)} == {6}
    return losses, [[copy.numpy() for copy in strategy.experimental_local_results(v)] for v in weights]


def largest(differences):
    """The largest absolute value in a list of arrays."""
    return max(float(np.abs(difference).max()) for difference in differences)


def compare(replicated, alone):
    """How far a training on replicas is from one on a device, and the replicas from each other."""
    return {
        "losses": largest(losses - alone[0][step] for step, losses in replicated[0].items()),
        "variables": largest(a[0] - b[0] for a, b in zip(replicated[1], alone[1], strict=True)),
        "between replicas": largest(copies[0] - copies[1] for copies in replicated[1]),
    }


def main():
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    one, two = tf.distribute.get_strategy(), strategies.make("mirrored")
    digits = dataclasses.replace(data.load("digits"), augmented=True)
    found = {"rvs": compare(train("rvs", digits, two, sync_bn=True), alone := train("rvs", digits, one))}
    found["rvs, five steps a call"] = compare(train("rvs", digits, two, sync_bn=True, steps_per_call=5), alone)
    found["rvs, statistics of each replica"] = compare(train("rvs", digits, two), alone)
    for name in ("at", "featscatter", "adv_interp", "adv_vertex"):  # two look at the whole batch; the last one draws
        found[name] = compare(train(name, digits, two, sync_bn=True), train(name, digits, one))
    found["adam"] = compare(train_by_adam(two), train_by_adam(one))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
