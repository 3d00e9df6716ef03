"""The attacks that a diagnosis needs, each on the images that the network gets right as they are."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from madry_cifar import attacks
from madry_cifar.attacks.registry import Attack
from madry_cifar.cli.errors import UsageError
from madry_cifar.data.datasets import Split
from madry_cifar.evaluation.evaluator import Evaluator, against
from madry_cifar.evaluation.results import Partial
from madry_cifar.predictor import Predictor, as_predictor

WHITE_BOX, SURROGATE, RESCALED = "white-box", "surrogate", "rescaled"  # the network whose gradients are followed


class Trial(NamedTuple):
    """An attack to run.

    Attributes:
      attack: by name, with its settings.
      on: the network whose gradients it follows.
      after: names of trials; only images that have withstood all of them are attacked.
    """

    attack: Attack
    on: str = WHITE_BOX
    after: tuple[str, ...] = ()

    @property
    def cost(self) -> float:
        """In gradients of an image; a forward pass is a third of one."""
        protocol = self.attack.protocol
        times = math.prod(protocol.get(name, 1) for name in ("restarts", "targets", "eot"))
        return protocol.get("steps", 0) * times + protocol.get("queries", 0) / 3


class Case:
    """A network, the images to diagnose it on, and what attacks left of them.

    Args:
      predictor: a `Predictor`, or a network of this package.
      split: images [N, H, W, C] with pixels in [0, 255], and labels [N].
      epsilon: radius of the L∞ ball, in grey levels.
      surrogate: another network for the same classes, if there is one.
      seed: of all draws.
      batch_size: images at once.
      keep: told a trial's name and attack, what keeps its outcome so far (as `results.Partial`), to go on from.

    Attributes:
      right: by trial (and "natural"), [N] whether the network is right on each image.
      logits: [N, K] float32 without an attack.

    Raises:
      UsageError: where the network gets no image right.
      RunError: where logits are not finite.
    """

    def __init__(
        self,
        predictor: Predictor,
        split: Split,
        *,
        epsilon: float = 8.0,
        surrogate=None,
        seed: int = 0,
        batch_size: int = 200,
        keep: Callable[[str, Attack], Partial] | None = None,
    ):
        self.predictor = as_predictor(predictor)
        self.epsilon, self.seed = epsilon, seed
        self._keep = keep or (lambda name, attack: None)
        self.batch_size = min(batch_size, len(split))
        self._forward = tf.function(lambda images: self.predictor(images).logits, autograph=False)
        evaluator = self._evaluator(self.predictor, len(split))
        self.split = split = evaluator.admit(split)
        natural = evaluator.run(attacks.attack("natural"), split, seed=seed)
        self._outcomes = {"natural": natural}
        self.right = {"natural": self._right("natural")}
        count = self.right["natural"].sum()
        if not count:
            raise UsageError(
                "max_images", len(split), "the network gets none of these images right, so there is nothing to attack"
            )
        self.logits = self.predict(split.images)
        rescaled = Rescaled(self.predictor, self.margin or 1.0)
        attacked = {WHITE_BOX: self.predictor, SURROGATE: surrogate, RESCALED: rescaled}
        self._evaluators = {name: seen and self._evaluator(seen, count) for name, seen in attacked.items()}

    def _evaluator(self, attacked, count):
        """For so many images to attack: in as few batches as may be, and filled up by no more than it takes."""
        batches = max(-(-count // self.batch_size), 1)
        fitting = 8 * -(-count // (8 * batches))
        size = min(self.batch_size, max(fitting, 8))
        return Evaluator(self.predictor, attacked=attacked, batch_size=size, look=False)

    def _right(self, name):
        return self._outcomes[name].predictions == self.split.labels

    @property
    def has_surrogate(self) -> bool:
        """Whether there is another network to make images on."""
        return self._evaluators[SURROGATE] is not None

    @property
    def attacked(self) -> Split:
        """The images that the network gets right as they are."""
        return self.split.take(self.right["natural"])

    @property
    def margins(self) -> np.ndarray:
        """[n] by how much the true class leads, of each image that the network gets right."""
        rows = self.right["natural"]
        return attacks.lead(tf.constant(self.logits[rows]), tf.constant(self.split.labels[rows])).numpy()

    @property
    def margin(self) -> float:
        """Their median."""
        return float(np.median(self.margins))

    def predict(self, images: np.ndarray) -> np.ndarray:
        """The logits [M, K] of images [M, H, W, C], batch by batch."""
        batches = range(0, len(images), self.batch_size)
        parts = [np.asarray(images[first : first + self.batch_size], np.float32) for first in batches]
        fill = self.batch_size - len(parts[-1])  # one shape, compiled once
        parts[-1] = np.concatenate([parts[-1], np.repeat(parts[-1][-1:], fill, axis=0)])
        return np.concatenate([self._forward(part).numpy() for part in parts])[: len(images)]

    def accuracy(self, name: str) -> float:
        """After a trial, in percent of all images."""
        return 100 * float(self.right[name].mean())

    def run(self, trials: Mapping[str, Trial], advance: Callable[[float], Any] = lambda gradients: None) -> None:
        """Runs the trials, by name; `advance` is told how many gradients of an image each batch took at most."""
        for name, trial in trials.items():
            evaluator = self._evaluators[trial.on]
            attack = against(trial.attack, evaluator.attacked)
            partial = self._keep(name, attack)
            before = partial and partial.read(self.split)
            done = 0 if before is None else len(before.labels)
            advance(trial.cost * done)

            def after_batch(outcome):
                nonlocal done
                if partial:
                    partial.write(outcome)
                advance(trial.cost * (len(outcome.labels) - done))
                done = len(outcome.labels)

            earlier = self._left(trial.after)
            if trial.after:
                evaluator = self._evaluator(evaluator.attacked, np.sum(earlier.predictions == earlier.labels))
            self._outcomes[name] = evaluator.run(
                attack, self.split, seed=self.seed, earlier=earlier, before=before, after_batch=after_batch
            )
            self.right[name] = self._right(name)
            advance(trial.cost * (len(self.split) - done))  # where no image was left to attack

    def _left(self, names: Iterable[str]):
        """The outcome in which an image is wrong if it is without an attack, or after any of these trials."""
        earlier = self._outcomes["natural"]
        for name in names:
            earlier = self._outcomes[name].after(earlier)
        return earlier


class Rescaled(Predictor):
    """A predictor with logits divided by `scale`: the same classes, other gradients of cross-entropy."""

    def __init__(self, predictor: Predictor, scale: float):
        self.predictor, self.scale = predictor, scale
        self.num_classes, self.stochastic = predictor.num_classes, predictor.stochastic

    def __call__(self, images, draw=0):
        outputs = self.predictor(images, draw)
        return outputs._replace(logits=outputs.logits / self.scale)

    def differentiable(self):
        smooth = self.predictor.differentiable()
        return self if smooth is self.predictor else Rescaled(smooth, self.scale)
