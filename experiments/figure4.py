"""Figure 4: t-SNE of the features of perturbed images, early and late in RvS's training.

python -m experiments.figure4 --dataset=cifar10 --data_dir=DATA --work_dir=WORK
"""

from experiments.command import run


def command() -> None:
    """Entry point."""
    run(["figure4"], __doc__)


if __name__ == "__main__":
    command()
