"""Trains AdvGAN, a generator of adversarial perturbations, against the classifier of a run.

  python -m rvs_tf.train_advgan --target_dir=runs/rvs --train_dir=runs/rvs-advgan
  python -m rvs_tf.train_advgan --target_dir=runs/rvs --train_dir=runs/rvs-advgan-x8 --generator_width=8

It trains on the training images of the target's data set, as they are, and keeps a checkpoint of every epoch; after
each, the target's accuracy on test images is measured. Losses and defaults are those of ctargon/AdvGAN-tf (for MNIST),
but for ε and --perturbation_bound.

The same command again goes on after the latest checkpoint in --train_dir. Ctrl-C saves and ends.
Watch it with: tensorboard --logdir runs
"""

import contextlib
import dataclasses
import json
import pathlib
import types
from typing import Any

import tensorflow as tf
from absl import flags as absl_flags

from madry_cifar import data
from madry_cifar.cli import flags
from madry_cifar.cli.errors import UsageError
from madry_cifar.evaluation.evaluator import Evaluator, fingerprint
from madry_cifar.networks.wide_resnet import WideResNet, name_of
from madry_cifar.runs import checkpoints, files, run_folder
from madry_cifar.training.trainer import Schedule, Trainer
from rvs_tf.advgan.advgan import AdvGAN, as_attack

FLAGS = absl_flags.FLAGS


def define_flags() -> None:
    """The flags of the command, with AdvGAN's options."""
    define = flags.define
    define("Run", "train_dir", None, "folder of the AdvGAN, not the target's (required)")
    define("Run", "target_dir", None, "folder of the run whose classifier is attacked (required)")
    define("Run", "target_checkpoint", None, "step or path of its checkpoint [the latest]")
    define("Run", "seed", 0, "of the weights and the order of the data", kind=int, minimum=0, maximum=2**31 - 1)
    define("Run", "log_every", 100, "steps between points on TensorBoard's curves; 0 never", kind=int, minimum=0)
    define("Run", "image_every", 1000, "steps between images in TensorBoard; 0 never", kind=int, minimum=0)
    define("Run", "eval_images", 0, "test images for the accuracy after each epoch; 0 is all", kind=int, minimum=0)
    define("Data", "data_dir", None, "where the data set is now [as the target was trained]")
    define("Data", "download", False, "prepare the data set there if it is missing", kind=bool)
    define("Data", "max_train_images", 0, "train on the first so many images; 0 is all", kind=int, minimum=0)
    flags.define_option_flags({AdvGAN.name: AdvGAN}, "AdvGAN")


def main() -> None:
    """Trains as the flags say, and prints the accuracies of the last and of the strongest epoch."""
    for name in ("train_dir", "target_dir"):
        if not FLAGS[name].value:
            raise UsageError(name, "", "required (see --help)")
    options = flags.given_options(AdvGAN, "AdvGAN")
    target_flags, target_step, target = load_target()
    dataset = load_data(target_flags)
    steps_per_epoch = data.Batches(len(dataset.train), options.batch_size, FLAGS.seed).steps_per_epoch
    settings = {
        "attack": AdvGAN.name,
        "target_checkpoint": target_step,
        "target_sha256": fingerprint(target),
        **{name: target_flags.get(name) for name in ("dataset", "validation_size", "depth", "width", "num_classes")},
        **flags.configuration(
            [
                name
                for part in ("Run", "Data")
                for name in flags.section(part)
                if name not in ("train_dir", "target_checkpoint")
            ]
        ),
        "steps_per_epoch": steps_per_epoch,
    } | options.as_dict()
    folder = run_folder.create(FLAGS.train_dir, settings, dataset.provenance)
    advgan = AdvGAN(target, options, FLAGS.seed)
    accuracies = Accuracies(advgan, dataset, folder)
    accuracies.catch_up(steps_per_epoch)
    every = {"checkpoint_every": steps_per_epoch, "eval_every": steps_per_epoch, "keep": 0}
    trainer = Trainer(
        advgan,
        dataset,
        folder,
        Schedule(**every, **flags.configuration(["log_every", "image_every"])),
        evaluator=lambda split, *, seed: accuracies.measure(trainer.step),
        jit_compile=bool(tf.config.list_physical_devices("GPU")),
    )
    print(
        f"AdvGAN against {target_flags['defense']}, {name_of(target_flags)}, step {target_step}, on "
        f"{dataset.provenance}: {len(dataset.train)} training images, {options.epochs} epochs of {steps_per_epoch} "
        f"steps of {options.batch_size}, into {folder}"
    )
    if trainer.step:
        print(
            f"going on after step {trainer.step}"
            if trainer.step < advgan.steps(steps_per_epoch)
            else f"already trained for {trainer.step} steps"
        )
    else:
        trainer.summaries.settings(settings)
    trainer.train()
    print(accuracies.summary([steps_per_epoch * epoch for epoch in range(1, options.epochs + 1)]))


def load_target() -> tuple[dict[str, Any], int, WideResNet]:
    """The settings of the target's run, the step of its checkpoint and its classifier."""
    try:
        target_flags = run_folder.read_flags(FLAGS.target_dir)
        if "defense" not in target_flags:
            raise UsageError("train_dir", FLAGS.target_dir, "holds no run of a classifier")
        step, _ = checkpoints.find(FLAGS.target_dir, FLAGS.target_checkpoint)
        return target_flags, step, checkpoints.load_classifier(FLAGS.target_dir, step)
    except UsageError as error:
        raise error.renamed(train_dir="target_dir", checkpoint="target_checkpoint") from None


def load_data(target_flags: dict[str, Any]) -> data.Dataset:
    """The target's data set: the training images that are asked for, as they are, and the test images to evaluate."""
    dataset = data.load(
        target_flags["dataset"],
        data_dir=FLAGS.data_dir or target_flags.get("data_dir"),
        download=FLAGS.download,
        validation_size=target_flags.get("validation_size", 0),
    )
    train = dataset.train.take(slice(FLAGS.max_train_images or None))
    test = dataset.test.take(slice(FLAGS.eval_images or None))
    return dataclasses.replace(dataset, train=train, test=test, validation=None, augmented=False)


class Accuracies:
    """The target's accuracy, in percent on the test images, under the generator of each epoch.

    They are kept in the folder's `results/accuracy_test-N.json`, N being the number of images, so that a training that
    goes on knows them.
    """

    def __init__(self, advgan: AdvGAN, dataset: data.Dataset, folder: pathlib.Path):
        self.advgan, self.dataset, self.folder = advgan, dataset, folder
        self.file = folder / "results" / f"accuracy_test-{len(dataset.test)}.json"
        attack = as_attack(advgan.generator, advgan.options)
        self.evaluator = Evaluator(advgan.classifier, [attack], batch_size=min(200, len(dataset.test)))
        self.by_step = {}
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):  # those are measured again
            known = json.loads(self.file.read_text())["accuracy"].items()
            self.by_step = {int(step): float(accuracy) for step, accuracy in known}

    def measure(self, step: int) -> dict[str, Any]:
        """Measures and keeps the accuracy after `step` steps; returns it and the lowest so far, for the curves."""
        outcome = self.evaluator(self.dataset.test, seed=self.advgan.seed)[AdvGAN.name]
        self.by_step[step] = outcome.accuracy
        content = {
            "schema_version": run_folder.SCHEMA_VERSION,
            "numbers": "measured",
            "images": len(self.dataset.test),
            "provenance": self.dataset.provenance,
            "accuracy": dict(sorted(self.by_step.items())),
        }
        files.write_json(self.file, content)
        lowest = min(accuracy for earlier, accuracy in self.by_step.items() if earlier <= step)
        return {AdvGAN.name: outcome, f"{AdvGAN.name}-minimum": types.SimpleNamespace(accuracy=lowest)}

    def catch_up(self, steps_per_epoch: int) -> None:
        """Measures what is not known of the epochs whose checkpoints are there. Leaves the generator at one of them."""
        for step in checkpoints.saved_steps(self.folder):
            if step % steps_per_epoch == 0 and step not in self.by_step:
                checkpoints.load_network(self.advgan.generator, "generator", self.folder, step)
                self.measure(step)

    def summary(self, steps: list[int]) -> str:
        """A line with the accuracies of the last and of the strongest of the epochs that end at `steps`."""
        known = {epoch: self.by_step[step] for epoch, step in enumerate(steps, 1) if step in self.by_step}
        last, strongest = max(known), min(known, key=known.get)
        return (
            f"accuracy under AdvGAN on {len(self.dataset.test)} test images: {known[last]:.2f} % after epoch {last}, "
            f"the last; {known[strongest]:.2f} % after epoch {strongest}, the minimum of {len(known)} "
            "(an oracle choice: made on these images, as in the paper)"
        )


def command() -> None:
    """Entry point."""
    define_flags()
    flags.run(main, __doc__)


if __name__ == "__main__":
    command()
