"""What all defences have in common: batch norm's statistics, falling losses, resuming, options that are refused."""

import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf

from madry_cifar import WideResNet, defense, trainer
from madry_cifar.checkpoints import read

NAMES = ("trades", "bilateral", "featscatter", "adv_interp", "adv_vertex")
MOVES = {
    "trades": 3,
    "bilateral": 1,
    "featscatter": 1,
    "adv_interp": 1,
    "adv_vertex": 1,
}  # of running statistics, a step
QUICK = {"attack_steps": 2}


def make(name, dtype="float32", **options):
    kind = defense.find(name)
    rates = {"learning_rates": (0.05,), "learning_rate_boundaries": ()}
    taken = {field.name for field in dataclasses.fields(kind.Options)}
    quick = {key: value for key, value in QUICK.items() if key in taken and key not in options}
    return kind(WideResNet(10, 1, 10, dtype=dtype), kind.Options(**rates, **quick, **options), seed=4)


def statistics(network):
    return [variable.numpy() for variable in network.non_trainable_variables]


@pytest.mark.parametrize("name", NAMES)
def test_running_statistics_move_by_the_passes_of_the_weight_update_alone(name, digits):
    subject = make(name, "float64")
    first = subject.classifier.units[0].norm1
    first.moving_mean.assign(np.full(16, 1e9))  # in "eval" mode this would show in the logits; here it fades by 0.9
    images = tf.constant(digits.train.images[:8], tf.float64)
    subject.train_step(images, tf.constant(digits.train.labels[:8]), tf.constant(0, tf.int64))
    moves = math.log(float(first.moving_mean[0]) / 1e9) / math.log(0.9)
    assert round(moves, 4) == MOVES[name]


@pytest.mark.parametrize("name", NAMES[1:])
def test_running_statistics_are_those_of_the_examples(name, digits):
    subject = make(name, "float64")
    images, labels = tf.constant(digits.train.images[:8], tf.float64), tf.constant(digits.train.labels[:8])
    shown = subject.adversarial_images(images, labels, tf.constant(0, tf.int64))
    inside = subject.classifier.init_conv(subject.classifier.call.__globals__["standardize"](shown)).numpy()
    subject.train_step(images, labels, tf.constant(0, tf.int64))
    norm = subject.classifier.units[0].norm1
    np.testing.assert_allclose(norm.moving_mean, 0.1 * inside.mean(axis=(0, 1, 2)), rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_showing_images_changes_nothing(name, digits):
    subject = make(name)
    before = statistics(subject.classifier)
    images = tf.constant(digits.train.images[:8], tf.float32)
    shown = subject.adversarial_images(images, tf.constant(digits.train.labels[:8]), tf.constant(0, tf.int64)).numpy()
    for old, new in zip(before, statistics(subject.classifier), strict=True):
        np.testing.assert_array_equal(old, new)
    size = {"adv_vertex": 16}.get(name, 8)
    assert 1 < abs(shown - images.numpy()).max() <= size + 1e-3
    assert shown.min() >= 0
    assert shown.max() <= 255


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_falls_and_resuming_is_exact(name, digits, curves, tmp_path):
    few = dataclasses.replace(digits, train=digits.train.take(slice(256)))
    every = trainer.Schedule(checkpoint_every=12, keep=0, log_every=1, image_every=0, eval_every=0)

    def train(folder, steps):
        folder.mkdir(exist_ok=True)
        trainer.Trainer(make(name, batch_size=32, steps=steps), few, folder, every).train()
        return read(str(folder / "checkpoints" / f"ckpt-{steps}"))

    whole = train(tmp_path / "whole", 24)
    train(tmp_path / "parts", 12)
    parts = train(tmp_path / "parts", 24)
    assert whole.keys() == parts.keys()
    for key, value in whole.items():
        np.testing.assert_array_equal(value, parts[key], err_msg=key)
    losses = [value for _, value in sorted(curves(tmp_path / "whole")["loss/total"])]
    assert np.mean(losses[-6:]) < np.mean(losses[:6])


@pytest.mark.parametrize("on", ["kernels", "all"])
def test_weight_decay_is_on_kernels_or_on_everything(on):
    subject = make("featscatter", "float64", weight_decay=0.5, weight_decay_on=on)
    for variable in subject.classifier.trainable_variables:
        if len(variable.shape) == 1:
            variable.assign(np.full(variable.shape, 3.0))
    trained = [variable.numpy() for variable in subject.classifier.trainable_variables]
    decayed = [weight for weight in trained if on == "all" or weight.ndim > 1]
    assert len(decayed) < len(trained) or on == "all"
    np.testing.assert_allclose(subject.weight_decay(), 0.25 * sum((weight**2).sum() for weight in decayed), rtol=1e-12)
