import contextlib
import dataclasses
import json
import signal
import time
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import plugin_event_accumulator

from madry_cifar import data
from madry_cifar.cli.errors import RunError
from madry_cifar.networks import initializers
from madry_cifar.networks.layers import Dense
from madry_cifar.networks.wide_resnet import Outputs
from madry_cifar.runs.checkpoints import flat_state, saved_steps
from madry_cifar.training.adversarial import AdversarialTraining, Natural
from madry_cifar.training.trainer import Interrupted, Schedule, Trainer, _duration

NEVER = {"checkpoint_every": 0, "log_every": 0, "image_every": 0, "eval_every": 0}


class Small(keras.Model):
    """One layer: compiled in no time."""

    def __init__(self):
        super().__init__(name="classifier")
        self.modes = []  # of batch norm, that it was called in
        self.logits = Dense(10, name="logits")
        self.build((None, 32, 32, 3))
        initializers.released(self, 0)

    def build(self, input_shape):
        self.logits.build((None, 32 * 32 * 3))
        self.built = True

    def call(self, images, batch_norm="eval"):
        self.modes.append(batch_norm)
        features = tf.reshape(images / 255, [-1, 32 * 32 * 3])
        return Outputs(features, self.logits(features))


class Recording(Natural):
    """Reports what it is given."""

    def train_step(self, images, labels, step):
        given = {"total": weighted_sum(images), "labels": weighted_sum(labels), "step": step}
        return {name: tf.cast(value, tf.float32) for name, value in given.items()}


def weighted_sum(values):
    """A number in which the places matter."""
    values = tf.cast(tf.reshape(values, [-1]), tf.int64)
    return tf.reduce_sum(values * (tf.range(tf.size(values, tf.int64)) % 7))


class Perturbing(Natural):
    """Shows images of which half the pixels are 8 brighter, the maximum, and half 4 darker."""

    Options = AdversarialTraining.Options  # that is, with an ε

    def adversarial_images(self, images, labels, step):
        return tf.concat([images[..., :16, :] + 8, images[..., 16:, :] - 4], axis=-2)


class OnceThroughTheData(Natural):
    """Leaves its classifier alone but for watching it, as it is in use."""

    watched_batch_norm = "eval"

    def steps(self, steps_per_epoch):
        return steps_per_epoch

    def train_step(self, images, labels, step):
        return {"total": tf.zeros([])}


class Diverging(Natural):
    """Its loss is no number at step 5."""

    def train_step(self, images, labels, step):
        losses = super().train_step(images, labels, step)
        return losses | {"cross_entropy": tf.where(step == 5, np.nan, losses["cross_entropy"])}


@pytest.fixture
def trainer(digits, tmp_path):
    """trainer(**settings) is one of a small network in `tmp_path`, by default of ten steps and without any output."""

    def trainer(
        defense=Natural,
        steps=10,
        seed=0,
        evaluator=None,
        dataset=digits,
        folder=tmp_path,
        steps_per_call=1,
        profile_steps=None,
        **schedule,
    ):
        sizes = {"batch_size": 8, "steps": steps, "learning_rates": (1e-3, 1e-4), "learning_rate_boundaries": (5,)}
        options = defense.Options(**sizes)
        schedule = Schedule(**NEVER | schedule)
        subject, others = defense(Small(), options, seed), {"evaluator": evaluator, "profile_steps": profile_steps}
        return Trainer(subject, dataset, folder, schedule, steps_per_call=steps_per_call, **others)

    return trainer


def stop_by(number, times=1):
    """An evaluator that is interrupted, the first time."""
    left = [number] * times

    def evaluator(_, seed):
        while left:
            signal.raise_signal(left.pop())
        return {}

    return evaluator


def state(trainer):
    """All that a run consists of."""
    return [v.numpy() for v in flat_state(trainer.method.networks, trainer.method.optimizers).values()]


@pytest.mark.parametrize("augmented", [False, True])
def test_each_step_has_the_batch_of_its_number(trainer, digits, curves, tmp_path, augmented):
    few = dataclasses.replace(digits, train=digits.train.take(slice(20)), augmented=augmented)
    trainer(Recording, seed=3, dataset=few, log_every=1).train()
    seen, batches = curves(tmp_path), data.Batches(20, 8, 3)
    for step in range(10):
        images = few.train.images[batches(step)]
        if augmented:
            images = data.augment(images, 3, step).numpy()
        labels = few.train.labels[batches(step)]
        assert seen["loss/total"][step] == (step + 1, pytest.approx(int(weighted_sum(images)), rel=1e-6))
        assert seen["loss/labels"][step] == (step + 1, int(weighted_sum(labels)))
        assert seen["loss/step"][step] == (step + 1, step)


def test_curves(trainer, curves, tmp_path):
    trainer(log_every=3).train()
    seen = curves(tmp_path)
    assert set(seen) == {
        *("loss/total", "loss/cross_entropy", "loss/weight_decay", "batch/natural_accuracy"),
        *("learning_rate/classifier", "speed/images_per_second"),
    }
    for points in seen.values():
        assert [step for step, _ in points] == [1, 3, 6, 9]
    rates = [value for _, value in seen["learning_rate/classifier"]]
    np.testing.assert_allclose(rates, [1e-3, 1e-3, 1e-3, 1e-4], rtol=1e-6)
    parts = ("total", "cross_entropy", "weight_decay")
    total, cross_entropy, decay = ([value for _, value in seen[f"loss/{part}"]] for part in parts)
    np.testing.assert_allclose(total, np.add(cross_entropy, decay), rtol=1e-5)
    assert total[-1] < total[0]
    assert min(value for _, value in seen["speed/images_per_second"]) > 0


def test_what_is_never_to_be_done(trainer, curves, tmp_path):
    trainer(evaluator=stop_by(signal.SIGTERM)).train()
    assert curves(tmp_path) == {}
    assert list(saved_steps(tmp_path)) == [10]


def test_the_size_of_the_perturbation(trainer, digits, curves, tmp_path):
    trainer(Perturbing, steps=1, log_every=1).train()
    seen = curves(tmp_path)
    assert seen["perturbation/mean_absolute"] == [(1, 6.0)]
    assert seen["perturbation/percent_at_epsilon"] == [(1, 50.0)]
    assert {"batch/natural_accuracy", "batch/own_perturbation_accuracy"} < set(seen)


def test_accuracy_of_the_batch_after_the_step(trainer, digits, curves, tmp_path):
    made = trainer(steps=6, log_every=6)
    made.train()
    rows = data.Batches(len(digits.train), 8, 0)(5)
    predicted = np.argmax(made.method.classifier(tf.cast(digits.train.images[rows], tf.float32)).logits, axis=1)
    expected = 100 * np.mean(predicted == digits.train.labels[rows])
    assert curves(tmp_path)["batch/natural_accuracy"][-1] == (6, pytest.approx(expected))


@pytest.mark.parametrize(
    ("kind", "modes", "last"), [(Natural, {"train", "frozen"}, 10), (OnceThroughTheData, {"eval"}, 4)]
)
def test_a_training_says_how_long_it_is_and_how_its_classifier_is_watched(trainer, digits, tmp_path, kind, modes, last):
    few = dataclasses.replace(digits, train=digits.train.take(slice(35)))  # four batches of eight
    made = trainer(kind, dataset=few, log_every=1)
    made.train()
    assert set(made.method.classifier.modes) == modes
    assert list(saved_steps(tmp_path)) == [last]


@pytest.mark.parametrize(("keep", "kept"), [(0, [3, 6, 9, 10]), (2, [9, 10])])
def test_checkpoints(trainer, tmp_path, keep, kept):
    trainer(checkpoint_every=3, keep=keep).train()
    assert list(saved_steps(tmp_path)) == kept


@pytest.mark.parametrize("held_out", [0, 30])
def test_evaluations_are_of_held_out_images_and_as_many_training_images(trainer, curves, tmp_path, capsys, held_out):
    dataset = data.load("digits", validation_size=held_out)
    seen = []

    def evaluator(split, seed):
        seen.append((split, seed))
        return {"pgd-7": types.SimpleNamespace(accuracy=12.5 * len(seen))}

    trainer(dataset=dataset, seed=4, evaluator=evaluator, eval_every=5, log_every=1).train()
    expected = dataset.validation if held_out else dataset.test
    assert [split is expected for split, _ in seen] == [True, False] * 2
    for split, _ in seen[1::2]:
        np.testing.assert_array_equal(split.images, dataset.train.images[: len(expected)])
    assert {seed for _, seed in seen} == {4}
    assert curves(tmp_path)["evaluation/pgd-7"] == [(5, 12.5), (10, 37.5)]
    assert curves(tmp_path)["training_images/pgd-7"] == [(5, 25), (10, 50)]
    bar = capsys.readouterr().err
    assert "evaluation/pgd-7=12.5" in bar  # the same attack for all methods
    assert "own" not in bar
    assert "adversarial" not in bar


@pytest.mark.parametrize("stopped_at", [1, 3, 4, 9])
def test_a_stopped_run_goes_on_bit_for_bit(trainer, digits, tmp_path, stopped_at):
    few = dataclasses.replace(digits, train=digits.train.take(slice(30)), augmented=True)  # three steps an epoch
    whole = trainer(dataset=few, folder=tmp_path / "whole")
    whole.train()
    trainer(dataset=few, steps=stopped_at).train()
    resumed = trainer(dataset=few)
    assert resumed.step == stopped_at
    resumed.train()
    for ours, expected in zip(state(resumed), state(whole), strict=True):
        assert np.array_equal(ours, expected)
    assert not np.array_equal(state(resumed)[0], state(trainer(folder=tmp_path / "new"))[0])


@pytest.mark.parametrize("steps_per_call", [2, 4, 100])
def test_several_steps_a_call_change_nothing(trainer, digits, curves, tmp_path, steps_per_call):
    augmented = dataclasses.replace(digits, augmented=True)
    every = {"log_every": 3, "checkpoint_every": 5, "keep": 0, "dataset": augmented}
    one, several = trainer(folder=tmp_path / "one", **every), trainer(steps_per_call=steps_per_call, **every)
    for made in (one, several):
        made.train()
    for ours, expected in zip(state(several), state(one), strict=True):
        assert np.array_equal(ours, expected)
    assert list(saved_steps(tmp_path)) == [5, 10]
    seen, expected = curves(tmp_path), curves(tmp_path / "one")
    assert seen.keys() == expected.keys()
    for tag in expected.keys() - {"speed/images_per_second"}:
        assert seen[tag] == expected[tag]
    assert several.steps._several.experimental_get_tracing_count() == 1  # for calls of one, two and more steps


def test_a_loss_that_is_not_finite_ends_its_call(trainer, tmp_path):
    made = trainer(Diverging, steps_per_call=100)
    with pytest.raises(RunError, match=r"step 5: cross_entropy loss nan"):
        made.train()
    six_steps = trainer(steps=6, folder=tmp_path / "six")
    six_steps.train()
    assert np.array_equal(state(made)[0], state(six_steps)[0])


def test_steps_that_are_done_again_stand_once_in_tensorboard(trainer, tmp_path):
    def killed(_, seed):
        raise ZeroDivisionError

    sizes = {"log_every": 1, "checkpoint_every": 4, "eval_every": 7}
    for dies in (killed, None):  # after step 7, of which 4 are saved
        made = trainer(evaluator=dies, **sizes)
        with pytest.raises(ZeroDivisionError) if dies else contextlib.nullcontext():
            made.train()
        made.summaries.flush()
        time.sleep(1.1)  # their files are in the order of the seconds in their names
    events = plugin_event_accumulator.EventAccumulator(str(tmp_path), size_guidance={"tensors": 0}).Reload()
    assert [event.step for event in events.Tensors("loss/total")] == list(range(1, 11))


def test_what_is_told_of_a_run_survives_a_second_start(trainer, tmp_path):
    def killed(_, seed):
        raise ZeroDivisionError

    for dies in (killed, None):  # before anything is saved
        made = trainer(evaluator=dies, log_every=1, checkpoint_every=100, eval_every=3)
        made.summaries.settings({"steps": 10}, ["pgd-2"])
        with pytest.raises(ZeroDivisionError) if dies else contextlib.nullcontext():
            made.train()
        made.summaries.flush()
        time.sleep(1.1)
    events = plugin_event_accumulator.EventAccumulator(str(tmp_path), size_guidance={"tensors": 0}).Reload()
    assert events.Tensors("flags")
    assert [event.step for event in events.Tensors("loss/total")] == list(range(1, 11))


def test_a_training_tells_how_long_it_takes(trainer, monkeypatch, capsys):
    monkeypatch.setattr("madry_cifar.training.trainer.SOON", 0)
    monkeypatch.setattr("madry_cifar.training.trainer._duration", lambda seconds: f"<{seconds > 0}>")
    trainer().train()
    assert "take about" not in capsys.readouterr().err
    monkeypatch.setattr("madry_cifar.training.trainer.LONG", 0)
    trainer(steps=20).train()
    assert capsys.readouterr().err.count("the steps that are left take about <True>") == 1


@pytest.mark.parametrize(("seconds", "words"), [(1000, "17 minutes"), (36000, "10 hours"), (9e6, "104 days")])
def test_durations(seconds, words):
    assert _duration(seconds) == words


def test_a_profile_of_some_steps(trainer, tmp_path):
    trainer(profile_steps=(3, 4), steps_per_call=100).train()
    (profile,) = tmp_path.glob("plugins/profile/*/*.xplane.pb")
    content = profile.read_bytes()
    assert b"train" in content
    assert b"MatMul" in content


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_saving(trainer, tmp_path, number):
    before = signal.getsignal(number)
    made = trainer(evaluator=stop_by(number), eval_every=4)
    with pytest.raises(Interrupted, match=f"stopped by {number.name} after step 4, saved") as stopped:
        made.train()
    assert stopped.value.number == number
    assert list(saved_steps(tmp_path)) == [4]
    assert signal.getsignal(number) is before


def test_a_second_signal_does_not_wait(trainer, tmp_path):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job has it ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            trainer(evaluator=stop_by(signal.SIGINT, times=2), eval_every=4).train()
    finally:
        signal.signal(signal.SIGINT, before)
    assert list(saved_steps(tmp_path)) == []


def test_a_loss_that_is_not_finite(trainer, tmp_path):
    with pytest.raises(
        RunError, match=r"step 5: cross_entropy loss nan\..* good checkpoint is .*/ckpt-4; .*, in another --train_dir$"
    ):
        trainer(Diverging, checkpoint_every=2).train()
    assert list(saved_steps(tmp_path)) == [2, 4]
    assert trainer().step == 4
    with pytest.raises(RunError, match=r"step 5: .* checkpoint is none"):
        trainer(Diverging, folder=tmp_path / "new").train()


def test_weights_that_are_not_finite_are_not_saved(trainer, tmp_path):
    made = trainer(checkpoint_every=2)

    def evaluator(_, seed):
        made.method.classifier.logits.bias.value[2].assign(np.inf)
        return {}

    made.evaluator, made.schedule = evaluator, dataclasses.replace(made.schedule, eval_every=6)
    with pytest.raises(RunError, match=r"step 6: classifier/logits/bias is not finite; not saved.*ckpt-4"):
        made.train()
    assert list(saved_steps(tmp_path)) == [2, 4]


def test_a_finished_run_is_left_as_it_is(trainer, tmp_path):
    trainer().train()
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "checkpoints").iterdir()}
    trainer().train()
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "checkpoints").iterdir()} == before
    state_file = (tmp_path / "checkpoints" / "checkpoint").read_text()
    assert json.loads(state_file.split("model_checkpoint_path: ")[1].splitlines()[0]) == "ckpt-10"
