"""The evaluation loop: a predictor's accuracy on a split under attacks, each one attack or several in stages."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import tensorflow as tf

from madry_cifar import attacks
from madry_cifar.attacks.inputs import NO_GRADIENT, admit, check_images, check_labels, check_passes, has_gradient
from madry_cifar.attacks.registry import Attack
from madry_cifar.attacks.restarts import COUNTED
from madry_cifar.cli.errors import RunError, UsageError
from madry_cifar.cli.progress import progress_bar
from madry_cifar.data.datasets import Split
from madry_cifar.evaluation.outcome import Outcome, check_adversarial
from madry_cifar.evaluation.watching import Counting, moving, passes
from madry_cifar.predictor import Predictor, WithXLA, as_predictor
from madry_cifar.randomness import Draws

JUDGED = -1  # the number of the query by which images are judged; an attack's own are others
REDRAWN = range(-(10**6), -(10**6) + 10)  # by which they are judged again, if outputs are random; attacks use none


def against(attack: Attack, attacked: Predictor) -> Attack:
    """The attack as it is run on this predictor: where outputs are random, its protocol says, it stops at no error."""
    if not attacked.stochastic or "stops_at_error" not in attack.protocol:
        return attack
    protocol = {name: value for name, value in attack.protocol.items() if name != "stops_at_error"}
    stages = tuple(against(stage, attacked) for stage in attack.stages)
    return attack._replace(protocol=protocol | {"errors_counted_over": COUNTED}, stages=stages)


def skipping(attack: Attack) -> Attack:
    """The attack, with a protocol that says that it skips images which are misclassified already."""
    if attack.name == "natural" or attack.protocol.get("stops_at_error"):  # nothing to skip, or it does so anyway
        return attack
    return attack._replace(protocol=attack.protocol | {"skip_misclassified": True})


class Evaluator:
    """Attacks a predictor on the images of a split; compiled once per kind of attack, whatever the weights become.

    Args:
      predictor: a `Predictor`, or what `as_predictor` makes one of, with its current weights.
      attacks: what to run.
      attacked: what the attacks see, if not the predictor itself (a transfer attack).
      batch_size: images per call; the last batch is padded to it.
      max_images: of the split, from its beginning; 0 is all.
      progress: whether to draw a bar with the time left for each attack.
      keep_adversarial: whether outcomes are to hold the adversarial images.
      jit_compile: whether the predictors' passes are compiled by XLA.
      look: whether a predictor is refused whose outputs are random or depend on the batch, and does not say so.

    Attributes:
      notes: what is worth knowing of the predictor that is attacked, once it was looked at.
    """

    def __init__(
        self,
        predictor: Predictor,
        attacks: Iterable[Attack] = (),
        *,
        attacked: Predictor | None = None,
        batch_size: int = 200,
        max_images: int = 0,
        progress: bool = False,
        keep_adversarial: bool = False,
        jit_compile: bool = False,
        look: bool = True,
    ):
        self.predictor, self.attacks = as_predictor(predictor), tuple(attacks)
        self.attacked = self.predictor if attacked is None else as_predictor(attacked)
        self.batch_size, self.max_images, self.progress = batch_size, max_images, progress
        self.keep_adversarial = keep_adversarial
        self._purifies = self.predictor.purification() is not None
        self._compiled = {}  # by the function that an attack runs
        self._is_known, self._look, self.notes = False, look, ()
        self._count = tf.Variable(0, trainable=False, dtype=tf.int64)
        self._compile = WithXLA if jit_compile else lambda predictor: predictor

    def __call__(self, split: Split, *, seed: int = 0, skip_misclassified: bool = False) -> dict[str, Outcome]:
        """The outcome of each attack, by its name; see `run`.

        With `skip_misclassified`, images that the predictor gets wrong without an attack are not attacked.
        """
        earlier = self.run(attacks.attack("natural"), split, seed=seed) if skip_misclassified else None
        return {attack.name: self.run(attack, split, seed=seed, earlier=earlier) for attack in self.attacks}

    def run(
        self,
        attack: Attack,
        split: Split,
        *,
        seed: int = 0,
        earlier: Outcome | None = None,
        before: Outcome | None = None,
        after_batch: Callable[[Outcome], None] = lambda outcome: None,
    ) -> Outcome:
        """The outcome of an attack.

        What an attack draws for an image depends on `seed` and on the image's place in the split: it is the same for
        every checkpoint, in any batch, and whether or not the attack began in another process.

        With `earlier`, only images that were still classified correctly there are attacked, in batches that are full
        of them; the others keep the prediction that they have there. So an accuracy can only be equal or lower: it
        no longer counts images that were misclassified and that this attack happens to move to their class. Images
        that are attacked have the same outcome with and without `earlier`, but for rounding: of the last images of a
        batch, some CPUs and GPUs round a product's or a function's last bit otherwise.

        Args:
          split: the images, and their classes.
          seed: of the random starts.
          earlier: the outcome of another attack, or of none, on the same images.
          before: the outcome of the first images, as `after_batch` was given it: they are not attacked again.
          after_batch: called after each batch with the outcome so far: of all images before the next one to attack.

        Raises:
          UsageError: for images, labels or a predictor with which the outcome would mean nothing (see `inputs`).
          RunError: for an adversarial image that does not count (see `check_adversarial`), or logits that are not
            finite.
        """
        attack = against(attack, self.attacked)
        split = self.admit(split.take(slice(self.max_images or None)), attack)
        if earlier is not None:
            attack = skipping(attack)
        so_far, left = self._begin(attack, split, earlier, before)
        done = 0 if before is None else len(before.labels)
        with progress_bar(
            len(split), "image", initial=done, desc=f"{attack.name:>8}", disable=not self.progress
        ) as bar:
            for first in range(0, len(left), self.batch_size):
                started, rows, later = time.monotonic(), *np.split(left[first:], [self.batch_size])
                most = passes(attack.protocol, self.attacked.stochastic)
                with moving(bar, self._count, len(rows), most):
                    moved, judged, errors, compiled = self._run_batch(attack, split, rows, seed)
                so_far.predictions[rows] = judged[:, 0]
                if self.predictor.stochastic:
                    so_far.redrawn[rows] = judged[:, 1:]
                if self._purifies:
                    (so_far.reconstruction_errors[rows],) = errors
                if self.keep_adversarial:
                    so_far.adversarial[rows] = moved
                linf = float(np.abs(moved - split.images[rows]).max())
                so_far = so_far.and_a_batch(len(rows), linf, time.monotonic() - started, compiled)
                end = later[0] if len(later) else len(split)
                after_batch(so_far.first(end))
                bar.set_postfix_str(f"accuracy={so_far.first(end).accuracy:.3g}", refresh=False)
                bar.update(end - done)
                done = end
        return so_far

    def admit(self, split: Split, *chosen: Attack) -> Split:
        """The split with its labels as [N]; the predictors are looked at once, by a few passes.

        Raises:
          UsageError: for images, labels or a predictor with which an outcome would mean nothing (see `inputs`), or one
            of too few classes, or of no kind, for a `chosen` attack.
        """
        if not self._is_known:
            for predictor in dict.fromkeys((self.predictor, self.attacked)):
                inputs = admit(predictor, split.images, split.labels)
                if self._look:
                    check_passes(inputs)
            self.notes = (NO_GRADIENT,) * (self._look and not has_gradient(inputs))
            self.notes += self.predictor.notes(inputs.sample) if self._look else ()
            self._is_known, self._classes = True, inputs.logits.shape[1]
        for attack in chosen:
            if reason := attack.refusal(self.attacked):
                raise UsageError("attacks", attack.name, reason)
            if self._classes < attack.least_classes:
                raise UsageError(
                    "attacks",
                    attack.name,
                    f"compares the logits of {attack.least_classes} classes, and there are "
                    f"{self._classes}; use apgd-ce, cw-N and square",
                )
        images = check_images(split.images, self.attacked.image_shape)
        return Split(images, check_labels(split.labels, len(images), self._classes))

    def _begin(self, attack, split, earlier, before):
        """The outcome for all images, as far as it is known, to be filled in place; and the images left to attack."""
        predictions = np.empty(len(split), np.int16)
        adversarial = np.empty(split.images.shape, np.float32) if self.keep_adversarial else None
        redrawn = np.empty((len(split), len(REDRAWN)), np.int16) if self.predictor.stochastic else None
        errors = np.empty(len(split), np.float32) if self._purifies else None
        left = np.arange(len(split)) if earlier is None else np.flatnonzero(earlier.predictions == split.labels)
        for known in filter(None, (earlier, before)):
            predictions[: len(known.labels)] = known.predictions
            if self.keep_adversarial:
                adversarial[: len(known.labels)] = known.adversarial
            if self.predictor.stochastic:
                redrawn[: len(known.labels)] = known.redrawn
            if self._purifies:
                errors[: len(known.labels)] = known.reconstruction_errors
        if before is not None:
            left = left[left >= len(before.labels)]
        outcome = before or Outcome(attack, predictions, split.labels)
        arrays = {"predictions": predictions, "labels": split.labels, "adversarial": adversarial, "redrawn": redrawn}
        return dataclasses.replace(outcome, attack=attack, **arrays, reconstruction_errors=errors), left

    def _run_batch(self, attack, split, rows, seed):
        """Of some rows of the split the adversarial images, predictions, errors, and whether something was compiled.

        The predictions [R, 1 + D] are that which counts, then those of `REDRAWN` if the predictor is stochastic. If it
        purifies, there is one array of errors [R].
        """
        padded = np.pad(rows, (0, self.batch_size - len(rows)), mode="edge")
        labels = split.labels[padded]
        if attack.protocol.keys() & {"stops_at_error", "errors_counted_over"}:
            labels[len(rows) :] = -1  # never right: so no work is done on the copies
        function = self._function(attack.run)
        traced = function.experimental_get_tracing_count()
        adversarial, predictions, finite, *errors = (
            output.numpy()[: len(rows)]
            for output in function(split.images[padded], labels, *_draws(seed, padded), **_as_tensors(attack.settings))
        )
        check_adversarial(attack.name, adversarial, split.images[rows], attack.protocol, rows)
        if not finite.all():
            raise RunError(
                f"{attack.name}: logits that are not finite at image {rows[np.argmin(finite)]}: the network has "
                "diverged; evaluate an older checkpoint"
                + " (or the purifier's search has; lower its rate)"
                * self._purifies
            )
        return adversarial, predictions, errors, function.experimental_get_tracing_count() > traced

    def _function(self, run):
        """The compiled function for an attack's `run`."""
        if run not in self._compiled:
            self._compiled[run] = tf.function(functools.partial(self._attack_batch, run), autograph=False)
        return self._compiled[run]

    def _attack_batch(self, run, images, labels, seed, place, **settings):
        images, draws = tf.cast(images, tf.float32), Draws(seed, place)
        attacked, predictor = self._compile(self.attacked), self._compile(self.predictor)
        adversarial = run(Counting(attacked, self._count), images, labels, draws, **settings)
        numbers = (JUDGED, *REDRAWN) if predictor.stochastic else (JUDGED,)
        judged = [predictor(adversarial, draws.query(number)) for number in numbers]
        logits = tf.stack([outputs.logits for outputs in judged], axis=1)
        errors = [judged[0].reconstruction_error] if self._purifies else []
        return adversarial, tf.argmax(logits, axis=2), tf.reduce_all(tf.math.is_finite(logits), axis=[1, 2]), *errors


def _draws(seed, place):
    return tf.constant([seed, 0], tf.int64), tf.constant(place, tf.int64)


def _as_tensors(settings):
    """Numbers as tensors, so that attacks that differ in them alone share a compiled function."""
    return {name: tf.constant(value) if type(value) in (int, float) else value for name, value in settings.items()}


class Task:
    """One attack to measure, for one entry of a results file. A subclass may fill several from several attacks.

    Attributes:
      names: of the entries.
    """

    TOLD = ("accuracy_after",)  # in the entries' protocols beside the attack's own

    def __init__(self, attack: Attack):
        self.attack, self.names = attack, (attack.name,)

    def check(self, attacked: Mapping, epsilon: float) -> None:
        """Raises UsageError if this cannot be measured at ε, on the network that `attacked` tells of."""

    def is_of(self, protocol: Mapping) -> bool:
        """Whether an entry with this protocol is what would be measured."""
        return {name: value for name, value in protocol.items() if name not in self.TOLD} == self.attack.protocol

    def outcomes(self, measure: Callable[..., Outcome]) -> dict[str, Outcome]:
        """By entry.

        `measure(attack, part="", earlier=None)` attacks all images or, with the outcome of an `earlier` attack, those
        still classified correctly there; a `part` tells apart several calls.
        """
        if not self.attack.stages:
            return {self.attack.name: measure(self.attack)}
        outcomes = [measure(attacks.attack("natural"), part="natural")]
        for stage in self.attack.stages:
            is_first = stage is self.attack.stages[0]
            everything = is_first and "errors_counted_over" in stage.protocol  # what one draw got wrong is attacked too
            outcomes.append(measure(stage, part=stage.name, earlier=None if everything else outcomes[-1]))
        names = ("natural", *(stage.name for stage in self.attack.stages))
        after = {name: outcome.accuracy for name, outcome in zip(names, outcomes, strict=True)}
        return {self.attack.name: telling(_altogether(outcomes[1:], self.attack), accuracy_after=after)}


def telling(outcome: Outcome, **protocol) -> Outcome:
    """The outcome, its attack's protocol with more in it."""
    attack = outcome.attack._replace(protocol=outcome.attack.protocol | protocol)
    return dataclasses.replace(outcome, attack=attack)


def _altogether(stages, attack):
    """The outcome of an attack whose stages had these outcomes, each starting from the one before.

    It has no images per second, as each stage attacks other numbers of images: all count as compiled.
    """
    attacked, linf = stages[0].attacked, max(stage.linf for stage in stages)
    sums = {name: sum(getattr(stage, name) for stage in stages) for name in ("seconds", "compiled_seconds")}
    return dataclasses.replace(
        stages[-1], attack=attack, attacked=attacked, compiled_images=attacked, linf=linf, **sums
    )
