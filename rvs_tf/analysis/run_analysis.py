"""Analyses checkpoints of an RvS run as settings say: what `diversity` and `latent_space` have in common."""

import os
import pathlib
from typing import Any

import numpy as np

from madry_cifar import data
from madry_cifar.cli.errors import RunError, UsageError
from madry_cifar.cli.settings import Checkpoint, Download, Seed, Settings, like, option, required
from madry_cifar.networks.architectures import name_of
from madry_cifar.predictor import as_predictor
from madry_cifar.runs import checkpoints, run_folder
from madry_cifar.training.construction import build, flags_of_a_classifier
from rvs_tf.analysis.perturber import Perturber
from rvs_tf.defense import RobustnessViaSynthesis


class AnalysisSettings(Settings):
    """Which run is analysed, and how many perturbations."""

    train_dir: str = like(Checkpoint, "train_dir", help="folder of the RvS run")
    output: str = required("file for the result", kind="path")
    checkpoints: str | None = option(None, "steps with commas between")
    draws: int = option(100, "perturbations of each image", minimum=1)
    seed: int = like(Seed, "seed", help="of the latent vectors and the noise")
    batch_size: int = option(256, "perturbed images at once; the results do not depend on it", minimum=1)
    data_dir: str | None = like(Download, "data_dir")
    download: bool = like(Download, "download")


class Analysis:
    """A run, ready to be analysed.

    Args:
      settings: which run, and how.
      ending: of the file for the result.

    Attributes:
      train_dir, output: paths.
      run_flags: the settings that the run was trained with.
      steps: of the checkpoints to analyse, in order.
      test: the test split.
      perturber: with the run's networks, without their weights until `load`.

    Raises:
      UsageError, RunError: for settings, a folder or data that cannot be used.
    """

    def __init__(self, settings: AnalysisSettings, ending: str):
        self.train_dir, self.output = pathlib.Path(settings.train_dir), pathlib.Path(settings.output)
        self.run_flags = flags_of_a_classifier(self.train_dir)
        method = self.run_flags["defense"]
        if method != RobustnessViaSynthesis.name:
            raise UsageError(
                "train_dir",
                self.train_dir,
                f"holds a run of --defense={method}, without a generator; "
                f"a run of --defense={RobustnessViaSynthesis.name} is needed",
            )
        self.steps = _steps(self.train_dir, settings.checkpoints or "all")
        _check_output(self.output, ending)
        if not os.access(self.train_dir, os.W_OK):
            raise UsageError("train_dir", self.train_dir, "cannot be written to, for TensorBoard")
        self._dataset = data.load(
            self.run_flags["dataset"],
            data_dir=settings.data_dir or self.run_flags.get("data_dir"),
            download=settings.download,
            train=False,
        )
        self.test = self._dataset.test
        defense = build(self.run_flags, dtype="float32")
        self.perturber = Perturber(
            defense.classifier,
            defense.generator,
            epsilon=self.run_flags["epsilon"],
            group_size=self.run_flags["batch_size"],
            **settings.pick("draws", "seed", "batch_size"),
        )

    def about(self, images: int) -> dict[str, Any]:
        """What a result on so many test images is of, for its file."""
        return {
            "schema_version": run_folder.SCHEMA_VERSION,
            "numbers": "measured",
            "train_dir": str(self.train_dir),
            "defense": self.run_flags["defense"],
            "network": name_of(self.run_flags),
            "dataset": self._dataset.name,
            "provenance": self._dataset.provenance,
            "split": "test",
            "images": images,
            "draws": self.perturber.draws,
            "seed": self.perturber.seed,
            "epsilon": self.perturber.epsilon,
            "generator_batch_norm": f"statistics of {self.perturber.group_size} latent vectors, as in training",
            "training_flags": self.run_flags,
        }

    def load(self, step: int) -> dict[str, Any]:
        """Gives the networks the weights of the checkpoint of `step`; returns what tells it from others."""
        for name in ("classifier", "generator"):
            checkpoints.load_network(getattr(self.perturber, name), name, self.train_dir, step)
        return {"checkpoint": step, "classifier_sha256": as_predictor(self.perturber.classifier).fingerprint()}


def check_finite(values, step: int) -> None:
    """Raises RunError unless all `values`, computed from the features of the checkpoint of `step`, are finite."""
    if not np.all(np.isfinite(values)):
        raise RunError(
            f"checkpoint {step}: features that are not finite: the network has diverged; leave it out (--checkpoints)"
        )


def _steps(train_dir, text):
    """The steps of the checkpoints that `text` names, "all" or some with commas between, in order."""
    checkpoints.find(train_dir)  # refuses a run without any
    if text == "all":
        return list(checkpoints.saved_steps(train_dir))
    names = [name.strip() for name in text.split(",") if name.strip()] or [text]
    try:
        return sorted({checkpoints.find(train_dir, name)[0] for name in names})
    except UsageError as error:
        raise error.renamed(checkpoint="checkpoints") from None


def _check_output(output, ending):
    if output.suffix != ending:
        raise UsageError("output", output, f"must end in {ending}")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError("output", output, f"cannot be written ({error.strerror})") from None
    if output.is_dir() or not os.access(output.parent, os.W_OK):
        raise UsageError("output", output, "cannot be a file there")
