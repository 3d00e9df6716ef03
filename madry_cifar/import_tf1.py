"""Turns a TensorFlow 1 checkpoint of the RvS release or of MadryLab's cifar10_challenge into a run.

  python -m madry_cifar.import_tf1 --checkpoint=models/adv_trained/checkpoint-70000 --train_dir=runs/madry

`rvs_tf.evaluate` reads the run, and the training command with the same flags continues it. Depth, width, number of
classes and defence are read from the checkpoint (give --defense=natural for a naturally trained one of MadryLab's);
other settings are the defence's own unless given.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from madry_cifar import train
from madry_cifar.cli import flags
from madry_cifar.cli.errors import UsageError
from madry_cifar.cli.settings import Settings, required
from madry_cifar.networks.wide_resnet import WideResNet
from madry_cifar.runs import run_folder, tf1
from madry_cifar.runs.checkpoints import PREFIX, saved_steps, write
from madry_cifar.runs.foreign import agreed
from madry_cifar.training import registry
from madry_cifar.training.options import Options
from madry_cifar.training.settings import TrainSettings


class ImportSettings(Settings):
    """What is read."""

    checkpoint: str = required("prefix of the TensorFlow 1 checkpoint, without .index", kind="path")


def main() -> None:
    """Imports as the flags say."""
    kind, classifier, values = tf1.read(flags.read(ImportSettings).checkpoint)
    settings = flags.read(TrainSettings, **settings_of(kind, classifier, flags.given(TrainSettings)))
    options = options_of(settings)
    values, added = complete(values)
    folder = run_folder.create(settings.train_dir, train.flags_of(settings, options, classifier.num_classes))
    step = int(values["step"])
    save(folder, values)
    print(
        f"{len(values)} variables of the {kind} code, WRN-{settings.depth}-{settings.width}, {classifier.num_classes} "
        f"classes, after {step} steps: now a run of --defense={settings.defense} in {folder}{added}"
    )


def options_of(settings: TrainSettings) -> Options:
    """The options that an imported run can be trained on with, as the flags say. Raises UsageError for others."""
    if saved_steps(settings.train_dir):
        raise UsageError("train_dir", settings.train_dir, "holds a run already; choose a new folder")
    options = flags.given_options(registry.find(settings.defense))
    for name in ("epochs", "learning_rate_epochs"):
        if value := getattr(options, name):
            raise UsageError(name, value, "not for an imported run; give --steps and --learning_rate_boundaries")
    train.check(settings, options)
    return options


def settings_of(kind: str, classifier: WideResNet, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a checkpoint of a `kind` of code decides. Raises UsageError where others were `given`."""
    read = {"depth": classifier.depth, "width": classifier.width, "architecture": "madry"}
    read = agreed(read, classifier.num_classes, given)
    chosen = given.get("defense", tf1.KINDS[kind][0])
    if chosen not in tf1.KINDS[kind]:
        raise UsageError("defense", chosen, f"the {kind} code trains by {' or '.join(tf1.KINDS[kind])}")
    scaling = given.get("input_scaling", run_folder.ADDED["input_scaling"])
    if scaling != run_folder.ADDED["input_scaling"]:
        raise UsageError("input_scaling", scaling, "that code's networks standardize each image")
    return read | {"defense": chosen}


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
    variables = {name: tf.Variable(value) for name, value in values.items()}
    write(folder / "checkpoints" / f"{PREFIX}-{int(values['step'])}", variables)


def command() -> None:
    """Entry point."""
    registry.installed()  # whose options are flags; RvS's checkpoints are read here too
    flags.define("Import", ImportSettings)
    unknown = {"default": None}  # until the checkpoint is read
    train.define_flags(None, dataset=unknown, depth=unknown, width=unknown)
    flags.run(main, __doc__)


if __name__ == "__main__":
    command()
