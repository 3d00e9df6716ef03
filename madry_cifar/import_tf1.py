"""Turns a TensorFlow 1 checkpoint of the RvS release or of MadryLab's cifar10_challenge into a run.

  python -m madry_cifar.import_tf1 --checkpoint=models/adv_trained/checkpoint-70000 --train_dir=runs/madry

`rvs_tf.evaluate` reads the run, and the training command with the same flags continues it. Depth, width, number of
classes and defence are read from the checkpoint (give --defense=natural for a naturally trained one of MadryLab's);
other settings are the defence's own unless given.
"""

import importlib
import pathlib

import tensorflow as tf
from absl import flags as absl_flags

from madry_cifar import data, train
from madry_cifar.cli import flags
from madry_cifar.cli.errors import UsageError
from madry_cifar.runs import run_folder, tf1
from madry_cifar.runs.checkpoints import PREFIX, saved_steps
from madry_cifar.training import registry

FLAGS = absl_flags.FLAGS


def main() -> None:
    """Imports as the flags say."""
    for name in ("checkpoint", "train_dir"):
        if not FLAGS[name].value:
            raise UsageError(name, "", "required")
    kind, classifier, values = tf1.read(FLAGS.checkpoint)
    if saved_steps(FLAGS.train_dir):
        raise UsageError("train_dir", FLAGS.train_dir, "holds a run already; choose a new folder")
    dataset = FLAGS.dataset or ("cifar100" if classifier.num_classes == 100 else "cifar10")
    if data.NUM_CLASSES.get(dataset) != classifier.num_classes:
        raise UsageError("dataset", dataset, f"not one with the checkpoint's {classifier.num_classes} classes")
    read = {"depth": classifier.depth, "width": classifier.width, "dataset": dataset, "architecture": "madry"}
    for name, value in read.items():
        if FLAGS[name].value not in (None, value):
            raise UsageError(name, FLAGS[name].value, f"the checkpoint's is {value}")
        FLAGS[name].value = value
    FLAGS.defense = FLAGS.defense or tf1.KINDS[kind][0]
    if FLAGS.defense not in tf1.KINDS[kind]:
        raise UsageError("defense", FLAGS.defense, f"the {kind} code trains by {' or '.join(tf1.KINDS[kind])}")
    if FLAGS.input_scaling != run_folder.ADDED["input_scaling"]:
        raise UsageError("input_scaling", FLAGS.input_scaling, "that code's networks standardize each image")
    options = flags.given_options(registry.find(FLAGS.defense))
    if options.epochs or options.learning_rate_epochs:
        name = "epochs" if options.epochs else "learning_rate_epochs"
        raise UsageError(
            name, getattr(options, name), "not for an imported run; give --steps and --learning_rate_boundaries"
        )
    train.check_flags(options)
    values, added = complete(values)
    folder = run_folder.create(FLAGS.train_dir, train.settings_of(options, classifier.num_classes))
    step = int(values["step"])
    save(folder, values)
    print(
        f"{len(values)} variables of the {kind} code, WRN-{FLAGS.depth}-{FLAGS.width}, {classifier.num_classes} "
        f"classes, after {step} steps: now a run of --defense={FLAGS.defense} in {folder}{added}"
    )


def complete(values: dict) -> tuple[dict, str]:
    """The values with a step and momentum, zeros where the checkpoint had none, and a note of what was added."""
    notes = []
    if "step" not in values:
        values, notes = values | {"step": 0}, ["no global_step: taken as 0"]
    values |= {"step": tf.constant(int(values["step"]), tf.int64)}
    if not any(name.endswith(".momentum") for name in values):
        trained = [name for name in values if name != "step" and not name.split(".")[-1].startswith("moving_")]
        values |= {f"{name}.momentum": tf.zeros_like(values[name]) for name in trained}
        notes.append("no momentum: starts at zero")
    return values, f" ({'; '.join(notes)})" if notes else ""


def save(folder: pathlib.Path, values: dict) -> None:
    """Writes values by our names as the checkpoint of a run."""
    checkpoint = tf.train.Checkpoint(**{name: tf.Variable(value) for name, value in values.items()})
    manager = tf.train.CheckpointManager(checkpoint, str(folder / "checkpoints"), None, checkpoint_name=PREFIX)
    manager.save(checkpoint_number=int(values["step"]))


def command() -> None:
    """Entry point."""
    importlib.import_module("rvs_tf")  # registers RvS, whose checkpoints are read here too
    flags.define("Import", "checkpoint", None, "prefix of the TensorFlow 1 checkpoint, without .index (required)")
    train.define_flags("rvs")
    for name in ("dataset", "defense", "depth", "width"):  # read from the checkpoint, unless given
        FLAGS.set_default(name, None)
    flags.run(main, __doc__)


if __name__ == "__main__":
    command()
