"""Trains on one device and on two replicas, and prints what differs, as JSON: started by test_replicas.py.

  python -m tests.madry_cifar.two_replicas at adam    RvS, and the trainings that are named

A process of its own, as a CPU is split into virtual devices before TensorFlow starts. In float64: in float32, rounding
alone (of sums in another order) grows to 0.1 within 20 steps at these learning rates.
"""

import dataclasses
import json
import sys

import keras
import numpy as np
import tensorflow as tf

import rvs_tf  # noqa: F401 (registers the defences)
from madry_cifar import data, replicas
from madry_cifar.networks import initializers
from madry_cifar.networks.layers import BatchNorm, Conv, Dense, standardize, synchronize
from madry_cifar.networks.wide_resnet import Outputs, WideResNet
from madry_cifar.runs.checkpoints import flat_state
from madry_cifar.training import registry, strategies
from madry_cifar.training.adversarial import Natural
from madry_cifar.training.optimizers import PiecewiseConstant, PyTorchAdam
from madry_cifar.training.steps import Steps
from tests import two_layers

# all of whose steps look at the whole batch, or draw for it; "adt_expam" is what the other two have
GENERATIVE = ("l2l", "l2l_da", "direct", "learn2perturb", "adt_exp", "adt_impam", "gat")
BATCH_SIZE, SEED = 8, 1
STEPS = {"rvs": 10, "at": 3, "featscatter": 2, "adv_interp": 2, "adv_vertex": 2, **dict.fromkeys(GENERATIVE, 2)}
SEVERAL = 5  # steps of a call
OPTIONS = {  # on replicas each step of an attack is traced on its own
    "at": {"attack_steps": 3},
    "adv_vertex": {"attack_steps": 3},
    "l2l": {"attacker_width": 1},
    "l2l_da": {"attacker_steps": 2, "generator_width": 1},
    "direct": {"generator_updates": 1, "generator_width": 1},
    "learn2perturb": {"attack_steps": 2, "noise_epoch": 0, "attack_epoch": 0, "shared_noise": False},
    "adt_exp": {"inner_steps": 2, "inner_samples": 1},
    "adt_impam": {"generator_width": 1, "entropy_threshold": 0.0},
    "gat": {"generator_width": 1},
}


class Small(keras.Model):
    """The layers of a wide ResNet once each: what replicas share, or do not, is the same in any number of them."""

    def __init__(self):
        super().__init__(dtype="float64", autocast=False)
        self.num_classes = 10
        self.conv, self.norm = Conv(8, stride=2, dtype="float64"), BatchNorm(dtype="float64")
        self.logits = Dense(10, dtype="float64")
        self.build((None, 32, 32, 3))
        initializers.released(self, SEED)

    def build(self, input_shape):
        self.map_shapes = [(16, 16, 8)]
        self.conv.build(input_shape)
        self.norm.build((None, 16, 16, 8))
        self.logits.build((None, 8))
        self.built = True

    def call(self, images, batch_norm="eval", updates=1, noise=(0.0,)):
        outputs = self.norm(self.conv(standardize(images)), mode=batch_norm, updates=updates) + noise[0]
        features = tf.reduce_mean(tf.nn.leaky_relu(outputs, 0.1), axis=[1, 2])
        return Outputs(features, self.logits(features))


def wide():
    """The network that is trained by RvS, which has a second one."""
    return WideResNet(10, 1, dtype="float64")


class Training:
    """A defence on a strategy, which can be trained from the same first values again."""

    def __init__(self, name, digits, strategy, network=Small, sync_bn=False):
        self.name, self.count, self.strategy, kind = name, len(digits.train), strategy, registry.find(name)
        with strategy.scope():
            subject = kind(network(), kind.Options(batch_size=BATCH_SIZE, **OPTIONS.get(name, {})), SEED)
        if sync_bn:
            for part in subject.networks.values():
                synchronize(part)
        self.steps = Steps(subject, digits, strategy=strategy, steps_per_call=SEVERAL)
        self.variables = [v.value for part in subject.networks.values() for v in part.variables]
        self.state = flat_state(subject.networks, subject.optimizers).values()
        self.first = [variable.numpy() for variable in self.state]

    def run(self, steps_per_call=1):
        """The losses after each call, and for each variable its value on each replica at the end."""
        for variable, value in zip(self.state, self.first, strict=True):
            variable.assign(value)
        self.steps.steps_per_call = steps_per_call  # one step and several are the same compiled function
        batches, losses = data.Batches(self.count, BATCH_SIZE, SEED), {}
        for step in range(0, STEPS[self.name], steps_per_call):
            rows = np.stack([batches(step + k) for k in range(steps_per_call)])
            _, seen, _ = self.steps.train(rows, step)
            losses[step + steps_per_call] = np.array([loss.numpy() for loss in seen.values()])
        local = self.strategy.experimental_local_results
        return losses, [[copy.numpy() for copy in local(variable)] for variable in self.variables]


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


def main(names):
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})  # takes longer than it saves here
    one, two = tf.distribute.get_strategy(), strategies.make("mirrored")
    digits = dataclasses.replace(data.load("digits"), augmented=True)
    alone, both = Training("rvs", digits, one, wide).run(), Training("rvs", digits, two, wide, sync_bn=True)
    found = {"rvs": compare(both.run(), alone), "rvs, five steps a call": compare(both.run(SEVERAL), alone)}
    for name in names:
        if name == "adam":
            found[name] = compare(train_by_adam(two), train_by_adam(one))
            continue
        alone = Training(name, digits, one).run()
        found[name] = compare(Training(name, digits, two, sync_bn=True).run(), alone)
        if name == "at":
            found["at, statistics of each replica"] = compare(Training(name, digits, two).run(), alone)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
