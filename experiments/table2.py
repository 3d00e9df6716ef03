"""Table II: every defence under the attacks of the paper, beside the published numbers."""

from experiments.command import command_for

command = command_for("table2", __doc__)

if __name__ == "__main__":
    command()
