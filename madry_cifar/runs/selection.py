"""Which checkpoint of a run is the best: by images that were held out of its training, never by test images."""

import json
import os
import pathlib

import tensorflow as tf

from madry_cifar.cli.errors import UsageError
from madry_cifar.runs.checkpoints import saved_steps
from madry_cifar.runs.run_folder import read_flags

BEST = "best"  # as a --checkpoint


def best(train_dir: str | os.PathLike) -> tuple[int, str]:
    """The step of the checkpoint with the highest accuracy on held-out images, and how it was found, in words.

    Accuracies are those of the run's periodic evaluation under the last of its --eval_attacks and, where there are any,
    those that `madry_cifar.eval --split=validation` measured with the same attack. Of equal ones the latest counts.

    Raises:
      UsageError: when the run has held no images out, or none of its checkpoints was evaluated on them.
    """
    settings, steps = read_flags(train_dir), saved_steps(train_dir)
    if not settings.get("validation_size"):
        raise UsageError(
            "checkpoint", BEST, "the run held no images out: train it with --validation_size=N, or name a step"
        )
    attack = settings["eval_attacks"].split(",")[-1].strip()
    curve = _while_training(train_dir, f"evaluation/{attack}") | _evaluated(train_dir, attack)
    known = {step: accuracy for step, accuracy in curve.items() if step in steps}
    if not known:
        raise UsageError(
            "checkpoint",
            BEST,
            f"no saved checkpoint was evaluated under {attack} on held-out images: python -m madry_cifar.eval "
            f"--split=validation --attacks={attack} --train_dir={train_dir} does it for all",
        )
    step = max(known, key=lambda step: (known[step], step))
    return step, f"best of {len(known)} under {attack} on held-out images ({known[step]:.2f} %)"


def _while_training(train_dir, tag):
    """The points of a curve in the run's TensorBoard files, by step; what was done again after a crash counts."""
    points = {}
    for file in sorted(pathlib.Path(train_dir).glob("events.*")):
        try:
            for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
                event = tf.compat.v1.Event.FromString(record)
                for value in [value for value in event.summary.value if value.tag == tag]:
                    points[event.step] = _number(value)
        except tf.errors.DataLossError:  # a file that was cut off
            continue
    return points


def _number(value):
    return float(tf.make_ndarray(value.tensor)) if value.HasField("tensor") else value.simple_value


def _evaluated(train_dir, attack):
    """What results files of held-out images say, by step."""
    points = {}
    for path in pathlib.Path(train_dir, "results").glob("ckpt-*_validation-*.json"):
        try:
            content = json.loads(path.read_text())
            if content["split"] == "validation" and not content.get("surrogate"):
                points[content["checkpoint"]] = content["attacks"][attack]["accuracy"]
        except (OSError, ValueError, LookupError, TypeError):  # damaged, or without this attack
            continue
    return points
