"""Figure 2: accuracy under PGD-20 over the radius of the ball, RvS against adversarial training."""

from experiments.command import command_for

command = command_for("figure2", __doc__)

if __name__ == "__main__":
    command()
