"""What the grid would still do, and how long that would take on this machine, from steps measured here and now."""

import dataclasses
import functools
import math
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection
from pathlib import Path

import keras
import tensorflow as tf
from rich import box
from rich.console import Console
from rich.table import Table

from experiments import layout
from experiments.duration import duration
from experiments.rows import DATASETS, PURIFIED, ROWS
from madry_cifar import attacks
from madry_cifar.cli.errors import RunError
from madry_cifar.cli.progress import progress_bar
from madry_cifar.data.datasets import NUM_CLASSES
from madry_cifar.evaluation.evaluator import REDRAWN
from madry_cifar.networks.architectures import name_of
from madry_cifar.randomness import uniform
from madry_cifar.runs.checkpoints import saved_steps
from madry_cifar.runs.files import write_json
from madry_cifar.training import registry
from madry_cifar.training.construction import build
from madry_cifar.training.settings import NetworkSettings
from rvs_tf.advgan.advgan import AdvGAN
from rvs_tf.defense_gan.gan import GAN, GANOptions
from rvs_tf.defense_gan.networks import GANGenerator
from rvs_tf.defense_gan.purified import Purified

START = 10.0  # seconds that a command takes to start, on two cores
DIAGNOSIS = 2400  # gradients of an image: most are of Square, at the images that withstand other attacks
MEASURED_WORK = 2e9  # multiply-adds of a forward pass that is timed: wide networks are timed on few images


def due(work: Path, config: dict, command: Callable[..., list[str]]) -> list[tuple[str, str]]:
    """The jobs that Snakemake would run, each with the first file that it makes.

    Args:
      command: gives Snakemake's command line for a folder, a configuration file and more arguments.

    Raises:
      RunError: when Snakemake cannot make a plan.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        write_json(file, config)
        where = work if work.exists() else Path(folder)
        arguments = command(where, file, "--dry-run", "--nolock")
        done = subprocess.run(arguments, capture_output=True, text=True)
    for line in re.findall(r"^warning: .*", done.stderr, re.MULTILINE):
        print(line, file=sys.stderr)
    if done.returncode:
        raise RunError(f"no plan: {' '.join((done.stderr or done.stdout).split())[-300:]}")
    return re.findall(
        r"^(?:local)?rule (\w+):\n(?:    input: .*\n)?    output: ([^\s,]+)", done.stdout + done.stderr, re.M
    )


def show(jobs: list[tuple[str, str]], work: Path, config: dict) -> None:
    """Prints the jobs by kind, with the estimated time of each kind and of all."""
    table = Table(title=f"{work}: {len(jobs)} jobs are due", box=box.SIMPLE, title_justify="left")
    for column in ("job", "number", "estimated time"):
        table.add_column(column, justify="left" if column == "job" else "right")
    seconds = _seconds(jobs, Clock(config, work))
    for kind, of_kind in seconds.items():
        table.add_row(kind, str(len(of_kind)), duration(sum(of_kind)))
    total = sum(map(sum, seconds.values()))
    table.add_row("all", str(len(jobs)), duration(total), style="bold")
    console = Console()
    console.print(table)
    note = "One after another, from steps of these networks measured on this machine just now; what is already done of "
    note += "a job is counted for trainings alone. "
    if "diagnosis_flags" in config:
        note += "The extended columns and the diagnosis are counted as if every image withstood every attack: most "
        note += "take less. "
    console.print(f"{note}Jobs:", soft_wrap=True)
    for kind, output in jobs:
        console.print(f"  {kind}  {output}", soft_wrap=True, highlight=False)


def _seconds(jobs, clock):
    """The estimated times of the jobs, by kind; a bar tells what is timed for them."""
    seconds = {}
    with progress_bar(len(jobs), "job", leave=not sys.stderr.isatty()) as bar:
        clock.tell = bar.set_description
        for kind, output in jobs:
            seconds.setdefault(kind, []).append(START + clock.seconds(kind, output))
            bar.update()
    return seconds


class Clock:
    """Estimates the time of jobs; measures each kind of step once, and tells before which one."""

    def __init__(self, config: dict, work: Path):
        self.config, self.work = config, work
        self.tell: Callable[[str], None] = lambda what: None
        self._training_step = functools.cache(self._time_training)
        self._attack_step = functools.cache(self._time_attack)
        self._gan_step = functools.cache(self._time_gan)
        self._search_step = functools.cache(self._time_search)

    def _time_training(self, kind, options, network, num_classes):
        self.tell(f"timing training of {kind.name}, {name_of(network.as_dict())}")
        return _training_step(kind, options, network, num_classes)

    def _time_attack(self, network, num_classes):
        self.tell(f"timing an attack, {name_of(network.as_dict())}")
        return _attack_step(network, num_classes)

    def _time_gan(self, options):
        self.tell(f"timing training of a GAN, width {options.width}")
        return _gan_step(options)

    def _time_search(self, width):
        self.tell(f"timing the search of a purifier, width {width}")
        return _search_step(width)

    def seconds(self, kind: str, output: str) -> float:
        """The time of a job that makes the file `output`, without its start."""
        method = getattr(self, f"_{kind}", None)
        if method is None:  # a table, figure or the report
            return 0.0
        run = layout.run_of(self.config, "/".join(Path(output).parts[1:4]))
        return method(run, Path(output))

    def _network(self, run):
        """Its settings, and the number of classes."""
        flags = _parse(run["flags"])
        names = {field.name for field in dataclasses.fields(NetworkSettings)}
        return NetworkSettings.parse({name: flags[name] for name in names & flags.keys()}), NUM_CLASSES[run["dataset"]]

    def _attacked(self, run):
        """The network as it is attacked and analysed: in float32, however it was trained."""
        network, num_classes = self._network(run)
        return dataclasses.replace(network, precision="float32"), num_classes

    def _step(self, run):
        """Seconds of a gradient with respect to one image."""
        return self._attack_step(*self._attacked(run))

    def _train(self, run, output):
        flags = _parse(run["flags"])
        kind = registry.find(flags["defense"])
        free = set().union(*(row.settings for row in ROWS.values()))  # what makes a row of Table IV costs nothing
        names = {field.name for field in dataclasses.fields(kind.Options)} - free
        options = kind.Options.parse({name: flags[name] for name in names & flags.keys()})
        done = max(saved_steps(self.work / "runs" / run["id"]), default=0)
        per_image = self._training_step(kind, options, *self._network(run))
        return 0.0 if "copy_of" in run else max(0, options.steps - done) * options.batch_size * per_image

    def _train_advgan(self, run, output):
        options = AdvGAN.Options(generator_width=int(output.parent.name.removeprefix("x")))
        per_image = self._training_step(AdvGAN, options, *self._attacked(run))
        flags = _parse(self.config["advgan_flags"])
        images = min(int(flags["max_train_images"]) or 10**9, DATASETS[run["dataset"]].train)
        return int(flags["epochs"]) * images * per_image

    def _train_gan(self, run, output):
        flags = _parse(self.config["gan_flags"])
        options = GANOptions(width=int(flags["width"]), iterations=int(flags["iterations"]))
        done = max(saved_steps(self.work / "gan" / run["id"]), default=0) / options.critic_updates
        return max(0, options.iterations - done) * self._gan_step(options)

    def _evaluate(self, run, output):
        names = layout.attacks_on(self.config, run, output.stem.removeprefix("white-box-"))
        return self._purified(run, names) if run.get("purified") else self._attacks(run, names)

    def _purified(self, run, names):
        """Attacks on a row behind a purifier: what a search takes for an image, which is judged by some of its own."""
        flags = _parse(self.config["purified_flags"])
        images = min(int(flags["max_images"]) or 10**9, DATASETS[run["dataset"]].test)
        step = self._search_step(int(_parse(self.config["gan_flags"])["width"]))
        search = step * int(flags["purify_restarts"]) * int(flags["purify_steps"])
        return images * search * sum(PURIFIED[name] + 1 + len(REDRAWN) for name in names)

    def _transfer(self, run, output):
        return self._attacks(run, self.config["attacks"]["table3"])

    def _attack_over_epsilon(self, run, output):
        return len(self.config["epsilons"]) * self._attacks(run, self.config["attacks"]["figure2"])

    def _attacks(self, run, names):
        images = min(self.config["images"] or 10**9, DATASETS[run["dataset"]].test)
        return images * self._step(run) * sum(gradients(attacks.attack(name), known=names) for name in names)

    def _diagnose(self, run, output):
        images = int(_parse(self.config["diagnosis_flags"])["max_images"])
        return min(images, DATASETS[run["dataset"]].test) * self._step(run) * DIAGNOSIS

    def _diversity(self, run, output):
        images = min(self.config["diversity_images"] or 10**9, DATASETS[run["dataset"]].test)
        return self.config["checkpoints"] * 2 * images * self.config["draws"] * self._step(run) / 3

    def _latent_space(self, run, output):
        return 2 * 10 * self.config["draws"] * self._step(run) / 3


def gradients(attack: attacks.Attack, known: Collection[str] = ()) -> float:
    """How many gradients an attack takes for an image at most; a query, or a look at the result, is a third of one.

    Most attacks leave an image alone once it is misclassified, and so take fewer. Stages that are `known`, as attacks
    of their own, are not run again.
    """
    if attack.stages:
        return sum(gradients(stage) for stage in attack.stages if stage.name not in known)
    protocol = attack.protocol
    runs = math.prod(protocol.get(name, 1) for name in ("restarts", "targets", "searches", "eot"))
    return protocol.get("steps", 0) * runs + (protocol.get("queries", 0) + 1) / 3


def _parse(flags):
    return dict(flag.removeprefix("--").partition("=")[::2] for flag in flags)


def classifier(network: NetworkSettings, num_classes: int) -> keras.Model:
    """A network with these settings, to be trained or attacked."""
    return build({"defense": "natural", "num_classes": num_classes} | network.as_dict()).classifier


def _batch(network, largest):
    """So many images that timing takes seconds, but no more than are used."""
    work = 2.5e6 * max(network.depth - 4, 1) * network.width**2  # of an image, about
    return int(max(2, min(largest, MEASURED_WORK / work)))


def _inputs(batch, num_classes):
    return uniform([batch, 32, 32, 3], (0, 1), 0, 255), uniform([batch], (0, 2), 0, num_classes, tf.int32)


def _timed(function, per_call):
    """Seconds for each of `per_call` things of the second call; the first one compiles."""
    function()
    started = time.monotonic()
    function()
    return (time.monotonic() - started) / per_call


def _training_step(kind, options, network, num_classes):
    """Seconds of a training step for each image of the batch."""
    batch = _batch(network, options.batch_size)
    method = kind(classifier(network, num_classes), options)
    images, labels = _inputs(batch, num_classes)
    last = tf.constant(max(method.steps(1) - 1, 0), tf.int64)  # some begin with steps that do less
    step = tf.function(lambda: method.train_step(images, labels, last), autograph=False)
    return _timed(lambda: tf.nest.map_structure(lambda value: value.numpy(), dict(step())), batch)


def _gan_step(options):
    """Seconds of an iteration of a GAN's training; the generator's update is counted like one of the critic."""
    gan = GAN(options)
    images, labels = _inputs(options.batch_size, 10)
    update = tf.function(lambda: gan.train_step(images, labels, tf.constant(1, tf.int64)), autograph=False)
    return _timed(lambda: update()["total"].numpy(), 1) * (options.critic_updates + 1)


def _search_step(width):
    """Seconds of a step of a purifier's search, for one start of an image."""
    batch, steps = 20, 4
    purified = Purified(
        classifier(NetworkSettings(depth=10, width=1), 10), GANGenerator(width=width), restarts=1, steps=steps
    )
    images, _ = _inputs(batch, 10)
    search = tf.function(lambda: purified.reconstruct(images).images, autograph=False)
    return _timed(lambda: search().numpy(), batch * steps)


def _attack_step(network, num_classes):
    """Seconds of a step of PGD for an image."""
    batch, steps = _batch(network, 100), 2
    network = classifier(network, num_classes)
    images, labels = _inputs(batch, num_classes)
    return _timed(lambda: attacks.pgd(network, images, labels, steps=steps).numpy(), batch * steps)
