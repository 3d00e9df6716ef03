"""What all defences have in common: batch norm's statistics, falling losses, resuming, options that are refused."""

import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf
from tiers import mostly_slow

import rvs_tf  # noqa: F401 (registers the defences)
from madry_cifar import WideResNet, data
from madry_cifar.networks.layers import standardize
from madry_cifar.runs.checkpoints import flat_state
from madry_cifar.training import registry
from madry_cifar.training.steps import Steps

EXAMPLES = ("bilateral", "featscatter", "adv_interp", "adv_vertex")  # trained on examples alone
MOVES = {  # of running statistics, a step
    "trades": 3,
    **dict.fromkeys(EXAMPLES, 1),
    "l2l": 2,
    "l2l_da": 1,
    "direct": 2,
    "learn2perturb": 2,
    **dict.fromkeys(("adt_exp", "adt_expam", "adt_impam"), 1),
    "gat": 2,
}
NAMES = tuple(MOVES)
COMPILED = tuple(name for name in NAMES if name != "adt_expam")  # which is what the two beside it have
QUICK = {
    "attack_steps": 2,
    "attacker_steps": 2,
    "attacker_width": 4,
    "generator_width": 4,
    "generator_updates": 2,
    "noise_epoch": 0,
    "attack_epoch": 0,
    "inner_steps": 2,
    "inner_samples": 2,
    "clip_pixels": True,
}


def make(name, dtype="float32", **options):
    kind = registry.find(name)
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
    losses = subject.train_step(images, tf.constant(digits.train.labels[:8]), tf.constant(0, tf.int64))
    assert set(losses) == set(subject.losses)  # each is described
    moves = math.log(float(first.moving_mean[0]) / 1e9) / math.log(0.9)
    assert round(moves, 4) == MOVES[name] + (name == "l2l")  # of two attacker's steps, a gradient more


@pytest.mark.parametrize(("step", "expected"), [(0, 2), (9, 1), (10, 2), (24, 1), (25, 2), (30, 1), (35, 2)])
def test_logging_of_feature_scatterings_script_moves_running_statistics(digits, step, expected):
    """At every tenth batch of an epoch, here of 25."""
    subject = make("featscatter", "float64", statistics_every=10, statistics_epoch=25)
    first = subject.classifier.units[0].norm1
    first.moving_mean.assign(np.full(16, 1e9))
    images = tf.constant(digits.train.images[:8], tf.float64)
    subject.train_step(images, tf.constant(digits.train.labels[:8]), tf.constant(step, tf.int64))
    assert round(math.log(float(first.moving_mean[0]) / 1e9) / math.log(0.9), 4) == expected


def test_an_epoch_of_that_log_is_the_data_sets():
    options = registry.find("featscatter").Options
    for_data = options(epochs=2, steps=0, learning_rate_boundaries=(), learning_rates=(0.1,), statistics_every=10)
    assert for_data.in_steps(833).statistics_epoch == 833
    assert dataclasses.replace(for_data, statistics_every=0).in_steps(833).statistics_epoch == 0


@pytest.mark.parametrize("name", EXAMPLES)
def test_running_statistics_are_those_of_the_examples(name, digits):
    subject = make(name, "float64")
    images, labels = tf.constant(digits.train.images[:8], tf.float64), tf.constant(digits.train.labels[:8])
    shown = subject.adversarial_images(images, labels, tf.constant(0, tf.int64))
    inside = subject.classifier.init_conv(standardize(shown)).numpy()
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
    least = 0.01 if name == "l2l_da" else 1  # its generator begins with small weights
    assert least < abs(shown - images.numpy()).max() <= size + 1e-3
    assert shown.min() >= 0
    assert shown.max() <= 255


@pytest.mark.parametrize("name", mostly_slow(NAMES, "trades", "learn2perturb"))
def test_the_loss_falls_and_going_on_from_saved_values_is_exact(name, digits):
    few = dataclasses.replace(digits, train=digits.train.take(slice(256)))
    subject = make(name, batch_size=16)
    steps, batches = Steps(subject, few, strategy=tf.distribute.get_strategy()), data.Batches(256, 16, 4)
    state = flat_state(subject.networks, subject.optimizers)

    def train(first, last):
        return [float(steps.train(batches(step)[np.newaxis], step)[1]["total"]) for step in range(first, last)]

    losses = train(0, 12)
    saved = {key: variable.numpy() for key, variable in state.items()}
    losses += train(12, 24)
    whole = {key: variable.numpy() for key, variable in state.items()}
    for key, variable in state.items():
        variable.assign(saved[key])
    assert train(12, 24) == losses[12:]
    for key, variable in state.items():
        np.testing.assert_array_equal(variable.numpy(), whole[key], err_msg=key)
    assert np.mean(losses[-6:]) < np.mean(losses[:6])


@pytest.mark.parametrize("name", mostly_slow(COMPILED, "trades", "adt_impam"))
def test_compiled_by_xla_it_trains_on_the_same_images(name, digits):
    images, labels = tf.constant(digits.train.images[:4], tf.float64), tf.constant(digits.train.labels[:4])
    subject, step = make(name, "float64"), tf.constant(3, tf.int64)
    compiled = tf.function(subject.adversarial_images, autograph=False, jit_compile=True)(images, labels, step)
    np.testing.assert_allclose(compiled, subject.adversarial_images(images, labels, step), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", mostly_slow(COMPILED, "trades", "learn2perturb"))
def test_in_bfloat16_a_step_loses_about_the_same(name, digits):
    images, labels = tf.constant(digits.train.images[:8], tf.float32), tf.constant(digits.train.labels[:8])
    losses = []
    for dtype in ("float32", "mixed_bfloat16"):
        subject = make(name, dtype)
        losses.append(float(subject.train_step(images, labels, tf.constant(0, tf.int64))["total"]))
        assert {variable.value.dtype for variable in subject.classifier.variables} == {tf.float32}
    assert losses[0] != losses[1]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.05)


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
