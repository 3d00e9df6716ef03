"""Runs the authors' released training, as it is, in turns: `train.py` of a checkout, under `tf.compat.v1`.

A program for `benchmarks.turns`; `benchmarks.step --reference=DIR` starts it. What its TensorFlow 1 had and ours has
not is put in its place: `tf.contrib`'s batch normalisation (with the fused op, as there) and global step; and
`cifar10_input`, which the release took from MadryLab and does not contain, as a data set of one batch. It writes no
checkpoint. A turn is one of its iterations, without the accuracies that it prints at the first one.
"""

import json
import os
import pathlib
import runpy
import sys
import tempfile
import time
import types

import numpy as np
import tensorflow as tf

from benchmarks.turns import turns
from madry_cifar.cli.errors import UsageError

FILES = ("train.py", "model.py", "eval_pgd_attack.py", "config.json")
SIZE = (34, 10)  # depth and width, which are written into its model.py
v1 = tf.compat.v1


def check(folder: str, depth: int, width: int) -> None:
    """Raises UsageError, naming the flag, unless `folder` is a checkout that has a network of this size."""
    missing = [name for name in FILES if not (pathlib.Path(folder) / name).is_file()]
    if missing:
        raise UsageError("reference", folder, f"no {missing[0]} there; give the folder of a checkout of the release")
    if (depth, width) != SIZE:
        raise UsageError("reference", folder, f"its network is that of --depth={SIZE[0]} --width={SIZE[1]} alone")


class Released:
    """Gives the released code its data, at the start of each iteration: there a turn ends and the next one begins."""

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        self.batch, self.turns, self.begun = (images, labels), turns(), False
        self.off = 0.0  # seconds of this turn that do not count

    def run(self, folder: pathlib.Path) -> None:
        """Runs `train.py` of the folder in the current one, which holds its config.json, until the turns end."""
        v1.disable_v2_behavior()
        v1.logging.set_verbosity(v1.logging.ERROR)
        v1.train.Saver.save = lambda *_, **__: None
        sys.modules |= {"tensorflow": self._tensorflow(), "cifar10_input": self._cifar10_input()}
        sys.path.insert(0, str(folder))
        next(self.turns)
        runpy.run_path(str(folder / "train.py"), run_name="__main__")

    def get_next_batch(self, batch_size, multiple_passes):
        """What the released code calls on its data set."""
        if self.begun:
            try:
                self.turns.send(self.off)
            except StopIteration:
                sys.exit()
        self.begun, self.off = True, 0.0
        return self.batch

    def _cifar10_input(self):
        module = types.ModuleType("cifar10_input")
        module.CIFAR10Data = lambda path: None
        module.AugmentedCIFAR10Data = lambda data, session, model: types.SimpleNamespace(train_data=self)
        return module

    def _tensorflow(released):
        class Session(v1.Session):
            def run(self, fetches, **settings):
                started = time.perf_counter()
                result = super().run(fetches, **settings)
                if isinstance(fetches, list):  # accuracies to print
                    released.off = time.perf_counter() - started
                return result

        module = types.ModuleType("tensorflow")
        module.__getattr__ = lambda name: getattr(v1, name)
        module.Session = Session
        module.contrib = types.SimpleNamespace(
            layers=types.SimpleNamespace(batch_norm=batch_norm),
            framework=types.SimpleNamespace(get_or_create_global_step=v1.train.get_or_create_global_step),
        )
        return module


def batch_norm(inputs, decay, is_training, **_):
    """`tf.contrib.layers.batch_norm` as the release calls it: scaled, centred, its updates made in place."""
    with v1.variable_scope(None, "BatchNorm", [inputs]):
        names = {"beta": 0.0, "gamma": 1.0, "moving_mean": 0.0, "moving_variance": 1.0}
        beta, gamma, *running = (
            v1.get_variable(
                name,
                inputs.shape[-1:],
                initializer=v1.constant_initializer(start),
                trainable=not name.startswith("moving"),
            )
            for name, start in names.items()
        )
        if not is_training:
            return v1.nn.fused_batch_norm(inputs, gamma, beta, *running, epsilon=0.001, is_training=False)[0]
        outputs, *batch = v1.nn.fused_batch_norm(inputs, gamma, beta, epsilon=0.001)
        moves = [v1.assign_sub(old, (1 - decay) * (old - new)) for old, new in zip(running, batch, strict=True)]
        with tf.control_dependencies(moves):
            return tf.identity(outputs)


def main(settings: dict) -> None:
    """Takes its turns; `settings` are `folder` and `batch_size`."""
    folder = pathlib.Path(settings["folder"]).absolute()
    config = json.loads((folder / "config.json").read_text()) | {"training_batch_size": settings["batch_size"]}
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (settings["batch_size"], 32, 32, 3)).astype(np.float32)
    released = Released(images, rng.integers(0, 10, settings["batch_size"]))
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        pathlib.Path("config.json").write_text(json.dumps(config))
        released.run(folder)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
