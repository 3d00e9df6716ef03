"""The training loop, for every defence and for attacks that are trained."""

import contextlib
import dataclasses
import pathlib
import signal
import time

import numpy as np
import tensorflow as tf

from madry_cifar.checkpoints import Checkpoints, saved_steps
from madry_cifar.data import Batches, Dataset, augment
from madry_cifar.defense import Training
from madry_cifar.errors import RunError
from madry_cifar.evaluation import Evaluator
from madry_cifar.progress import progress_bar
from madry_cifar.summaries import Summaries


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """How often, in steps, a run does what; 0 is never. `keep`: checkpoints to keep, 0 for all."""

    checkpoint_every: int = 1000
    keep: int = 3
    log_every: int = 100
    image_every: int = 1000
    eval_every: int = 1000


class Interrupted(RunError):
    """A signal ended the run, after saving. `number` is the signal's."""

    def __init__(self, number: int, step: int):
        super().__init__(f"stopped by {signal.Signals(number).name} after step {step}, saved; run it again to go on")
        self.number = number


class Trainer:
    """Trains the networks of a defence or attack on a data set, in a run's folder, from its latest checkpoint on.

    Args:
      training: whose `train_step` is repeated.
      dataset: its training images are trained on; its held-out ones (or, without any, test images) are evaluated.
      train_dir: the run's folder, which exists.
      schedule: how often to save, log, show images and evaluate.
      evaluator: of the periodic evaluation; None is without.
      jit_compile: compile the step with XLA.

    Raises:
      UsageError: for a batch size that the data does not have.
      RunError: when the latest checkpoint cannot be restored.
    """

    def __init__(self, training: Training, dataset: Dataset, train_dir, schedule: Schedule, *,
                 evaluator: Evaluator | None = None, jit_compile: bool = False):  # fmt: skip
        self.training, self.schedule, self.evaluator = training, schedule, evaluator
        self.held_out = dataset.validation or dataset.test
        self.batches = Batches(len(dataset.train), training.options.batch_size, training.seed)
        self.train_dir = pathlib.Path(train_dir)
        self.summaries = Summaries(self.train_dir)
        self.checkpoints = Checkpoints(train_dir, training.networks, training.optimizers, schedule.keep)
        self.step = self.checkpoints.restore_latest()
        self._seconds = []  # that each step took since the last point on the curves
        self._compile(dataset, jit_compile)

    def _compile(self, dataset, jit_compile):
        all_images, all_labels = tf.constant(dataset.train.images), tf.constant(dataset.train.labels)
        training = self.training

        def batch(rows, step):
            images = tf.gather(all_images, rows)
            if dataset.augmented:
                images = augment(images, training.seed, step)
            return tf.cast(images, tf.float32), tf.gather(all_labels, rows)

        @tf.function(jit_compile=jit_compile, autograph=False)
        def train_step(rows, step):
            losses = dict(training.train_step(*batch(rows, step), step))
            finite = tf.reduce_all([tf.math.is_finite(loss) for loss in losses.values()])
            return losses, finite

        @tf.function(jit_compile=jit_compile, autograph=False)
        def inspect(rows, step):
            return _inspect(training, *batch(rows, step), step)

        self._train_step, self._inspect = train_step, inspect

    def train(self) -> None:
        """Trains up to the number of steps that was asked for, then saves.

        Raises:
          Interrupted: after SIGINT or SIGTERM, when all is saved.
          RunError: when a loss is not finite; the last good checkpoint is kept.
        """
        last = self.training.steps(self.batches.steps_per_epoch)
        with _signals() as received, progress_bar(last, "step", initial=self.step) as bar:
            first = self.step
            while self.step < last and not received:
                losses = self._one_step()
                bar.update()
                if self._due("log_every") or (self.schedule.log_every and self.step == first + 1):
                    self._log(losses, bar)
                if self._due("image_every"):
                    self._show()
                if self._due("eval_every") and self.evaluator:
                    self._evaluate()
                if self._due("checkpoint_every"):
                    self._save()
        self._save()
        if received and self.step < last:
            raise Interrupted(received[0], self.step)

    def _due(self, event):
        every = getattr(self.schedule, event)
        return every > 0 and self.step % every == 0

    def _one_step(self):
        started = time.monotonic()
        losses, finite = self._train_step(self.batches(self.step), tf.constant(self.step, tf.int64))
        if not finite:
            bad = ", ".join(f"{name} loss {float(v)}" for name, v in losses.items() if not np.isfinite(v))
            raise RunError(f"step {self.step}: {bad}. {self._last_good()}")
        self.step += 1
        self._seconds.append(time.monotonic() - started)
        return losses

    def _last_good(self):
        kept = list(saved_steps(self.train_dir).values())[-1:] or ["none"]
        return f"The last good checkpoint is {kept[0]}; lower learning rates usually help"

    def _log(self, losses, bar):
        step = self.step - 1  # what the losses and the batch belong to
        seen, _ = self._inspect(self.batches(step), tf.constant(step, tf.int64))
        values = {f"loss/{name}": value for name, value in losses.items()} | seen
        for name, optimizer in self.training.optimizers.items():
            values[f"learning_rate/{name}"] = optimizer.schedule(step)
        values["speed/images_per_second"] = self.batches.batch_size / np.median(self._seconds)
        self._seconds.clear()
        self.summaries.scalars(self.step, values)
        shown = {"loss": losses["total"], "natural": seen["batch/natural_accuracy"]}
        if "batch/adversarial_accuracy" in seen:
            shown["adversarial"] = seen["batch/adversarial_accuracy"]
        bar.set_postfix({name: f"{float(value):.3g}" for name, value in shown.items()}, refresh=False)

    def _show(self):
        step = self.step - 1
        _, shown = self._inspect(self.batches(step), tf.constant(step, tf.int64))
        self.summaries.images(self.step, *shown)

    def _evaluate(self):
        outcomes = self.evaluator(self.held_out, seed=self.training.seed)
        accuracies = {f"evaluation/{name}": outcome.accuracy for name, outcome in outcomes.items()}
        self.summaries.scalars(self.step, accuracies)

    def _save(self):
        for network in self.training.networks.values():
            for variable in network.variables:
                if not np.all(np.isfinite(variable.numpy())):
                    raise RunError(f"step {self.step}: {variable.path} is not finite; not saved. {self._last_good()}")
        self.checkpoints.save(self.step)
        self.summaries.flush()


def _inspect(training, images, labels, step):
    """The batch after the step: accuracies in percent and size of the perturbation; natural and adversarial images.

    Nothing is updated.
    """

    def accuracy(batch):
        logits = training.classifier(batch, batch_norm=training.watched_batch_norm).logits
        return 100 * tf.reduce_mean(tf.cast(tf.argmax(logits, axis=1, output_type=labels.dtype) == labels, tf.float32))

    seen = {"batch/natural_accuracy": accuracy(images)}
    adversarial = training.adversarial_images(images, labels, step)
    if adversarial is None:
        return seen, (images,)
    size = tf.abs(adversarial - images)
    at_bound = tf.cast(size >= training.options.epsilon * (1 - 1e-4), tf.float32)
    seen |= {
        "batch/adversarial_accuracy": accuracy(adversarial),
        "perturbation/mean_absolute": tf.reduce_mean(size),
        "perturbation/percent_at_epsilon": 100 * tf.reduce_mean(at_bound),
    }
    return seen, (images, adversarial)


@contextlib.contextmanager
def _signals():
    """Collects SIGINT and SIGTERM in the list that it yields, instead of dying of them; a second one kills."""
    received = []
    before = {}

    def note(number, _):
        received.append(number)
        signal.signal(number, before[number])

    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(ValueError):  # not in the main thread: signals stay as they are
            before[number] = signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
