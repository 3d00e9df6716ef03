"""Writes a run's checkpoint in the form that the TensorFlow 1 code reads (RvS release, MadryLab's cifar10_challenge).

python -m madry_cifar.export_tf1 --train_dir=runs/rvs --output=released/checkpoint-179000
"""

import pathlib

import tensorflow as tf

from madry_cifar.cli import flags
from madry_cifar.cli.errors import UsageError
from madry_cifar.cli.settings import Checkpoint, required
from madry_cifar.runs import checkpoints, run_folder, tf1
from madry_cifar.training.construction import flags_of_a_classifier


class ExportTF1Settings(Checkpoint):
    """What is written where."""

    output: str = required("prefix of the checkpoint to write", kind="path")


def main() -> None:
    """Exports as the flags say."""
    settings = flags.read(ExportTF1Settings)
    run_flags = run_folder.ADDED | flags_of_a_classifier(settings.train_dir)
    for name in ("architecture", "input_scaling", "batch_norm_epsilon"):
        if run_flags[name] != run_folder.ADDED[name]:
            raise UsageError(
                "train_dir", settings.train_dir, f"has --{name}={run_flags[name]}, which that code does not"
            )
    kind = "rvs" if run_flags["defense"] == "rvs" else "madry"
    step, path = checkpoints.find(settings.train_dir, settings.checkpoint)
    values = checkpoints.read(path)
    try:
        pathlib.Path(settings.output).parent.mkdir(parents=True, exist_ok=True)
        tf1.write(settings.output, kind, values)
    except KeyError as error:
        raise UsageError("train_dir", settings.train_dir, f"{error.args[0]}") from None
    except tf.errors.OpError as error:
        raise UsageError("output", settings.output, f"cannot be written ({error.message})") from None
    print(f"step {step}: {len(values)} variables for the {kind} code in {settings.output}")


def command() -> None:
    """Entry point."""
    flags.define("Export", ExportTF1Settings)
    flags.run(main, __doc__)


if __name__ == "__main__":
    command()
