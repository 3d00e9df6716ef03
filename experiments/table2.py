"""Table II: every defence under the attacks of the paper, beside the published numbers.

python -m experiments.table2 --dataset=cifar10 --data_dir=DATA --work_dir=WORK
"""

from experiments.command import run


def command() -> None:
    """Entry point."""
    run(["table2"], __doc__)


if __name__ == "__main__":
    command()
