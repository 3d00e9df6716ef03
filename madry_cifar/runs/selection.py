"""Which checkpoint of a run is the best: by images that were held out of its training, never by test images."""

import os

import tensorflow as tf

from madry_cifar.cli.errors import UsageError
from madry_cifar.runs.checkpoints import BEST, saved_steps
from madry_cifar.runs.events import event_files, events
from madry_cifar.runs.run_folder import read_flags


def best(train_dir: str | os.PathLike) -> tuple[int, str]:
    """The step of the checkpoint with the highest accuracy on held-out images, and how it was found, in words.

    Accuracies are those of the run's periodic evaluation under the last of its --eval_attacks. Of equal ones the latest
    counts.

    Raises:
      UsageError: when the run has held no images out, or none of its checkpoints was evaluated on them.
    """
    settings, steps = read_flags(train_dir), saved_steps(train_dir)
    if not settings.get("validation_size"):
        raise UsageError(
            "checkpoint", BEST, "the run held no images out: train it with --validation_size=N, or name a step"
        )
    attacks = [name.strip() for name in settings["eval_attacks"].split(",") if name.strip()]
    if not attacks:
        raise UsageError(
            "checkpoint", BEST, "the run was not evaluated while it was trained (--eval_attacks=); name a step"
        )
    attack = attacks[-1]
    curve = _while_training(train_dir, f"evaluation/{attack}")
    known = {step: accuracy for step, accuracy in curve.items() if step in steps}
    if not known:
        raise UsageError(
            "checkpoint",
            BEST,
            f"no saved checkpoint was evaluated under {attack} while the run was trained; train with --eval_every "
            "so that it divides --checkpoint_every, or name a step",
        )
    step = max(known, key=lambda step: (known[step], step))
    return step, f"best of {len(known)} under {attack} on held-out images ({known[step]:.2f} %)"


def _while_training(train_dir, tag):
    """The points of a curve in the run's TensorBoard files, by step; what was done again after a crash counts."""
    points = {}
    for file in event_files(train_dir):
        for event in events(file):
            for value in [value for value in event.summary.value if value.tag == tag]:
                points[event.step] = _number(value)
    return points


def _number(value):
    return float(tf.make_ndarray(value.tensor)) if value.HasField("tensor") else value.simple_value
