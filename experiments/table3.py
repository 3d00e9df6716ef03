"""Table III: attacks computed on a naturally and an adversarially trained network, transferred to every defence."""

from experiments.command import command_for

command = command_for("table3", __doc__)

if __name__ == "__main__":
    command()
