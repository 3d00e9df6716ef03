"""Tables II, III and IV and Figures 2, 3 and 4.

  python -m experiments.all --dataset=cifar10 --data_dir=DATA --work_dir=WORK
  python -m experiments.all --profile=smoke --work_dir=WORK      # minutes, on embedded digits

Trains whatever network is missing in --work_dir, measures whatever result is missing, and writes the report there.
The same command again goes on after an interruption. --plan tells what would be done and how long it would take.
"""

from experiments.command import run
from experiments.rows import PARTS


def command() -> None:
    """Entry point."""
    run(list(PARTS), __doc__)


if __name__ == "__main__":
    command()
