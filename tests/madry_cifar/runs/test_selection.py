"""The best checkpoint is that of held-out images."""

import json

import pytest
import tensorflow as tf

from madry_cifar.cli.errors import UsageError
from madry_cifar.runs.checkpoints import find
from madry_cifar.runs.selection import best

FLAGS = {"depth": 10, "width": 1, "num_classes": 10, "validation_size": 40, "eval_attacks": "natural,pgd-7"}


@pytest.fixture
def run(tmp_path):
    """A run with checkpoints at some steps, evaluated at more."""
    (tmp_path / "checkpoints").mkdir()
    for step in (100, 200, 300, 400):
        for ending in ("index", "data-00000-of-00001"):
            (tmp_path / "checkpoints" / f"ckpt-{step}.{ending}").write_text("")
    (tmp_path / "flags.json").write_text(json.dumps({"schema_version": 1, "flags": FLAGS}))
    return tmp_path


def curve(run, points, tag="evaluation/pgd-7"):
    writer = tf.summary.create_file_writer(str(run))
    with writer.as_default():
        for step, accuracy in points.items():
            tf.summary.scalar(tag, accuracy, step)
    writer.close()


def test_that_of_the_curve_among_those_that_were_saved(run):
    curve(run, {100: 20.0, 150: 90.0, 200: 40.0, 300: 40.0})
    curve(run, {100: 99.0, 200: 99.0}, "evaluation/natural")
    assert best(run) == (300, "best of 3 under pgd-7 on held-out images (40.00 %)")
    assert find(run, "best") == (300, str(run / "checkpoints" / "ckpt-300"))


def test_without_held_out_images_there_is_none(run):
    with pytest.raises(UsageError, match=r"--checkpoint=best: no saved checkpoint was evaluated under pgd-7 while"):
        find(run, "best")
    (run / "flags.json").write_text(json.dumps({"schema_version": 1, "flags": FLAGS | {"validation_size": 0}}))
    with pytest.raises(UsageError, match="--checkpoint=best: the run held no images out"):
        find(run, "best")
    (run / "flags.json").write_text(json.dumps({"schema_version": 1, "flags": FLAGS | {"eval_attacks": " "}}))
    with pytest.raises(UsageError, match="--checkpoint=best: the run was not evaluated while it was trained"):
        find(run, "best")
