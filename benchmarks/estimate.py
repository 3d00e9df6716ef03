"""Estimates the GPU hours of all tables and figures at full size, from floating-point operations: nothing is measured.

  python -m benchmarks.estimate --gpu_tflops=156 --efficiency=0.4

What is trained, attacked and analysed is the grid's own plan (`experiments.table2 … --plan`), with its flags. The
operations of a training step and of an attack's step are counted from their graphs, at the size that each run has; a
GPU is taken to do --gpu_tflops · --efficiency of them a second, and nothing else. Needs the extra "experiments". With
--json, one JSON object on the last line.
"""

import functools
import pathlib
import tempfile

import tensorflow as tf

from benchmarks import flops, report
from benchmarks.report import Benchmark
from experiments import grid, plan
from experiments.command import snakemake_command
from experiments.parts import PARTS
from experiments.report import require
from madry_cifar import attacks
from madry_cifar.cli import flags
from madry_cifar.cli.settings import Settings, like, option
from rvs_tf.defense_gan.gan import GAN
from rvs_tf.defense_gan.networks import GANGenerator
from rvs_tf.defense_gan.reconstruction import reconstruct

DATASETS = "cifar10,cifar100,svhn_cropped"  # of the paper's tables


class Operations(plan.Clock):
    """The plan's clock, which here gives operations instead of seconds."""

    def __init__(self, config: dict, work: pathlib.Path):
        super().__init__(config, work)
        self._training_step, self._attack_step = functools.cache(_training_step), functools.cache(_attack_step)
        self._gan_step, self._search_step = functools.cache(_gan_step), functools.cache(_search_step)


def _training_step(kind, options, network, num_classes):
    """Operations of a training step for each image of the batch."""
    method = kind(plan.classifier(network, num_classes), options)
    return _count(method.train_step, options.batch_size, tf.TensorSpec([], tf.int64)) / options.batch_size


def _attack_step(network, num_classes):
    """Operations of a step of PGD for an image."""
    classifier = plan.classifier(network, num_classes)
    return _count(lambda images, labels: attacks.pgd(classifier, images, labels, steps=1), 1)


def _gan_step(options):
    """Operations of an iteration of a GAN's training: an update of the generator, and the critic's."""
    gan = GAN(options)
    latent, share, step = tf.zeros([options.batch_size, options.latent_dim]), tf.zeros([options.batch_size, 1, 1, 1]), 1
    generator = _count(lambda images, labels: gan.update_generator(latent, step), options.batch_size)
    critic = _count(lambda images, labels: gan.update_critic(images, latent, share, step)["total"], options.batch_size)
    return generator + options.critic_updates * critic


def _search_step(width):
    """Operations of a step of a purifier's search, for one start of an image."""
    generator = GANGenerator(width=width)
    starts = tf.zeros([1, 1, generator.latent_dim])
    return _count(lambda images, labels: reconstruct(generator, images, starts, steps=1).errors, 1)


def _count(function, batch, *others):
    specs = tf.TensorSpec([batch, 32, 32, 3]), tf.TensorSpec([batch], tf.int32), *others
    return flops.count(tf.function(function, autograph=False).get_concrete_function(*specs))


def rows(jobs: list[tuple[str, str]], operations: Operations, flop_per_second: float) -> list[dict]:
    """For each kind of job, and for all: how many there are, their operations and the hours."""
    result = []
    for kind in dict.fromkeys(kind for kind, _ in jobs):
        each = [operations.seconds(name, output) for name, output in jobs if name == kind]
        if sum(each):
            result.append({"job": kind, "number": len(each), "exaflop": 1e-18 * sum(each)})
    result.append(
        {"job": "all", "number": sum(row["number"] for row in result), "exaflop": sum(row["exaflop"] for row in result)}
    )
    return [row | {"gpu_hours": row["exaflop"] * 1e18 / flop_per_second / 3600} for row in result]


class EstimateSettings(Settings):
    """A GPU."""

    gpu_tflops: float = option(
        156.0, "that the GPU is rated at, in 10¹² operations a second; 156: an A100 in TF32", minimum=1e-3
    )
    efficiency: float = option(0.4, "share of them that is reached", minimum=1e-6, maximum=1)
    json: bool = like(Benchmark, "json")


def main() -> None:
    """Counts as the flags say, and prints."""
    settings = flags.read(EstimateSettings)
    require("snakemake", what="the grid needs")
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder) / "work"  # a new one: all is due
        request, given = grid.read_flags(work_dir=str(work))
        config = grid.configuration([*PARTS], request, given)
        jobs = plan.due(work, config, snakemake_command)
        estimated = rows(jobs, Operations(config, work), settings.gpu_tflops * 1e12 * settings.efficiency)
    about = {"dataset": ",".join(config["datasets"]), **request.pick("profile", "seeds")}
    about |= settings.pick("gpu_tflops", "efficiency")
    note = "Estimated, not measured: floating-point operations over the assumed rate of a GPU."
    report.show({"benchmark": "estimate", "note": note, "settings": about, "jobs": estimated}, settings.json)


def command() -> None:
    """Entry point."""
    grid.define_flags(dataset={"default": DATASETS})
    flags.define("Estimate", EstimateSettings)
    flags.run(main, __doc__)


if __name__ == "__main__":
    command()
