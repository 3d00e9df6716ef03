"""Tables II, III and IV and Figures 2, 3 and 4."""

from experiments.command import command_for
from experiments.parts import PARTS

command = command_for("all", __doc__, [*PARTS])

if __name__ == "__main__":
    command()
