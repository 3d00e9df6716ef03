"""What an attack did to each image, and what counts as an adversarial image."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from madry_cifar.attacks.registry import Attack
from madry_cifar.cli.errors import RunError

# Arrays of an outcome beside its predictions, where there are such, and what of its `as_dict` tells of them
BESIDE = {"redrawn": "draws", "reconstruction_errors": "reconstruction_error"}
TOLERANCE = 1e-3  # grey levels by which float32 may round a pixel out of the ball


@dataclass(frozen=True)
class Outcome:
    """What an attack did to each image.

    Attributes:
      attack: its name and protocol.
      predictions: [N] int16 classes predicted on the adversarial images.
      labels: [N] int32 true classes.
      linf: the largest |adversarial − image| over all pixels, in grey levels.
      attacked: how many of the images were attacked, and not skipped.
      seconds: wall time of their batches, with compilation.
      compiled_images, compiled_seconds: what of it was in batches for which a function was compiled first.
      adversarial: [N, 32, 32, 3] float32, if they were to be kept.
      redrawn: [N, D] int16, of a stochastic predictor: the classes predicted on the same images with other draws.
      reconstruction_errors: [N] float32, of one that purifies: how far what it classifies is from what it is given.
    """

    attack: Attack
    predictions: np.ndarray
    labels: np.ndarray
    linf: float = 0.0
    attacked: int = 0
    seconds: float = 0.0
    compiled_images: int = 0
    compiled_seconds: float = 0.0
    adversarial: np.ndarray | None = None
    redrawn: np.ndarray | None = None
    reconstruction_errors: np.ndarray | None = None

    @property
    def accuracy(self) -> float:
        """Share of images still classified correctly, in percent."""
        return accuracy(self.predictions, self.labels)

    @property
    def images_per_second(self) -> float | None:
        """Images attacked per second, without the batches that compiled; None if there are no others."""
        images, seconds = self.attacked - self.compiled_images, self.seconds - self.compiled_seconds
        return images / seconds if images else None

    def after(self, earlier: "Outcome") -> "Outcome":
        """As if only the images that were still classified correctly in `earlier` had been attacked."""
        is_left = earlier.predictions == earlier.labels
        arrays = {name: getattr(self, name) for name in ("predictions", *BESIDE)}
        known = {
            name: np.where(is_left[(..., *[np.newaxis] * (array.ndim - 1))], array, getattr(earlier, name))
            for name, array in arrays.items()
            if array is not None
        }
        return dataclasses.replace(self, **known)

    def first(self, images: int) -> "Outcome":
        """Of the first so many images alone; the numbers are kept."""
        names = ("predictions", "labels", "adversarial", *BESIDE)
        arrays = {name: array[:images] for name in names if (array := getattr(self, name)) is not None}
        return dataclasses.replace(self, **arrays)

    def and_a_batch(self, images: int, linf: float, seconds: float, compiled: bool) -> "Outcome":
        """With the numbers of a further batch, whose function was `compiled` first or not, but without its images."""
        return dataclasses.replace(
            self,
            linf=max(self.linf, linf),
            attacked=self.attacked + images,
            seconds=self.seconds + seconds,
            compiled_images=self.compiled_images + images * compiled,
            compiled_seconds=self.compiled_seconds + seconds * compiled,
        )

    def as_dict(self) -> dict:
        """For the results file."""
        rate, told = self.images_per_second, {}
        if self.redrawn is not None:
            each = [accuracy(predictions, self.labels) for predictions in self.redrawn.T]
            told["draws"] = {"number": len(each), "mean": float(np.mean(each)), "std": float(np.std(each, ddof=1))}
        if self.reconstruction_errors is not None:
            errors = self.reconstruction_errors.astype(np.float64)
            told["reconstruction_error"] = {"mean": float(np.mean(errors)), "std": float(np.std(errors))}
        return {
            "accuracy": self.accuracy,
            "images": len(self.labels),
            "attacked": self.attacked,
            "protocol": self.attack.protocol,
            "linf": self.linf,
            "seconds": round(self.seconds, 3),
            "compiled_seconds": round(self.compiled_seconds, 3),
            "images_per_second": rate and round(rate, 3),
            **told,
        }


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Share of `predictions` [N] that are `labels` [N], in percent."""
    return 100.0 * float(np.mean(predictions == labels))


def check_adversarial(name: str, adversarial, images, protocol: Mapping, places=None) -> None:
    """Checks that adversarial images [n, H, W, C] count: finite, in [0, 255], and in the ball that a protocol names.

    Args:
      name: of the attack, or of the file that holds them, for the error.
      adversarial, images: arrays of pixels; of each image what was made of it.
      protocol: of the attack: "norm" ("linf" or "l2") with "epsilon" or "radius"; without a norm there is no ball.
      places: of the images in their split [n], for the error [0, 1, …].

    Raises:
      RunError: naming the attack, the first image that does not count and by how much.
    """
    pixels, axes = adversarial.astype(np.float64), tuple(range(1, images.ndim))
    change, finite = pixels - images, np.isfinite(pixels).all(axis=axes)
    excess = {"is not finite": np.where(finite, 0, np.inf), "leaves [0, 255]": (abs(pixels - 127.5) - 127.5).max(axes)}
    if protocol.get("norm") == "l2":
        radius = protocol["radius"]
        excess |= {f"leaves the L2 ball of {radius:g}": np.sqrt(np.square(change).sum(axes)) - radius}
    elif "epsilon" in protocol:
        radius = protocol["epsilon"]
        excess |= {f"leaves the ball of ε = {radius:g}": abs(change).max(axes) - radius}
    for fault, by in excess.items():
        if np.any(wrong := ~(by <= TOLERANCE)):
            row = int(np.argmax(wrong))
            place = row if places is None else places[row]
            size = f" by {by[row]:.4g} grey levels" if np.isfinite(by[row]) else ""
            raise RunError(f"{name}: what it made of image {place} {fault}{size}; such an image does not count")
