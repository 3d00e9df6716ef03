"""Trains the GAN of Defense-GAN, whose generator then purifies the images of any classifier.

  python -m rvs_tf.train_gan --dataset=digits --train_dir=runs/gan
  python -m rvs_tf.evaluate --train_dir=runs/natural --purify_with=runs/gan --attacks=natural --max_images=100

WGAN-GP on the training images of a data set, as they are. Defaults are those of the released code (kabkabm/defensegan):
200,000 iterations of five updates of the critic and one of the generator, for a GPU. A step, by which checkpoints
and curves are counted, is an update of the critic.

The same command again goes on after the latest checkpoint in --train_dir. Ctrl-C saves and ends.
Watch it with: tensorboard --logdir runs
"""

import dataclasses

import tensorflow as tf

from madry_cifar import data
from madry_cifar.cli import flags
from madry_cifar.cli.settings import Checkpoint, Download, Seed, Settings, like
from madry_cifar.runs import run_folder
from madry_cifar.training.settings import DataSettings, Execution, Schedule
from madry_cifar.training.trainer import Trainer
from rvs_tf.defense_gan.gan import GAN


class RunSettings(Settings):
    """The run."""

    train_dir: str = like(Checkpoint, "train_dir", help="folder of the GAN; an interrupted training is continued")
    seed: int = like(Seed, "seed", help="of the weights, the order of the data and every draw")
    checkpoint_every: int = like(Schedule, "checkpoint_every", default=5000)
    keep: int = like(Schedule, "keep")
    log_every: int = like(Schedule, "log_every", default=500)
    image_every: int = like(Schedule, "image_every", default=5000, help="steps between generated images in TensorBoard")
    steps_per_call: int = like(Execution, "steps_per_call")


class TrainingImages(Download):
    """What is trained on."""

    dataset: str = like(DataSettings, "dataset")
    data_dir: str | None = like(DataSettings, "data_dir")
    download: bool = like(DataSettings, "download")
    validation_size: int = like(DataSettings, "validation_size")
    max_train_images: int = like(DataSettings, "max_train_images")


class GANSettings(TrainingImages, RunSettings):
    """All that the command is told, but for the GAN's options."""


def main() -> None:
    """Trains as the flags say."""
    settings, options = flags.read(GANSettings), flags.given_options(GAN, "GAN")
    names = ("data_dir", "download", "validation_size", "max_train_images")
    dataset = dataclasses.replace(data.load(settings.dataset, **settings.pick(*names)), augmented=False)
    run_flags = settings.as_dict() | {"gan": GAN.name} | options.as_dict()
    del run_flags["train_dir"]
    data.Batches(len(dataset.train), options.batch_size, settings.seed)  # refuses one larger than the data
    with run_folder.trained_alone(settings.train_dir):
        run_folder.check(settings.train_dir, run_flags, dataset.provenance)
        gan = GAN(options, settings.seed)
        trainer = Trainer(
            gan,
            dataset,
            settings.train_dir,
            Schedule(**settings.pick("checkpoint_every", "keep", "log_every", "image_every"), eval_every=0),
            jit_compile=bool(tf.config.list_physical_devices("GPU")),
            steps_per_call=settings.steps_per_call,
        )
        done = trainer.step if trainer.step >= gan.steps(0) else None
        folder = run_folder.create(settings.train_dir, run_flags, dataset.provenance, done=done)
        print(
            f"GAN on {dataset.provenance}: {len(dataset.train)} training images, {options.iterations} iterations, "
            f"{gan.steps(0)} steps of {options.batch_size}, into {folder}",
            flush=True,
        )
        if trainer.step:
            print(
                f"already trained for {trainer.step} steps"
                if done is not None
                else f"going on after step {trainer.step}"
            )
        else:
            trainer.summaries.settings(run_flags)
        trainer.train()
    print(f"next: python -m rvs_tf.evaluate --train_dir=RUN --purify_with={folder} --attacks=natural --max_images=100")


def command() -> None:
    """Entry point."""
    flags.define("Run", RunSettings)
    flags.define("Data", TrainingImages)
    flags.define_option_flags({GAN.name: GAN}, "GAN")
    flags.run(main, __doc__)


if __name__ == "__main__":
    command()
