"""Figure 3: how diverse RvS's perturbations are, over the checkpoints of a training.

python -m experiments.figure3 --dataset=cifar10 --data_dir=DATA --work_dir=WORK
"""

from experiments.command import run


def command() -> None:
    """Entry point."""
    run(["figure3"], __doc__)


if __name__ == "__main__":
    command()
