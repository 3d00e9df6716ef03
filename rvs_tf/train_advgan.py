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

from madry_cifar import data
from madry_cifar.cli import flags
from madry_cifar.cli.errors import UsageError
from madry_cifar.cli.settings import Checkpoint, Download, Seed, Settings, like, option, required
from madry_cifar.evaluation.evaluator import Evaluator
from madry_cifar.networks.architectures import name_of
from madry_cifar.predictor import Predictor
from madry_cifar.runs import checkpoints, files, run_folder
from madry_cifar.training.construction import load_predictor
from madry_cifar.training.settings import DataSettings, LoopSettings, Schedule
from madry_cifar.training.trainer import Trainer
from rvs_tf.advgan.advgan import AdvGAN, as_attack


class RunSettings(Settings):
    """The run, and the one that is attacked."""

    train_dir: str = like(Checkpoint, "train_dir", help="folder of the AdvGAN, not the target's")
    target_dir: str = required("folder of the run whose classifier is attacked", kind="path")
    target_checkpoint: str | None = option(None, "step or path of its checkpoint [the latest]", kind="path")
    seed: int = like(Seed, "seed", help="of the weights and the order of the data")
    log_every: int = like(Schedule, "log_every")
    image_every: int = like(Schedule, "image_every")
    eval_images: int = like(
        LoopSettings, "eval_images", default=0, help="test images for the accuracy after each epoch; 0 is all"
    )


class TrainingImages(Download):
    """What is trained on."""

    data_dir: str | None = like(Download, "data_dir", help="where the data set is now [as the target was trained]")
    max_train_images: int = like(DataSettings, "max_train_images", help="train on the first so many images; 0 is all")


class AdvGANSettings(TrainingImages, RunSettings):
    """All that the command is told, but for AdvGAN's options."""


def main() -> None:
    """Trains as the flags say, and prints the accuracies of the last and of the strongest epoch."""
    settings, options = flags.read(AdvGANSettings), flags.given_options(AdvGAN, "AdvGAN")
    target_flags, target_step, target = load_target(settings)
    dataset = load_data(target_flags, settings)
    steps_per_epoch = data.Batches(len(dataset.train), options.batch_size, settings.seed).steps_per_epoch
    run_flags = settings.as_dict() | {
        "attack": AdvGAN.name,
        "target_checkpoint": target_step,
        "target_sha256": target.fingerprint(),
        **{name: target_flags.get(name) for name in ("dataset", "validation_size", "depth", "width", "num_classes")},
        "steps_per_epoch": steps_per_epoch,
        **options.as_dict(),
    }
    del run_flags["train_dir"]
    with run_folder.trained_alone(settings.train_dir):
        run_folder.check(settings.train_dir, run_flags, dataset.provenance)
        folder = pathlib.Path(settings.train_dir)
        advgan = AdvGAN(target, options, settings.seed)
        accuracies = Accuracies(advgan, dataset, folder)
        accuracies.catch_up(steps_per_epoch)
        every = {"checkpoint_every": steps_per_epoch, "eval_every": steps_per_epoch, "keep": 0}
        trainer = Trainer(
            advgan,
            dataset,
            folder,
            Schedule(**every, **settings.pick("log_every", "image_every")),
            evaluator=lambda split, *, seed: accuracies.measure(trainer.step),
            jit_compile=bool(tf.config.list_physical_devices("GPU")),
        )
        done = trainer.step if trainer.step >= advgan.steps(steps_per_epoch) else None
        run_folder.create(settings.train_dir, run_flags, dataset.provenance, done=done)
        print(
            f"AdvGAN against {target_flags['defense']}, {name_of(target_flags)}, step {target_step}, on "
            f"{dataset.provenance}: {len(dataset.train)} training images, {options.epochs} epochs of {steps_per_epoch} "
            f"steps of {options.batch_size}, into {folder}"
        )
        if trainer.step:
            print(
                f"already trained for {trainer.step} steps"
                if done is not None
                else f"going on after step {trainer.step}"
            )
        else:
            trainer.summaries.settings(
                run_flags | {"defense": target_flags["defense"]}, [AdvGAN.name, f"{AdvGAN.name}-minimum"]
            )
        trainer.train()
        print(accuracies.summary([steps_per_epoch * epoch for epoch in range(1, options.epochs + 1)]))


def load_target(settings: AdvGANSettings) -> tuple[dict[str, Any], int, Predictor]:
    """The flags of the target's run, the step of its checkpoint and what is evaluated of it."""
    try:
        target_flags = run_folder.read_flags(settings.target_dir)
        if "defense" not in target_flags:
            raise UsageError("train_dir", settings.target_dir, "holds no run of a classifier")
        step, _ = checkpoints.find(settings.target_dir, settings.target_checkpoint)
        return target_flags, step, load_predictor(settings.target_dir, step)
    except UsageError as error:
        raise error.renamed(train_dir="target_dir", checkpoint="target_checkpoint") from None


def load_data(target_flags: dict[str, Any], settings: AdvGANSettings) -> data.Dataset:
    """The target's data set: the training images that are asked for, as they are, and the test images to evaluate."""
    dataset = data.load(
        target_flags["dataset"],
        data_dir=settings.data_dir or target_flags.get("data_dir"),
        download=settings.download,
        validation_size=target_flags.get("validation_size", 0),
    )
    train = dataset.train.take(slice(settings.max_train_images or None))
    test = dataset.test.take(slice(settings.eval_images or None))
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
        self.evaluator = Evaluator(advgan.target, [attack], batch_size=min(200, len(dataset.test)))
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
    flags.define("Run", RunSettings)
    flags.define("Data", TrainingImages)
    flags.define_option_flags({AdvGAN.name: AdvGAN}, "AdvGAN")
    flags.run(main, __doc__)


if __name__ == "__main__":
    command()
