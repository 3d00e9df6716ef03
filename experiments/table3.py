"""Table III: attacks computed on a naturally and an adversarially trained network, transferred to every defence.

  python -m experiments.table3 --dataset=cifar10 --data_dir=DATA --work_dir=WORK

Trains whatever network is missing in --work_dir, measures whatever result is missing, and writes the report there.
The same command again goes on after an interruption. --plan tells what would be done and how long it would take.
"""

from experiments.command import run


def command() -> None:
    """Entry point."""
    run(["table3"], __doc__)


if __name__ == "__main__":
    command()
