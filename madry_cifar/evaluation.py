"""The evaluation loop: a classifier's accuracy on a split under attacks."""

import hashlib
import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from madry_cifar.attacks import Attack
from madry_cifar.checkpoints import flat_variables
from madry_cifar.data import Split, check_labels
from madry_cifar.errors import RunError
from madry_cifar.model import WideResNet
from madry_cifar.progress import progress_bar


@dataclass(frozen=True)
class Outcome:
    """What an attack did to each image.

    Attributes:
      attack: its name and protocol.
      predictions: [N] int16 classes predicted on the adversarial images.
      labels: [N] int32 true classes.
      linf: the largest |adversarial − image| over all pixels, in grey levels.
      seconds: wall time, with compilation.
      adversarial: [N, 32, 32, 3] float32, if they were to be kept.
    """

    attack: Attack
    predictions: np.ndarray
    labels: np.ndarray
    linf: float
    seconds: float
    adversarial: np.ndarray | None = None

    @property
    def accuracy(self) -> float:
        """Share of images still classified correctly, in percent."""
        return 100.0 * float(np.mean(self.predictions == self.labels))

    def as_dict(self) -> dict:
        """For the results file."""
        return {
            "accuracy": self.accuracy,
            "images": len(self.labels),
            "protocol": self.attack.protocol,
            "linf": self.linf,
            "seconds": round(self.seconds, 3),
        }


class Evaluator:
    """Attacks a classifier on the images of a split; compiled once per attack, whatever the weights become.

    Args:
      classifier: with its current weights; batch norm in evaluation mode.
      attacks: what to run.
      batch_size: images per call; the last batch is padded to it.
      max_images: of the split, from its beginning; 0 is all.
      progress: whether to draw a bar with the time left for each attack.
      keep_adversarial: whether outcomes are to hold the adversarial images.
    """

    def __init__(self, classifier: WideResNet, attacks: Iterable[Attack], *, batch_size: int = 200,
                 max_images: int = 0, progress: bool = False, keep_adversarial: bool = False):  # fmt: skip
        self.classifier, self.batch_size, self.max_images, self.progress = classifier, batch_size, max_images, progress
        self.keep_adversarial = keep_adversarial
        self._compiled = [(attack, self._compile(attack)) for attack in attacks]

    def __call__(self, split: Split, *, seed: int = 0) -> dict[str, Outcome]:
        """The outcome of each attack, by its name.

        A batch's random start depends on `seed` and the index of its first image, so it is the same for every
        checkpoint and attack.

        Raises:
          RunError: for labels that the classifier has no logit for, or logits that are not finite.
        """
        split = split.take(slice(self.max_images or None))
        check_labels(split.labels, self.classifier.num_classes, "evaluation")
        return {attack.name: self._run(attack, compiled, split, seed) for attack, compiled in self._compiled}

    def _compile(self, attack):
        @tf.function(autograph=False)
        def attack_batch(images, labels, seed):
            adversarial = attack.run(self.classifier, tf.cast(images, tf.float32), labels, seed)
            logits = self.classifier(adversarial, batch_norm="eval").logits
            return adversarial, tf.argmax(logits, axis=1), tf.reduce_all(tf.math.is_finite(logits))

        return attack_batch

    def _run(self, attack, compiled, split, seed):
        predictions, linf, kept = np.empty(len(split), np.int16), 0.0, []
        started = time.monotonic()
        with progress_bar(len(split), "image", desc=f"{attack.name:>8}", disable=not self.progress) as bar:
            for start in range(0, len(split), self.batch_size):
                batch = split.take(slice(start, start + self.batch_size))
                adversarial, predicted = self._run_batch(compiled, batch, start, seed, attack.name)
                predictions[start : start + len(batch)] = predicted
                linf = max(linf, float(np.abs(adversarial - batch.images).max()))
                if self.keep_adversarial:
                    kept.append(adversarial)
                bar.update(len(batch))
        seconds = time.monotonic() - started
        return Outcome(attack, predictions, split.labels, linf, seconds, np.concatenate(kept) if kept else None)

    def _run_batch(self, compiled, batch, start, seed, name):
        size = len(batch)
        missing = (0, self.batch_size - size)
        images = np.pad(batch.images, [missing, (0, 0), (0, 0), (0, 0)], mode="edge")
        labels = np.pad(batch.labels, missing, mode="edge")
        adversarial, predictions, finite = compiled(images, labels, tf.constant([seed, start], tf.int64))
        if not finite:
            raise RunError(
                f"{name}: logits that are not finite among images {start} to {start + size - 1}: the network has "
                "diverged; evaluate an older checkpoint"
            )
        return adversarial.numpy()[:size], predictions.numpy()[:size]


def fingerprint(classifier: WideResNet) -> str:
    """A digest of a classifier's weights, to tell whether two results are of the same network."""
    digest = hashlib.sha256()
    for name, variable in sorted(flat_variables("classifier", classifier).items()):
        digest.update(name.encode() + variable.numpy().tobytes())
    return digest.hexdigest()
