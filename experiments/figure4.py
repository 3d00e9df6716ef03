"""Figure 4: t-SNE of the features of perturbed images, early and late in RvS's training."""

from experiments.command import command_for

command = command_for("figure4", __doc__)

if __name__ == "__main__":
    command()
