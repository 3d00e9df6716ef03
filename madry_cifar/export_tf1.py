"""Writes a run's checkpoint in the form that the TensorFlow 1 code reads (RvS release, MadryLab's cifar10_challenge).

python -m madry_cifar.export_tf1 --train_dir=runs/rvs --output=released/checkpoint-179000
"""

import pathlib

import tensorflow as tf
from absl import flags as absl_flags

from madry_cifar import checkpoints, flags, run_folder, tf1
from madry_cifar.errors import UsageError

FLAGS = absl_flags.FLAGS


def main() -> None:
    """Exports as the flags say."""
    for name in ("train_dir", "output"):
        if not FLAGS[name].value:
            raise UsageError(f"--{name}=: required")
    settings = run_folder.ADDED | run_folder.read_flags(FLAGS.train_dir)
    for name in ("architecture", "input_scaling", "batch_norm_epsilon"):
        if settings[name] != run_folder.ADDED[name]:
            raise UsageError(f"--train_dir={FLAGS.train_dir}: has --{name}={settings[name]}, which that code does not")
    kind = "rvs" if settings["defense"] == "rvs" else "madry"
    step, path = checkpoints.find(FLAGS.train_dir, FLAGS.checkpoint)
    values = checkpoints.read(path)
    try:
        pathlib.Path(FLAGS.output).parent.mkdir(parents=True, exist_ok=True)
        tf1.write(FLAGS.output, kind, values)
    except KeyError as error:
        raise UsageError(f"--train_dir={FLAGS.train_dir}: {error.args[0]}") from None
    except tf.errors.OpError as error:
        raise UsageError(f"--output={FLAGS.output}: cannot be written ({error.message})") from None
    print(f"step {step}: {len(values)} variables for the {kind} code in {FLAGS.output}")


def command() -> None:
    """Entry point."""
    flags.define("Export", "train_dir", None, "folder of the run (required)")
    flags.define("Export", "checkpoint", None, "step or path of its checkpoint [the latest]")
    flags.define("Export", "output", None, "prefix of the checkpoint to write (required)")
    flags.run(main, __doc__)


if __name__ == "__main__":
    command()
