"""Writes a run's checkpoint in the form that the TensorFlow 1 code reads (RvS release, MadryLab's cifar10_challenge).

python -m madry_cifar.export_tf1 --train_dir=runs/rvs --output=released/checkpoint-179000
"""

import pathlib

import tensorflow as tf
from absl import flags as absl_flags

from madry_cifar.cli import flags
from madry_cifar.cli.errors import UsageError
from madry_cifar.runs import checkpoints, run_folder, tf1

FLAGS = absl_flags.FLAGS


def main() -> None:
    """Exports as the flags say."""
    for name in ("train_dir", "output"):
        if not FLAGS[name].value:
            raise UsageError(name, "", "required")
    settings = run_folder.ADDED | run_folder.read_flags(FLAGS.train_dir)
    for name in ("architecture", "input_scaling", "batch_norm_epsilon"):
        if settings[name] != run_folder.ADDED[name]:
            raise UsageError("train_dir", FLAGS.train_dir, f"has --{name}={settings[name]}, which that code does not")
    kind = "rvs" if settings["defense"] == "rvs" else "madry"
    step, path = checkpoints.find(FLAGS.train_dir, FLAGS.checkpoint)
    values = checkpoints.read(path)
    try:
        pathlib.Path(FLAGS.output).parent.mkdir(parents=True, exist_ok=True)
        tf1.write(FLAGS.output, kind, values)
    except KeyError as error:
        raise UsageError("train_dir", FLAGS.train_dir, f"{error.args[0]}") from None
    except tf.errors.OpError as error:
        raise UsageError("output", FLAGS.output, f"cannot be written ({error.message})") from None
    print(f"step {step}: {len(values)} variables for the {kind} code in {FLAGS.output}")


def command() -> None:
    """Entry point."""
    flags.define("Export", "train_dir", None, "folder of the run (required)")
    flags.define("Export", "checkpoint", None, "step or path of its checkpoint [the latest]")
    flags.define("Export", "output", None, "prefix of the checkpoint to write (required)")
    flags.run(main, __doc__)


if __name__ == "__main__":
    command()
