"""A profile of some training steps, for TensorBoard's Profile tab."""

import math

import tensorflow as tf


class Profiler:
    """Profiles the steps from `first` to `last` (counted from 1), both included, into a run's folder; None: nothing.

    As a context it ends a profile in any case.
    """

    def __init__(self, folder, steps: tuple[int, int] | None):
        self.folder, (self.first, self.last) = str(folder), steps or (0, 0)
        self._running = False

    @property
    def boundaries(self) -> tuple[int, int]:
        """After how many steps it starts, and stops."""
        return self.first - 1, self.last

    def at(self, done: float) -> None:
        """Starts or stops, when `done` steps are done."""
        wanted = self.first - 1 <= done < self.last
        if wanted and not self._running:
            tf.profiler.experimental.start(self.folder)
        elif self._running and not wanted:
            tf.profiler.experimental.stop()
        self._running = wanted

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.at(math.inf)

    def step(self, number: int) -> tf.profiler.experimental.Trace:
        """A context, around the call that takes step `number`, by which the profile tells the steps apart."""
        return tf.profiler.experimental.Trace("train", step_num=number, _r=1)
