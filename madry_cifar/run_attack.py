"""Scores stored adversarial images against a run's classifier, after checking that they are allowed.

  python -m madry_cifar.run_attack --train_dir=runs/at --attack=attack.npy

The file holds an adversarial image for each test image, in order: [N, 32, 32, 3] of numbers in [0, 255], each within
--epsilon of the image. The predictions are saved in --output. `rvs_tf.evaluate --save_adversarial` writes such files.
"""

import os
import pathlib
import zipfile

import numpy as np

from madry_cifar import attacks, data
from madry_cifar.cli import flags
from madry_cifar.cli.errors import RunError, UsageError
from madry_cifar.cli.settings import Checkpoint, Download, Settings, like, option, required
from madry_cifar.data.datasets import Split
from madry_cifar.evaluation import results
from madry_cifar.evaluation.evaluator import Evaluator
from madry_cifar.evaluation.outcome import check_adversarial
from madry_cifar.evaluation.settings import Images
from madry_cifar.runs import run_folder
from madry_cifar.runs.files import write_array
from madry_cifar.training.construction import load_predictor


class RunAttackSettings(Settings):
    """Which images are scored on which network."""

    train_dir: str = like(Checkpoint, "train_dir")
    attack: str = required(".npy file of adversarial images", kind="path")
    checkpoint: str | None = like(Checkpoint, "checkpoint")
    epsilon: float = option(8.0, "largest change of a pixel that is allowed, in grey levels", minimum=0, kind="radius")
    max_images: int = like(Images, "max_images", help="the file is of the first so many test images; 0 is all")
    output: str = option("pred.npy", "where to save the predictions", kind="path")
    data_dir: str | None = like(Download, "data_dir")


def main() -> None:
    """Scores as the flags say."""
    settings = flags.read(RunAttackSettings)
    run_flags = run_folder.read_flags(settings.train_dir)
    output = pathlib.Path(settings.output)
    if output.is_dir() or not output.parent.is_dir():
        raise UsageError("output", output, "cannot be a file there")
    if results.PURIFIED in os.path.basename(settings.attack):
        reason = (
            "was made behind a purifier, without which its images say nothing; their accuracy is in the results beside"
        )
        raise UsageError("attack", settings.attack, reason)
    adversarial = load(settings.attack)
    dataset = data.load(run_flags["dataset"], data_dir=settings.data_dir or run_flags["data_dir"])
    split = dataset.test.take(slice(settings.max_images or None))
    check(settings.attack, adversarial, split.images, settings.epsilon)
    predictor = load_predictor(settings.train_dir, settings.checkpoint)
    unchanged = attacks.attack("natural")
    outcome = Evaluator(predictor, [unchanged])(Split(adversarial.astype(np.float32), split.labels))["natural"]
    write_array(output, np.save, outcome.predictions)
    print(
        f"accuracy {outcome.accuracy:.2f} % on {len(split)} images within {settings.epsilon:g} of "
        f"{dataset.provenance}; predictions in {output}"
    )


def load(path: str) -> np.ndarray:
    """The array in a .npy file. Raises UsageError when there is none, RunError when it cannot be read."""
    try:
        content = np.load(path, allow_pickle=False)
        if not isinstance(content, np.ndarray):
            raise ValueError("an archive of several arrays")
        return content
    except FileNotFoundError:
        raise UsageError("attack", path, "no such file") from None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise RunError(f"{path}: not a .npy file of numbers ({error})") from None


def check(path: str, adversarial: np.ndarray, images: np.ndarray, epsilon: float) -> None:
    """Raises RunError, naming the first fault, unless `adversarial` may stand for `images` within ε."""
    if adversarial.shape != images.shape:
        _, height, width, channels = images.shape
        remedy = "--max_images=N scores the first N"
        if adversarial.ndim != 4 or adversarial.shape[1:] != images.shape[1:]:
            remedy = "as many numbers for each image must be in the file"
        if adversarial.shape[1:] == (channels, height, width):
            remedy = "its channels come first; save np.transpose(images, (0, 2, 3, 1))"
        raise RunError(f"{path}: shape {adversarial.shape}, the test images have {images.shape}; {remedy}")
    if adversarial.dtype.kind not in "fui":
        raise RunError(f"{path}: holds {adversarial.dtype}, not numbers")
    if adversarial.dtype.kind == "f" and adversarial.max() <= 1 < images.max():
        raise RunError(f"{path}: its numbers are from 0 to 1, and pixels are from 0 to 255; save 255 * images")
    check_adversarial(path, adversarial, images, {"norm": "linf", "epsilon": epsilon})


def command() -> None:
    """Entry point."""
    flags.define("Attack", RunAttackSettings)
    flags.run(main, __doc__)


if __name__ == "__main__":
    command()
