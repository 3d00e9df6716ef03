"""Figure 2: accuracy under PGD-20 over the radius of the ball, RvS against adversarial training.

python -m experiments.figure2 --dataset=cifar10 --data_dir=DATA --work_dir=WORK
"""

from experiments.command import run


def command() -> None:
    """Entry point."""
    run(["figure2"], __doc__)


if __name__ == "__main__":
    command()
