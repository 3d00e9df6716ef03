"""The training loop, for every defence and for attacks that are trained."""

import contextlib
import pathlib
import signal
import sys
import time

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from madry_cifar.cli.errors import RunError
from madry_cifar.cli.progress import progress_bar
from madry_cifar.data.datasets import Batches, Dataset
from madry_cifar.evaluation.evaluator import Evaluator
from madry_cifar.runs.checkpoints import Checkpoints, saved_steps
from madry_cifar.training.method import Defense, Method
from madry_cifar.training.profiler import Profiler
from madry_cifar.training.settings import Schedule
from madry_cifar.training.steps import Steps
from madry_cifar.training.strategies import is_chief, several_workers
from madry_cifar.training.summaries import EVALUATION, ON_TRAINING, Summaries

SOON, LONG = 20, 900  # seconds after which a training says how long it takes, if that is longer than the latter


class Interrupted(RunError):
    """A signal ended the run, after saving. `number` is the signal's."""

    def __init__(self, number: int, step: int):
        super().__init__(f"stopped by {signal.Signals(number).name} after step {step}, saved; run it again to go on")
        self.number = number


class Trainer:
    """Trains the networks of a defence or attack on a data set, in a run's folder, from its latest checkpoint on.

    Args:
      method: whose `train_step` is repeated.
      dataset: its training images are trained on; its held-out ones (or, without any, test images) are evaluated,
        and of a defence as many training images, by which overfitting shows.
      train_dir: the run's folder, which exists.
      schedule: how often to save, log, show images and evaluate.
      evaluator: of the periodic evaluation; None is without.
      jit_compile: compile the step with XLA.
      steps_per_call: steps at once, without a return to Python in between; fewer where something is due.
      strategy: in whose scope the networks were made; None is one device. Of several workers the chief alone writes.
      profile_steps: the first and last step to profile.

    Raises:
      UsageError: for a batch size that the data does not have, or that cannot be shared.
      RunError: when the latest checkpoint cannot be restored.
    """

    def __init__(
        self,
        method: Method,
        dataset: Dataset,
        train_dir,
        schedule: Schedule,
        *,
        evaluator: Evaluator | None = None,
        jit_compile: bool = False,
        steps_per_call: int = 1,
        strategy: tf.distribute.Strategy | None = None,
        profile_steps: tuple[int, int] | None = None,
    ):
        self.method, self.schedule, self.evaluator = method, schedule, evaluator
        self.strategy = strategy or tf.distribute.get_strategy()
        self.chief = is_chief(self.strategy)
        held_out = dataset.validation or dataset.test
        self.evaluated = {EVALUATION: held_out}
        if isinstance(method, Defense):
            self.evaluated[ON_TRAINING] = dataset.train.take(slice(len(held_out)))
        self._accuracies = {}  # last evaluated, of held-out images
        self.batches = Batches(len(dataset.train), method.options.batch_size, method.seed)
        self.train_dir = pathlib.Path(train_dir)
        self.summaries = Summaries(self.train_dir if self.chief else None, method.losses)
        self.profiler = Profiler(self.train_dir, profile_steps if self.chief else None)
        self.checkpoints = Checkpoints(train_dir, method.networks, method.optimizers, schedule.keep, writes=self.chief)
        self.step = self.checkpoints.restore_latest()
        self.steps = Steps(
            method, dataset, strategy=self.strategy, jit_compile=jit_compile, steps_per_call=steps_per_call
        )
        self._seconds = []  # that a step took, for each call since the last point on the curves
        if self.chief and self.step < self.method.steps(self.batches.steps_per_epoch):
            self.summaries.restart(self.step)  # before anything is written

    def train(self) -> None:
        """Trains up to the number of steps that was asked for, then saves.

        Raises:
          Interrupted: after SIGINT or SIGTERM (of any worker), when all is saved.
          RunError: when a loss is not finite, or another worker is lost; the last good checkpoint is kept.
        """
        last, first = self.method.steps(self.batches.steps_per_epoch), self.step
        foretold = self._foretell(last, first, time.monotonic())
        bar = progress_bar(last, "step", initial=first, disable=not self.chief)
        with _signals() as received, self._workers_lost(), self.profiler, bar:
            stopped = False
            while self.step < last and not (stopped := self._to_stop(received)):
                self.profiler.at(self.step)
                losses = self._advance(self._until_due(last, first))
                bar.update(self.step - bar.n)
                next(foretold, None)
                if self.chief:
                    self._report(losses, bar, first)
                if self._due("checkpoint_every"):
                    self._save()
        self._save()
        if stopped:
            raise Interrupted(received[0] if received else signal.SIGTERM, self.step)

    def _foretell(self, last, first, started):
        """Says once, to who has waited for a while, how long the steps up to the `last` take, if that is long."""
        compiled = self.step, time.monotonic()  # after the first call
        while time.monotonic() - started < SOON:
            yield
        step, since = compiled if compiled[0] < self.step else (first, started)
        rest = (last - self.step) * (time.monotonic() - since) / (self.step - step)
        if self.chief and rest > LONG:
            tqdm.write(f"the steps that are left take about {_duration(rest)}", file=sys.stderr)

    def _to_stop(self, received):
        """Whether a signal has come; the workers stop after the same step."""
        return self.steps.any(bool(received)) if several_workers(self.strategy) else bool(received)

    def _until_due(self, last, first):
        """How many steps to take at once: none beyond one after which something is due."""
        if self.step == first:
            return 1  # so that the first point on the curves comes soon
        schedule = (
            self.schedule.checkpoint_every,
            self.schedule.log_every,
            self.schedule.image_every,
            self.schedule.eval_every,
        )
        ends = [last, *(self.step + every - self.step % every for every in schedule if every)]
        ends += [end for end in self.profiler.boundaries if end > self.step]
        return min(self.steps.steps_per_call, min(ends) - self.step)

    def _due(self, event):
        every = getattr(self.schedule, event)
        return every > 0 and self.step % every == 0

    def _advance(self, count):
        """Takes steps; returns the losses of the last one."""
        started = time.monotonic()
        rows = np.stack([self.batches(self.step + k) for k in range(count)])
        with self.profiler.step(self.step + 1):
            taken, losses, finite = self.steps.train(rows, self.step)
            finite = bool(finite)  # waits for the device
        if not finite:
            bad = ", ".join(f"{name} loss {float(v)}" for name, v in losses.items() if not np.isfinite(v))
            raise RunError(f"step {self.step + taken - 1}: {bad}. {self._last_good()}")
        self.step += taken
        self._seconds.append((time.monotonic() - started) / taken)
        return losses

    def _report(self, losses, bar, first):
        if self._due("log_every") or (self.schedule.log_every and self.step == first + 1):
            self._log(losses, bar)
        if self._due("image_every"):
            self._show()
        if self._due("eval_every") and self.evaluator:
            self._evaluate()

    def _last_good(self):
        kept = list(saved_steps(self.train_dir).values())[-1:] or ["none"]
        place = "" if kept == ["none"] else ", in another --train_dir"
        return f"The last good checkpoint is {kept[0]}; lower learning rates usually help{place}"

    def _log(self, losses, bar):
        step = self.step - 1  # what the losses and the batch belong to
        seen, _ = self.steps.inspect(self.batches(step), step)
        values = {f"loss/{name}": value for name, value in losses.items()} | seen
        for name, optimizer in self.method.optimizers.items():
            values[f"learning_rate/{name}"] = optimizer.schedule(step)
        values["speed/images_per_second"] = self.batches.batch_size / np.median(self._seconds)
        self._seconds.clear()
        self.summaries.scalars(self.step, values)
        shown = {"loss": losses["total"]} | self._accuracies
        if "batch/natural_accuracy" in seen:
            shown["batch/natural"] = seen["batch/natural_accuracy"]
        bar.set_postfix({name: f"{float(value):.3g}" for name, value in shown.items()}, refresh=False)

    def _show(self):
        step = self.step - 1
        rows = self.batches(step)
        _, shown = self.steps.inspect(rows, step)
        self.summaries.images(self.step, shown)
        self.summaries.histograms(self.step, self.steps.histograms(rows, step))

    def _evaluate(self):
        for place, split in self.evaluated.items():
            outcomes = self.evaluator(split, seed=self.method.seed)
            accuracies = {f"{place}/{name}": outcome.accuracy for name, outcome in outcomes.items()}
            self.summaries.scalars(self.step, accuracies)
            if place == EVALUATION:
                self._accuracies = accuracies

    def _save(self):
        for network in self.method.networks.values():
            for variable in network.variables:
                if not np.all(np.isfinite(variable.numpy())):
                    raise RunError(f"step {self.step}: {variable.path} is not finite; not saved. {self._last_good()}")
        if self.chief:
            self.checkpoints.save(self.step)
        self.summaries.flush()

    @contextlib.contextmanager
    def _workers_lost(self):
        """Ends in one line when another worker is gone, as this one then waits for it in vain."""
        try:
            yield
        except tf.errors.OpError as error:
            if not several_workers(self.strategy) or isinstance(error, tf.errors.ResourceExhaustedError):
                raise
            raise RunError(
                f"after step {self.step}: lost another worker ({type(error).__name__}); start all of them again, to go "
                f"on after step {max(saved_steps(self.train_dir), default=0)}"
            ) from None


def _duration(seconds):
    unit, size = next((each for each in (("days", 86400), ("hours", 3600)) if seconds > 2 * each[1]), ("minutes", 60))
    return f"{seconds / size:.0f} {unit}"


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
