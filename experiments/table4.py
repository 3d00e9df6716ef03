"""Table IV: RvS without the distance in the classifier's loss, with the cross-entropy for its generator, and whole.

  python -m experiments.table4 --dataset=cifar10 --data_dir=DATA --work_dir=WORK

A fourth row, ours, replaces the Sinkhorn distance by the mean over pairs.

Trains whatever network is missing in --work_dir, measures whatever result is missing, and writes the report there.
The same command again goes on after an interruption. --plan tells what would be done and how long it would take.
"""

from experiments.command import run


def command() -> None:
    """Entry point."""
    run(["table4"], __doc__)


if __name__ == "__main__":
    command()
