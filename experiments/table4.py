"""Table IV: RvS without the distance in the classifier's loss, with the cross-entropy for its generator, and whole.

A fourth row, ours, replaces the Sinkhorn distance by the mean over pairs.
"""

from experiments.command import command_for

command = command_for("table4", __doc__)

if __name__ == "__main__":
    command()
