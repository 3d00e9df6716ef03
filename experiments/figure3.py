"""Figure 3: how diverse RvS's perturbations are, over the checkpoints of a training."""

from experiments.command import command_for

command = command_for("figure3", __doc__)

if __name__ == "__main__":
    command()
