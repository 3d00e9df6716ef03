"""Tables II, III and IV and Figures 2, 3 and 4.

python -m experiments.all --dataset=cifar10 --data_dir=DATA --work_dir=WORK
python -m experiments.all --profile=smoke --work_dir=WORK      # minutes, on embedded digits
"""

from experiments.command import run
from experiments.parts import PARTS


def command() -> None:
    """Entry point."""
    run(list(PARTS), __doc__)


if __name__ == "__main__":
    command()
