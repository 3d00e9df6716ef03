"""The evaluation loop: a classifier's accuracy on a split under attacks."""

import functools
import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import keras
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
        return accuracy(self.predictions, self.labels)

    def as_dict(self) -> dict:
        """For the results file."""
        return {
            "accuracy": self.accuracy,
            "images": len(self.labels),
            "protocol": self.attack.protocol,
            "linf": self.linf,
            "seconds": round(self.seconds, 3),
        }


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Share of `predictions` [N] that are `labels` [N], in percent."""
    return 100.0 * float(np.mean(predictions == labels))


class Evaluator:
    """Attacks a classifier on the images of a split; compiled once per kind of attack, whatever the weights become.

    Args:
      classifier: with its current weights; batch norm in evaluation mode.
      attacks: what to run.
      attacked: the network whose gradients the attacks follow, if not the classifier's own (a transfer attack).
      batch_size: images per call; the last batch is padded to it.
      max_images: of the split, from its beginning; 0 is all.
      progress: whether to draw a bar with the time left for each attack.
      keep_adversarial: whether outcomes are to hold the adversarial images.
    """

    def __init__(self, classifier: WideResNet, attacks: Iterable[Attack] = (), *, attacked: WideResNet | None = None,
                 batch_size: int = 200, max_images: int = 0, progress: bool = False,
                 keep_adversarial: bool = False):  # fmt: skip
        self.classifier, self.attacked, self.attacks = classifier, attacked or classifier, tuple(attacks)
        self.batch_size, self.max_images, self.progress = batch_size, max_images, progress
        self.keep_adversarial = keep_adversarial
        self._compiled = {}  # by the function that an attack runs

    def __call__(self, split: Split, *, seed: int = 0) -> dict[str, Outcome]:
        """The outcome of each attack, by its name; see `run`."""
        return {attack.name: self.run(attack, split, seed=seed) for attack in self.attacks}

    def run(self, attack: Attack, split: Split, *, seed: int = 0, before: Outcome | None = None,
            after_batch: Callable[[Outcome], None] = lambda outcome: None) -> Outcome:  # fmt: skip
        """The outcome of an attack.

        A batch's random start depends on `seed` and the index of its first image, so it is the same for every
        checkpoint and attack, and whether or not the attack began in another process.

        Args:
          split: the images, and their classes.
          seed: of the random starts.
          before: the outcome of the first images, a whole number of batches: they are not attacked again.
          after_batch: called after each batch with the outcome so far.

        Raises:
          RunError: for labels that the classifier has no logit for, or logits that are not finite.
        """
        split = split.take(slice(self.max_images or None))
        check_labels(split.labels, self.classifier.num_classes, "evaluation")
        predictions = np.empty(len(split), np.int16)
        adversarial = np.empty(split.images.shape, np.float32) if self.keep_adversarial else None
        done, linf, seconds = 0, 0.0, 0.0
        if before is not None:
            done, linf, seconds = len(before.predictions), before.linf, before.seconds
            predictions[:done] = before.predictions
            if self.keep_adversarial:
                adversarial[:done] = before.adversarial

        def outcome(end):
            kept = adversarial[:end] if self.keep_adversarial else None
            return Outcome(attack, predictions[:end], split.labels[:end], linf, seconds, kept)

        with progress_bar(
            len(split), "image", initial=done, desc=f"{attack.name:>8}", disable=not self.progress
        ) as bar:
            for start in range(done, len(split), self.batch_size):
                started, batch = time.monotonic(), split.take(slice(start, start + self.batch_size))
                rows = slice(start, start + len(batch))
                moved, predictions[rows] = self._run_batch(attack, batch, start, seed)
                linf = max(linf, float(np.abs(moved - batch.images).max()))
                if self.keep_adversarial:
                    adversarial[rows] = moved
                seconds += time.monotonic() - started
                after_batch(outcome(rows.stop))
                bar.update(len(batch))
        return outcome(len(split))

    def _run_batch(self, attack, batch, start, seed):
        size = len(batch)
        missing = (0, self.batch_size - size)
        images = np.pad(batch.images, [missing, (0, 0), (0, 0), (0, 0)], mode="edge")
        labels = np.pad(batch.labels, missing, mode="edge")
        compiled, settings = self._function(attack.run)
        adversarial, predictions, finite = compiled(images, labels, tf.constant([seed, start], tf.int64), **settings)
        if not finite:
            raise RunError(
                f"{attack.name}: logits that are not finite among images {start} to {start + size - 1}: the network "
                "has diverged; evaluate an older checkpoint"
            )
        return adversarial.numpy()[:size], predictions.numpy()[:size]

    def _function(self, run):
        """The compiled function for an attack's `run`, and what to call it with: numbers as tensors, see `Attack`."""
        settings = {}
        if isinstance(run, functools.partial):
            run, settings = run.func, run.keywords
        if run not in self._compiled:
            self._compiled[run] = self._compile(run)
        return self._compiled[run], {
            name: tf.constant(value) if type(value) in (int, float) else value for name, value in settings.items()
        }

    def _compile(self, run):
        @tf.function(autograph=False)
        def attack_batch(images, labels, seed, **settings):
            adversarial = run(self.attacked, tf.cast(images, tf.float32), labels, seed, **settings)
            logits = self.classifier(adversarial, batch_norm="eval").logits
            return adversarial, tf.argmax(logits, axis=1), tf.reduce_all(tf.math.is_finite(logits))

        return attack_batch


def fingerprint(network: keras.Model) -> str:
    """A digest of a network's weights, to tell whether two results are of the same one."""
    digest = hashlib.sha256()
    for name, variable in sorted(flat_variables("classifier", network).items()):
        digest.update(name.encode() + variable.numpy().tobytes())
    return digest.hexdigest()
