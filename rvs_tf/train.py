"""Trains a classifier by Robustness-via-Synthesis, or by any other defence (--defense).

  python -m rvs_tf.train --train_dir=runs/digits --depth=10 --width=1 --steps=1000
  python -m rvs_tf.train --flagfile=experiments/presets/cifar10_paper.flags --data_dir=DATA --train_dir=runs/rvs

Without flags it is the released code's RvS.

The same command again goes on after the latest checkpoint in --train_dir. Ctrl-C saves and ends.
Watch it with: tensorboard --logdir runs
"""

from madry_cifar import train
from madry_cifar.cli import flags
from madry_cifar.training import registry


def command() -> None:
    """Entry point."""
    registry.installed()  # those of other packages are values of --defense too
    train.define_flags("rvs")
    flags.run(lambda: train.main("rvs_tf.evaluate"), __doc__)


if __name__ == "__main__":
    command()
