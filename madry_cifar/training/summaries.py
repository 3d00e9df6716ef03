"""What a run writes for TensorBoard."""

import pathlib
import time
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from madry_cifar.runs.run_folder import MAY_CHANGE

SHOWN_IMAGES = 8


class Summaries:
    """Writes scalars, images, text and hyper-parameters of a run into its folder; nothing for None."""

    def __init__(self, folder):
        noop = folder is None
        self._goes_on = not noop and any(pathlib.Path(folder).glob("events.*"))
        self.writer = tf.summary.create_noop_writer() if noop else tf.summary.create_file_writer(str(folder))

    def restart(self, step: int) -> None:
        """Makes TensorBoard drop what earlier events in the folder say of steps after `step`: those are done again."""
        if self._goes_on:
            log = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
            event = tf.compat.v1.Event(wall_time=time.time(), step=step and step + 1, session_log=log)
            for _ in range(2):  # to its reader the first one in a folder is no restart
                tf.raw_ops.ImportEvent(writer=self.writer._resource, event=event.SerializeToString())

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One point on each named curve."""
        with self.writer.as_default(step):
            for tag, value in values.items():
                tf.summary.scalar(tag, value)

    def histograms(self, step: int, values: Mapping[str, tf.Tensor]) -> None:
        """The distribution of the elements of each named tensor."""
        with self.writer.as_default(step):
            for tag, value in values.items():
                tf.summary.histogram(tag, value)

    def images(self, step: int, images: tf.Tensor, adversarial: tf.Tensor | None = None) -> None:
        """A row of training images and, below, of their perturbations (grey is none) and the adversarial images.

        The perturbations are stretched so that the largest is black or white.
        """
        rows, name = [images[:SHOWN_IMAGES] / 255], "natural"
        if adversarial is not None:
            perturbation = adversarial[:SHOWN_IMAGES] - images[:SHOWN_IMAGES]
            scale = 2 * tf.maximum(tf.reduce_max(tf.abs(perturbation)), 1e-6)
            rows += [perturbation / scale + 0.5, adversarial[:SHOWN_IMAGES] / 255]
            name = "natural, perturbation, adversarial"
        grid = tf.concat([tf.concat(tf.unstack(row), axis=1) for row in rows], axis=0)
        with self.writer.as_default(step):
            tf.summary.image(f"images/{name}", grid[tf.newaxis])

    def settings(self, flags: Mapping[str, Any]) -> None:
        """The run's settings, for the Text tab, and those that make a difference to training, for HParams."""
        plain = {k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in flags.items()}
        rows = "\n".join(f"| {name} | {value} |" for name, value in sorted(plain.items()))
        with self.writer.as_default(0):
            hparams.hparams({name: value for name, value in plain.items() if name not in MAY_CHANGE - {"steps"}})
            tf.summary.text("flags", f"| flag | value |\n|---|---|\n{rows}")

    def flush(self) -> None:
        """Puts all on disk."""
        self.writer.flush()
