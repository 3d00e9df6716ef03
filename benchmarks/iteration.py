"""A training iteration on a batch of random images, to be timed: ours of any defence, or RvS with Keras's layers.

A program for `benchmarks.turns`, whose turns are iterations; the first one builds and compiles.
"""

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

import rvs_tf  # noqa: F401 (registers the defences)
from benchmarks.plain import PlainRvS
from benchmarks.turns import turns
from madry_cifar import defense
from madry_cifar.model import WideResNet
from madry_cifar.randomness import uniform
from madry_cifar.train import PRECISIONS


def batch(batch_size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Random images [B, 32, 32, 3] in [0, 255] and labels [B]."""
    return uniform([batch_size, 32, 32, 3], (0, 1), 0, 255), uniform([batch_size], (0, 2), 0, 10, tf.int32)


def ours(settings: Mapping[str, Any]) -> tf.types.experimental.PolymorphicFunction:
    """The iteration of the defence that the settings of `benchmarks.step` name, as a function of its number."""
    classifier = WideResNet(settings["depth"], settings["width"], dtype=PRECISIONS[settings["precision"]])
    subject = defense.find(settings["defense"])(classifier)
    images, labels = batch(settings["batch_size"])
    specification = [tf.TensorSpec([], tf.int64)]
    return tf.function(lambda step: dict(subject.train_step(images, labels, step)), specification, autograph=False,
                       jit_compile=settings["jit_compile"])  # fmt: skip


def plain(settings: Mapping[str, Any], unrolled: bool) -> tf.types.experimental.PolymorphicFunction:
    """The iteration of RvS with Keras's layers."""
    subject = PlainRvS(settings["depth"], settings["width"], unrolled)
    images, labels = batch(settings["batch_size"])
    return tf.function(lambda step: subject.train_step(images, labels), [tf.TensorSpec([], tf.int64)], autograph=False,
                       jit_compile=settings["jit_compile"])  # fmt: skip


PROGRAMS: dict[str, Callable] = {
    "ours": ours,
    "keras": lambda settings: plain(settings, unrolled=False),
    "keras, unrolled": lambda settings: plain(settings, unrolled=True),
}


def run(function: Callable[[tf.Tensor], Any], step: int) -> None:
    """Calls the function of a step's number and waits for all that it returns."""
    tf.nest.map_structure(lambda tensor: tensor.numpy(), function(tf.constant(step, tf.int64)))


def main(program: str, settings: Mapping[str, Any]) -> None:
    """Takes its turns."""
    for step in turns():
        if step == 0:
            function = PROGRAMS[program](settings)
        run(function, step)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
