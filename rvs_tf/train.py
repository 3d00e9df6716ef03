"""Trains a classifier by Robustness-via-Synthesis, or by any other defence (--defense).

  python -m rvs_tf.train --train_dir=runs/digits --depth=10 --width=1 --steps=1000
  python -m rvs_tf.train --flagfile=experiments/presets/cifar10_paper.flags --data_dir=DATA --train_dir=runs/rvs

Without flags it is the released code's RvS, but for the 179,000 steps of the paper's text: WRN-34-10, hours on a GPU,
weeks on two CPU cores.

The same command again goes on after the latest checkpoint in --train_dir. Ctrl-C saves and ends.
Watch it with: tensorboard --logdir runs
"""

import collections
import pathlib

from madry_cifar import train
from madry_cifar.cli import flags
from madry_cifar.training import registry

PRESETS = pathlib.Path(__file__).parents[1] / "experiments" / "presets"
SHORTEST = PRESETS / "digits_smoke.flags"
SHORTER = f"the released code's settings, for hours on a GPU. A training that ends in a minute: --flagfile={SHORTEST}"


def presets() -> str:
    """What --help says of the presets."""
    kinds = collections.defaultdict(list)
    for path in sorted(PRESETS.glob("*.flags")):
        dataset, kind = path.stem.split("_", 1)
        kinds[dataset].append(kind)
    if not kinds:  # installed without experiments
        return ""
    datasets = collections.defaultdict(list)
    for dataset, those in kinds.items():
        datasets[", ".join(those)].append(dataset)
    lines = [f"Presets are {PRESETS}/DATASET_KIND.flags:"]
    lines += [f"DATASET {', '.join(some)}: KIND {those}" for those, some in datasets.items()]
    return "\n  ".join([*lines, f"--flagfile={SHORTEST} ends in a minute"])


def command() -> None:
    """Entry point."""
    registry.installed()  # those of other packages are values of --defense too
    train.define_flags("rvs")
    flags.run(lambda: train.main("rvs_tf.evaluate", SHORTER), f"{__doc__}\n{presets()}")


if __name__ == "__main__":
    command()
