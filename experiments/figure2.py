"""Figure 2: accuracy under PGD-20 over the radius of the ball, RvS against adversarial training.

  python -m experiments.figure2 --dataset=cifar10 --data_dir=DATA --work_dir=WORK

Trains whatever network is missing in --work_dir, measures whatever result is missing, and writes the report there.
The same command again goes on after an interruption. --plan tells what would be done and how long it would take.
"""

from experiments.command import run


def command() -> None:
    """Entry point."""
    run(["figure2"], __doc__)


if __name__ == "__main__":
    command()
