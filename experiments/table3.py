"""Table III: attacks computed on a naturally and an adversarially trained network, transferred to every defence.

python -m experiments.table3 --dataset=cifar10 --data_dir=DATA --work_dir=WORK
"""

from experiments.command import run


def command() -> None:
    """Entry point."""
    run(["table3"], __doc__)


if __name__ == "__main__":
    command()
