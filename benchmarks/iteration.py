"""What is timed: a training iteration, ours of any defence or RvS with Keras's layers, and the Sinkhorn distance.

All on random images or points. A program for `benchmarks.turns`, whose turns are single calls; the first one builds
and compiles.
"""

import functools
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from benchmarks.plain import PlainRvS
from benchmarks.turns import turns
from madry_cifar.cli.settings import Settings, option
from madry_cifar.networks.wide_resnet import check_size
from madry_cifar.randomness import normal, uniform
from madry_cifar.training import registry
from madry_cifar.training.construction import build
from sinkhorn_tf import sinkhorn_distance

DEFENSES = tuple(registry.installed())


class Network(Settings):
    """A training iteration's size. Raises UsageError for a network that there is not."""

    depth: int = option(10, "of the network, 6n + 4")
    width: int = option(2, "of the network", minimum=1)
    batch_size: int = option(64, "images per iteration", minimum=1)
    jit_compile: bool = option(False, "compile with XLA")

    def __post_init__(self):
        super().__post_init__()
        check_size(self.depth, self.width, 10)


class Iteration(Network):
    """A training iteration."""

    defense: str = option("rvs", f"one of {', '.join(DEFENSES)}", choices=DEFENSES)

    def iteration(self) -> dict[str, Any]:
        """The settings of `ours`, but for the precision."""
        return self.pick("defense", "depth", "width", "batch_size", "jit_compile")


def batch(batch_size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Random images [B, 32, 32, 3] in [0, 255] and labels [B]."""
    return uniform([batch_size, 32, 32, 3], (0, 1), 0, 255), uniform([batch_size], (0, 2), 0, 10, tf.int32)


def ours(settings: Mapping[str, Any]) -> tf.types.experimental.PolymorphicFunction:
    """The iteration of the defence that the settings of `benchmarks.step` name, as a function of a number.

    It is a late one, as some defences begin with iterations that do less.

    With "options", values by name, it has these.
    """
    subject = build(settings | settings.get("options", {}))
    images, labels = batch(settings["batch_size"])
    specification = [tf.TensorSpec([], tf.int64)]
    return tf.function(
        lambda number: dict(subject.train_step(images, labels, subject.steps(1) + number)),
        specification,
        autograph=False,
        jit_compile=settings["jit_compile"],
    )


def plain(settings: Mapping[str, Any], unrolled: bool) -> tf.types.experimental.PolymorphicFunction:
    """The iteration of RvS with Keras's layers."""
    subject = PlainRvS(settings["depth"], settings["width"], unrolled)
    images, labels = batch(settings["batch_size"])
    return tf.function(
        lambda step: subject.train_step(images, labels),
        [tf.TensorSpec([], tf.int64)],
        autograph=False,
        jit_compile=settings["jit_compile"],
    )


def sinkhorn(settings: Mapping[str, Any]) -> tf.types.experimental.PolymorphicFunction:
    """The Sinkhorn distance of two sets of `n` points and its gradient for both, as a function of a number."""
    shape = [settings["n"], settings["dimensions"]]
    x, y = (normal(shape, (0, number)) for number in range(2))

    def both(step):
        with tf.GradientTape() as tape:
            tape.watch((x, y))
            distance = sinkhorn_distance(x, y)
        return distance, tape.gradient(distance, (x, y))

    return tf.function(both, [tf.TensorSpec([], tf.int64)], autograph=False)


KERAS = ("keras", "keras, unrolled")  # the latter is what "unrolled" says of its Sinkhorn distance
PROGRAMS: dict[str, Callable] = {
    "ours": ours,
    **{name: functools.partial(plain, unrolled=name.endswith("unrolled")) for name in KERAS},
    "sinkhorn": sinkhorn,
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
