"""Trains a classifier by Robustness-via-Synthesis, or by any other defence (--defense).

  python -m rvs_tf.train --train_dir=runs/digits --depth=10 --width=1 --steps=1000
  python -m rvs_tf.train --flagfile=experiments/presets/cifar10_paper.flags --data_dir=DATA --train_dir=runs/rvs

Without flags it is the released code's RvS: WRN-34-10 for 179,000 steps, days on a GPU. Presets are in
experiments/presets; digits_smoke.flags is a training that ends in a minute.

The same command again goes on after the latest checkpoint in --train_dir. Ctrl-C saves and ends.
Watch it with: tensorboard --logdir runs
"""

import pathlib

from madry_cifar import train
from madry_cifar.cli import flags
from madry_cifar.training import registry

PRESET = pathlib.Path(__file__).parents[1] / "experiments" / "presets" / "digits_smoke.flags"
SHORTER = f"the released code's settings, for days on a GPU. A training that ends in a minute: --flagfile={PRESET}"


def command() -> None:
    """Entry point."""
    registry.installed()  # those of other packages are values of --defense too
    train.define_flags("rvs")
    flags.run(lambda: train.main(SHORTER), __doc__)


if __name__ == "__main__":
    command()
