"""What a run writes for TensorBoard, and what TensorBoard is told of it."""

import os
import pathlib
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import summary as custom_scalar
from tensorboard.plugins.hparams import api as hparams
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from madry_cifar.evaluation.results import warn
from madry_cifar.runs.run_folder import MAY_CHANGE
from madry_cifar.training import registry
from madry_cifar.training.pictures import Shown, grid, picture

EVALUATION = "evaluation"  # the tags of accuracies, and the folder of those that the commands measure later
ON_TRAINING = "training_images"  # the same attacks on images that are trained on
OWN = "batch/own_perturbation_accuracy"
DESCRIPTIONS = {  # by tag, or by what it begins with; the first that fits
    "batch/natural_accuracy": "Percent of the training batch, natural, that the classifier has right after the step, "
    "in the batch norm mode of training.",
    OWN: "Percent of the training batch that the classifier has right after the step **as the method itself perturbs "
    "it**. Another method perturbs otherwise, so this does not compare methods and is no robust accuracy: that is "
    "`evaluation/pgd-N`, the same attack for all.",
    "perturbation/mean_absolute": "Mean |perturbation| of the training batch, in grey levels of 255.",
    "perturbation/percent_at_epsilon": "Percent of the training batch's pixels whose perturbation is ε.",
    "speed/images_per_second": "Training images per second: the median over the steps since the last point.",
    "learning_rate/": "Learning rate of the last step.",
    f"{EVALUATION}/": "Percent of held-out (or else test) images that are classified rightly under this attack, the "
    "same for all methods, in evaluation mode. In the folder `evaluation`: of those that a command has evaluated.",
    f"{ON_TRAINING}/": "The same as `evaluation/`, of as many images that are trained on, without augmentation. Far "
    "above `evaluation/`: the network has learnt them by heart.",
    "images/generated": "What the generator makes of the same random vectors each time.",
    "images/": "First images of the training batch, with class numbers: green where the prediction is right, red where "
    "wrong. Perturbations are stretched so that the largest is black or white; grey is none.",
    "sigma/": "Standard deviations of the noise in a layer, which are trained.",
    "distribution/center": "ε·tanh(m) of each pixel of the batch, in grey levels: the middle of its perturbation's "
    "distribution, which is of ε·tanh(m + s·n), n ~ N(0, 1).",
    "distribution/deviation": "s of each pixel of the batch, before the tanh: 0 is no randomness.",
    "distribution/perturbation": "The batch's perturbations, one draw for each image, in grey levels.",
    "diversity/": "Diversity of the perturbations of one image over random vectors; see docs/tables.md.",
    "loss/": "A loss of the training batch, by the name that `train_step` gives it.",
}
FIRST = ("defense", "attack", "epsilon", "seed", "steps")  # columns of HParams, which shows five until told otherwise
STANDARD = ("natural", "pgd-20")  # what the evaluating commands are mostly asked for


def description(tag: str) -> str:
    """What TensorBoard says of a tag; "" if nothing is known of it."""
    return next((text for start, text in DESCRIPTIONS.items() if tag.startswith(start)), "")


class Summaries:
    """Writes scalars, images, text and hyper-parameters of a run into its folder; nothing for None.

    Args:
      folder: of the run.
      losses: what each loss of its method is, by name.
    """

    def __init__(self, folder: str | os.PathLike | None, losses: Mapping[str, str] = {}):
        self.folder, self.losses = folder, losses
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
                about = self.losses.get(tag.removeprefix("loss/")) if tag.startswith("loss/") else None
                tf.summary.scalar(tag, value, description=about or description(tag))

    def histograms(self, step: int, values: Mapping[str, tf.Tensor]) -> None:
        """The distribution of the elements of each named tensor."""
        with self.writer.as_default(step):
            for tag, value in values.items():
                tf.summary.histogram(tag, value, description=description(tag))

    def images(self, step: int, shown: Shown | tf.Tensor) -> None:
        """A picture of the training batch, see `pictures.picture`, or of generated images [N, H, W, C]."""
        if isinstance(shown, Shown):
            tag = "images/natural" if shown.adversarial is None else "images/natural, perturbation, adversarial"
            content = picture(shown)
        else:
            tag, content = "images/generated", grid(shown)
        with self.writer.as_default(step):
            tf.summary.image(tag, content[tf.newaxis], description=description(tag))

    def settings(self, flags: Mapping[str, Any], attacks: Iterable[str] = ()) -> None:
        """The run's settings, for the Text tab, and those that make a difference to training, for HParams; the chart.

        `attacks`: names of those of the periodic evaluation, whose accuracies HParams shows. TensorBoard takes the
        columns for all runs from one of them, so the settings that others may have are among them, too.
        """
        plain = {k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in flags.items()}
        rows = "\n".join(f"| {name} | {value} |" for name, value in sorted(plain.items()))
        left_out = {"train_dir", *MAY_CHANGE} - {"steps"}
        chosen = {name: value for name, value in plain.items() if name not in left_out}
        columns = [name for name in dict.fromkeys([*FIRST, *chosen, *registry.setting_names()]) if name not in left_out]
        with self.writer.as_default(0):
            tf.summary.experimental.write_raw_pb(_columns(columns, attacks))
            hparams.hparams(chosen, trial_id=str(self.folder))
            tf.summary.text("flags", f"| flag | value |\n|---|---|\n{rows}", description="Settings of the run.")
            tf.summary.experimental.write_raw_pb(custom_scalar.pb(_layout()).SerializeToString())

    def flush(self) -> None:
        """Puts all on disk."""
        self.writer.flush()


def record_evaluation(train_dir: str | os.PathLike, step: int, accuracies: Mapping[str, float]) -> None:
    """Accuracies in percent that a command has measured on the checkpoint of `step`, as curves `evaluation/NAME`.

    They go to the folder `evaluation` of the run, a file each time: TensorBoard reads no file on once there is a later
    one. Where they cannot be written, a warning says so: results are kept without them.
    """
    folder = pathlib.Path(train_dir) / EVALUATION
    try:
        summaries = Summaries(folder)
        summaries.scalars(step, {f"{EVALUATION}/{name}": value for name, value in accuracies.items()})
        summaries.writer.close()
    except tf.errors.OpError as error:
        warn(f"{folder}: no curves for TensorBoard ({type(error).__name__})")


def _columns(settings, attacks):
    """The columns of HParams, serialized: settings, and accuracies alone, those that commands have measured first."""
    metrics = [
        hparams.Metric(f"{EVALUATION}/{name}", group=EVALUATION, display_name=f"{name} (evaluated)")
        for name in dict.fromkeys([*STANDARD, *attacks])
    ]
    metrics += [hparams.Metric(f"{EVALUATION}/{name}", display_name=f"{name} (while training)") for name in attacks]
    summary = hparams.hparams_config_pb([hparams.HParam(name) for name in settings], metrics)
    plugin = summary.value[0].metadata.plugin_data
    content = HParamsPluginData.FromString(plugin.content)
    for column in content.experiment.hparam_infos:
        column.differs = column.name in FIRST  # TensorBoard sorts by this, then by name
    plugin.content = content.SerializeToString()
    return summary.SerializeToString()


def _layout():
    """One chart of natural and robust accuracy, of training and of held-out images."""
    sets = "|".join(map(re.escape, (EVALUATION, ON_TRAINING)))
    lines = layout_pb2.MultilineChartContent(tag=[f"^({sets})/natural$", f"^({sets})/pgd-[0-9]+$"])
    chart = layout_pb2.Chart(title="natural and robust accuracy, held-out and training images (%)", multiline=lines)
    return layout_pb2.Layout(category=[layout_pb2.Category(title="accuracy", chart=[chart])])
