"""Table IV: RvS without the distance in the classifier's loss, with the cross-entropy for its generator, and whole.

  python -m experiments.table4 --dataset=cifar10 --data_dir=DATA --work_dir=WORK

A fourth row, ours, replaces the Sinkhorn distance by the mean over pairs.
"""

from experiments.command import run


def command() -> None:
    """Entry point."""
    run(["table4"], __doc__)


if __name__ == "__main__":
    command()
