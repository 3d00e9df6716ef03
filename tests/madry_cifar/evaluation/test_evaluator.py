import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow as tf
from linear import run_attack

from madry_cifar import WideResNet
from madry_cifar.attacks.registry import Attack, attack
from madry_cifar.cli.errors import RunError, UsageError
from madry_cifar.data.datasets import Split
from madry_cifar.evaluation import evaluator as evaluation
from madry_cifar.evaluation.evaluator import Evaluator
from madry_cifar.predictor import Outputs, Predictor, as_predictor


class Linear(Predictor):
    """A linear classifier of images [2, 2, 3] in three classes that counts how often it is traced."""

    num_classes = 3

    def __init__(self, seed=0):
        self.weights = tf.Variable(np.random.default_rng(seed).normal(size=(12, 3)), dtype=tf.float32)
        self.calls = 0

    def __call__(self, images, draw=0):
        self.calls += not tf.executing_eagerly()
        return Outputs(None, tf.reshape(images - 128, [tf.shape(images)[0], 12]) @ self.weights)


@pytest.fixture
def linear():
    return Linear()


@pytest.fixture
def split(linear):
    """Ten images, most of which `linear` gets right."""
    images = np.random.default_rng(1).integers(0, 256, (10, 2, 2, 3), np.uint8)
    labels = np.argmax((images.reshape(10, 12) - 128.0) @ linear.weights.numpy(), axis=1).astype(np.int32)
    labels[7] = (labels[7] + 1) % 3
    return Split(images, labels)


@pytest.mark.parametrize("name", ["natural", "fgsm", "fgsm-rs", "pgd-3", "cw-2"])
@pytest.mark.parametrize("batch_size", [1, 4, 10, 64])
def test_outcomes_are_those_of_a_plain_loop(linear, split, name, batch_size):
    chosen = attack(name, epsilon=32, step_size=12)
    outcome = Evaluator(linear, [chosen], batch_size=batch_size)(split, seed=5)[name]
    predictions, largest = [], 0
    for first in range(0, 10, batch_size):
        rows = range(first, min(first + batch_size, 10))
        images, labels = split.images[rows].astype(np.float32), split.labels[rows]
        adversarial = run_attack(chosen, linear, images, labels, place=rows, seed=5)
        largest = max(largest, np.abs(adversarial - images).max())
        predictions += np.argmax((adversarial.reshape(-1, 12) - 128) @ linear.weights.numpy(), axis=1).tolist()
    assert outcome.predictions.tolist() == predictions
    assert np.array_equal(outcome.labels, split.labels)
    right = sum(predicted == label for predicted, label in zip(predictions, split.labels, strict=True))
    assert outcome.accuracy == pytest.approx(10 * right)
    assert outcome.linf == pytest.approx(largest, abs=1e-4)
    assert outcome.linf <= 32.0001
    assert (right == 9) if name == "natural" else (right < 9)


def test_a_network_of_the_right_kind(trained, digits):
    chosen = [attack("natural"), attack("pgd-3", epsilon=6)]
    outcomes = Evaluator(trained, chosen, batch_size=30, max_images=50)(digits.test)
    images, labels = digits.test.images[:50].astype(np.float32), digits.test.labels[:50]
    expected = [int(np.argmax(trained(image[np.newaxis]).logits)) for image in images]
    assert outcomes["natural"].predictions.tolist() == expected
    assert len(outcomes["pgd-3"].labels) == 50
    assert np.array_equal(outcomes["pgd-3"].labels, labels)
    assert 0 < outcomes["pgd-3"].accuracy < outcomes["natural"].accuracy
    assert 5.99 < outcomes["pgd-3"].linf < 6.0001
    assert outcomes["natural"].linf == 0


@pytest.mark.parametrize("name", ["fgsm", "pgd-3", "cw-2"])
def test_a_transfer_attack_follows_another_networks_gradients(linear, split, name):
    surrogate, chosen = Linear(seed=3), attack(name, epsilon=32, step_size=12)
    evaluator = Evaluator(linear, [chosen], attacked=surrogate, batch_size=10, keep_adversarial=True)
    outcome = evaluator(split, seed=5)[name]
    adversarial = run_attack(chosen, surrogate, split.images.astype(np.float32), split.labels, seed=5)
    np.testing.assert_allclose(outcome.adversarial, adversarial, atol=1e-4)
    predicted = np.argmax((adversarial.reshape(10, 12) - 128) @ linear.weights.numpy(), axis=1)
    assert outcome.predictions.tolist() == predicted.tolist()
    assert not np.array_equal(predicted, Evaluator(linear, [chosen], batch_size=10)(split, seed=5)[name].predictions)


def test_an_attack_of_other_size_or_length_is_not_traced_again(linear, split):
    evaluator = Evaluator(linear, batch_size=4)
    evaluator.run(attack("pgd-3"), split)
    traced = linear.calls
    harder = evaluator.run(attack("pgd-9", epsilon=40.0, step_size=7.0), split, seed=2)
    assert linear.calls == traced > 0
    assert 39.99 < harder.linf < 40.0001
    assert harder.predictions.tolist() == expected_of("pgd-9", linear, split, epsilon=40.0, step_size=7.0)
    evaluator.run(attack("cw-9"), split)
    assert linear.calls > traced


def expected_of(name, linear, split, **sizes):
    return Evaluator(linear, [attack(name, **sizes)], batch_size=4)(split, seed=2)[name].predictions.tolist()


class Killed(Exception):
    pass


@pytest.mark.parametrize("name", ["natural", "fgsm-rs", "pgd-3"])
@pytest.mark.parametrize(("batch_size", "batches"), [(1, 7), (4, 1), (4, 2), (4, 3), (10, 1)])
def test_an_attack_goes_on_after_any_batch(linear, split, name, batch_size, batches):
    chosen, seen = attack(name, epsilon=32, step_size=12), []

    def until_killed(outcome):
        seen.append(outcome)
        if len(seen) == batches:
            raise Killed

    def evaluator():
        return Evaluator(linear, batch_size=batch_size, keep_adversarial=True)

    whole = evaluator().run(chosen, split, seed=5)
    with pytest.raises(Killed):
        evaluator().run(chosen, split, seed=5, after_batch=until_killed)
    before = dataclasses.replace(seen[-1], seconds=1000.0)
    assert [len(outcome.predictions) for outcome in seen] == [min(n * batch_size, 10) for n in range(1, batches + 1)]
    assert before.accuracy == 100 * np.mean(before.predictions == split.labels[: len(before.predictions)])
    later = []
    outcome = evaluator().run(chosen, split, seed=5, before=before, after_batch=later.append)
    assert len(later) == -(-10 // batch_size) - batches
    assert outcome.predictions.tolist() == whole.predictions.tolist()
    assert np.array_equal(outcome.adversarial, whole.adversarial)
    assert outcome.linf == whole.linf
    assert 1000 <= outcome.seconds < 2000  # counted once
    assert (outcome.seconds > 1000) == bool(later)


def test_a_padded_batch_neither_changes_outcomes_nor_is_traced_again(linear, split):
    evaluator = Evaluator(linear, [attack("pgd-3", epsilon=32)], batch_size=4)
    whole = evaluator(split.take(slice(8)))["pgd-3"]
    traced = linear.calls
    part = evaluator(split.take(slice(5)))["pgd-3"]
    assert part.predictions.tolist() == whole.predictions[:5].tolist()
    assert linear.calls == traced > 0


def test_later_weights_are_used_without_tracing(linear, split):
    evaluator = Evaluator(linear, [attack("natural")], batch_size=4)
    before = evaluator(split)["natural"].accuracy
    traced = linear.calls
    linear.weights.assign(-linear.weights)
    assert evaluator(split)["natural"].accuracy < before - 50
    assert linear.calls == traced


def test_the_start_belongs_to_the_seed_and_to_the_place_of_the_image(linear, split):
    same = Split(np.repeat(split.images[:1], 8, axis=0), np.repeat(split.labels[:1], 8))
    evaluator = Evaluator(linear, [attack("pgd-1", epsilon=60, step_size=0)], batch_size=4, keep_adversarial=True)
    first, again, other = (evaluator(same, seed=seed)["pgd-1"].adversarial for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.any(np.all(first == other, axis=(1, 2, 3)))
    assert len(np.unique(first, axis=0)) == 8


@pytest.mark.parametrize("keep", [False, True])
def test_adversarial_images_are_kept_when_wanted(linear, split, keep):
    evaluator = Evaluator(linear, [attack("fgsm", epsilon=9)], batch_size=4, keep_adversarial=keep)
    kept = evaluator(split)["fgsm"].adversarial
    if not keep:
        assert kept is None
        return
    assert kept.shape == split.images.shape
    predicted = np.argmax((kept.reshape(10, 12) - 128) @ linear.weights.numpy(), axis=1)
    assert np.array_equal(predicted, evaluator(split)["fgsm"].predictions)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite(linear, split, value):
    linear.weights[3, 1].assign(value)
    with pytest.raises(RunError, match="natural: logits that are not finite at image 0: the network has diverged"):
        Evaluator(linear, [attack("natural")], batch_size=4)(split)


def test_logits_that_are_not_finite_at_the_end(linear, split):
    linear.weights[3, 1].assign(1e38)
    images = np.full_like(split.images, 128)
    images[9] = 255
    with pytest.raises(RunError, match="at image 9"):
        Evaluator(linear, [attack("natural")], batch_size=4)(Split(images, split.labels))


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_out_of_range(linear, split, label):
    split.labels[6] = label
    with pytest.raises(UsageError, match=f"label {label} of image 6 is none of the model's 3 classes"):
        Evaluator(linear, [attack("natural")])(split)


def test_what_is_put_into_the_results(linear, split):
    entry = Evaluator(linear, [attack("pgd-3")], batch_size=4)(split)["pgd-3"].as_dict()
    timing = {"attacked", "seconds", "compiled_seconds", "images_per_second"}
    assert set(entry) == {"accuracy", "images", "protocol", "linf"} | timing
    assert (entry["images"], entry["attacked"]) == (10, 10)
    assert entry["protocol"] == attack("pgd-3").protocol


# --- Images per second


@pytest.fixture
def ticks(monkeypatch):
    """A clock that goes on by a second whenever it is looked at: a batch takes one."""
    monkeypatch.setattr(evaluation.time, "monotonic", itertools.count().__next__)


def timing(outcome):
    return {name: outcome.as_dict()[name] for name in ("attacked", "seconds", "compiled_seconds", "images_per_second")}


def test_batches_that_compile_are_told_apart(linear, split, ticks):
    evaluator = Evaluator(linear, [attack("pgd-3"), attack("pgd-9"), attack("cw-3")], batch_size=4)
    first, other_steps, other_loss = evaluator(split).values()
    assert timing(first) == {"attacked": 10, "seconds": 3, "compiled_seconds": 1, "images_per_second": 6 / 2}
    assert timing(other_steps) == {"attacked": 10, "seconds": 3, "compiled_seconds": 0, "images_per_second": 3.333}
    assert timing(other_loss) == timing(first)


def test_no_rate_where_every_batch_compiled(linear, split, ticks):
    outcome = Evaluator(linear, [attack("pgd-3")], batch_size=10)(split)["pgd-3"]
    assert timing(outcome) == {"attacked": 10, "seconds": 1, "compiled_seconds": 1, "images_per_second": None}


def test_the_rate_of_an_attack_that_goes_on(linear, split, ticks):
    seen = []
    Evaluator(linear, batch_size=3).run(attack("pgd-3"), split, after_batch=seen.append)
    again = Evaluator(linear, batch_size=3).run(attack("pgd-3"), split, before=seen[1])  # compiled once more
    assert timing(seen[1]) == {"attacked": 6, "seconds": 2, "compiled_seconds": 1, "images_per_second": 3}
    assert timing(again) == {"attacked": 10, "seconds": 4, "compiled_seconds": 2, "images_per_second": 4 / 2}


# --- Misclassified images are skipped


@pytest.fixture
def half_wrong(split):
    """The same ten images, of which `linear` gets six right."""
    labels = split.labels.copy()
    labels[[0, 4, 5]] = (labels[[0, 4, 5]] + 1) % 3
    return Split(split.images, labels)


def compare_skipping(classifier, chosen, split, batch_size):
    """Outcomes with and without skipping, after checks of what must hold for every attack; and which were attacked."""
    evaluator = Evaluator(classifier, [attack("natural"), chosen], batch_size=batch_size, keep_adversarial=True)
    whole, skipped = evaluator(split, seed=5), evaluator(split, seed=5, skip_misclassified=True)
    right = whole["natural"].predictions == split.labels
    full, ours = whole[chosen.name], skipped[chosen.name]
    for name in ("predictions", "adversarial"):
        assert np.array_equal(getattr(ours, name)[right], getattr(full, name)[right])
        assert np.array_equal(getattr(ours, name)[~right], getattr(whole["natural"], name)[~right])
    assert ours.accuracy == 100 * np.mean(right & (full.predictions == split.labels))
    assert (ours.attacked, full.attacked) == (right.sum(), len(split))
    assert ours.linf == np.abs(full.adversarial - split.images)[right].max()
    assert ours.attack.protocol == chosen.protocol | {"skip_misclassified": True}
    assert np.array_equal(skipped["natural"].predictions, whole["natural"].predictions)
    assert (skipped["natural"].attack, full.attack) == (attack("natural"), chosen)
    return ours, full, right


@pytest.mark.parametrize("name", ["fgsm", "fgsm-rs", "pgd-3", "cw-2"])
@pytest.mark.parametrize("batch_size", [1, 2, 4, 10, 64])
def test_what_is_attacked_comes_out_as_without_skipping(linear, half_wrong, name, batch_size):
    _, _, right = compare_skipping(linear, attack(name, epsilon=32, step_size=12), half_wrong, batch_size)
    assert right.sum() == 6


@pytest.mark.parametrize("name", ["pgd-3", "cw-2"])
def test_a_network_of_the_right_kind_with_skipping(trained, digits, name):
    labels = digits.test.labels[:61].copy()
    labels[1::3] = (labels[1::3] + 1) % 10
    ours, _, right = compare_skipping(trained, attack(name, epsilon=6), Split(digits.test.images[:61], labels), 16)
    assert 36 < right.sum() < 44
    assert 0 < np.sum(ours.predictions[right] == labels[right]) < right.sum()


def test_an_image_that_the_attack_puts_right(linear, half_wrong):
    """It counts as misclassified if it is skipped: in this alone the accuracy is another one."""
    upside_down = Attack("negative", lambda predictor, images, labels, draws: 255 - images, {})
    ours, full, right = compare_skipping(linear, upside_down, half_wrong, 4)
    put_right = ~right & (full.predictions == half_wrong.labels)
    assert put_right.any()
    assert full.accuracy - ours.accuracy == pytest.approx(10 * put_right.sum())


def test_skipped_images_take_no_place_in_batches_and_nothing_is_traced_again(linear, half_wrong):
    evaluator, seen = Evaluator(linear, batch_size=3), []
    natural = evaluator.run(attack("natural"), half_wrong)
    evaluator.run(attack("pgd-3"), half_wrong, earlier=natural, after_batch=lambda outcome: seen.append(linear.calls))
    assert seen == [seen[0]] * 2  # six images
    for other in (attack("pgd-9"), attack("pgd-3", epsilon=1.0)):
        evaluator.run(other, half_wrong.take(slice(7)), seed=3, earlier=natural.first(7))
    assert linear.calls == seen[0]


@pytest.mark.parametrize(("wrong", "attacked"), [(slice(None), 0), (slice(0), 10), (slice(3, None), 3)])
def test_all_or_none_or_the_last_ones_are_skipped(linear, split, wrong, attacked):
    labels = np.argmax((split.images.reshape(10, 12) - 128.0) @ linear.weights.numpy(), axis=1).astype(np.int32)
    labels[wrong] = (labels[wrong] + 1) % 3
    seen, given = [], Split(split.images, labels)
    evaluator = Evaluator(linear, batch_size=4)
    natural = evaluator.run(attack("natural"), given)
    outcome = evaluator.run(attack("pgd-3"), given, earlier=natural, after_batch=seen.append)
    assert outcome.attacked == attacked
    assert len(seen) == -(-attacked // 4)
    assert len(outcome.predictions) == 10
    assert outcome.predictions[wrong].tolist() == natural.predictions[wrong].tolist()
    assert [len(part.labels) for part in seen[-1:]] == [10] * bool(seen)
    if not attacked:
        assert (outcome.accuracy, outcome.linf, outcome.images_per_second) == (0, 0, None)


@pytest.mark.parametrize("batches", [1, 2, 3])
def test_an_attack_that_skips_goes_on_after_any_batch(linear, half_wrong, batches):
    def evaluator():
        return Evaluator(linear, batch_size=2, keep_adversarial=True)

    seen, later, chosen = [], [], attack("pgd-3", epsilon=32, step_size=12)
    natural = evaluator().run(attack("natural"), half_wrong)
    whole = evaluator().run(chosen, half_wrong, seed=5, earlier=natural, after_batch=seen.append)
    assert [len(outcome.labels) for outcome in seen] == [3, 8, 10]  # up to the next image to attack: 1, 2 | 3, 6 | 8, 9
    before = seen[batches - 1]
    outcome = evaluator().run(chosen, half_wrong, seed=5, earlier=natural, before=before, after_batch=later.append)
    assert len(later) == 3 - batches
    assert outcome.predictions.tolist() == whole.predictions.tolist()
    assert np.array_equal(outcome.adversarial, whole.adversarial)
    assert (outcome.linf, outcome.attacked, outcome.attack) == (whole.linf, 6, whole.attack)


def test_one_attack_after_another_on_what_is_still_right(linear, half_wrong):
    """As an ensemble of attacks does it: each earlier outcome is an outcome that a later attack goes on from."""
    evaluator = Evaluator(linear, batch_size=4)
    sizes = {"epsilon": 12, "step_size": 4}
    alone = [evaluator.run(attack(name, **sizes), half_wrong) for name in ("natural", "fgsm", "pgd-3", "cw-3")]
    right = [outcome.predictions == half_wrong.labels for outcome in alone]
    outcome = alone[0]
    for number, name in enumerate(("fgsm", "pgd-3", "cw-3"), start=1):
        outcome = evaluator.run(attack(name, **sizes), half_wrong, earlier=outcome)
        assert outcome.attacked == np.sum(np.all(right[:number], axis=0))
    assert outcome.accuracy == 100 * np.mean(np.all(right, axis=0))
    assert 0 < outcome.accuracy < 60


CHEATS = {  # what is done to the images, and what the error says of it
    "a little": (lambda images: images + 8.01, r"leaves the ball of ε = 8 by 0.01 grey levels"),
    "below": (lambda images: images - 4, r"leaves \[0, 255\] by 4 grey levels"),
    "above": (lambda images: images + 4, r"leaves \[0, 255\] by 4 grey levels"),
    "nothing": (lambda images: images * float("nan"), r"is not finite"),
    "infinity": (lambda images: images + float("inf"), r"is not finite"),
}


@pytest.mark.parametrize("what", CHEATS)
def test_an_attack_that_cheats_is_caught(linear, what):
    """On one image alone, the sixth: in the second batch."""
    change, message = CHEATS[what]
    images = np.full((10, 2, 2, 3), {"below": 0, "above": 255}.get(what, 100), np.uint8)

    def cheat(predictor, images, labels, draws):
        return tf.where((draws.place == 6)[:, tf.newaxis, tf.newaxis, tf.newaxis], change(images), images)

    attack = Attack("cheat", cheat, {"norm": "linf", "epsilon": 8.0})
    with pytest.raises(RunError, match=f"^cheat: what it made of image 6 {message}; such an image does not count"):
        Evaluator(linear, batch_size=4).run(attack, Split(images, np.zeros(10, np.int32)))


@pytest.mark.parametrize(("change", "wrong"), [(7.9, False), (8.0009, False), (8.01, True)])
@pytest.mark.parametrize("norm", [{"norm": "linf", "epsilon": 8.0}, {"norm": "l2", "radius": 8.0 * 12**0.5}])
def test_float32_may_round_out_of_the_ball(linear, split, change, wrong, norm):
    images = np.full((2, 2, 2, 3), 100, np.uint8)
    attack = Attack("shift", lambda predictor, images, labels, draws: images + change, norm)
    split, evaluator = Split(images, np.zeros(2, np.int32)), Evaluator(linear, batch_size=2)
    if wrong:
        with pytest.raises(RunError, match="shift: what it made of image 0 leaves the "):
            evaluator.run(attack, split)
    elif norm["norm"] == "linf" or change < 8:
        assert evaluator.run(attack, split).linf == pytest.approx(change, abs=1e-4)


def fingerprint(network):
    return as_predictor(network).fingerprint()


def test_the_fingerprint_is_of_all_that_takes_part_in_a_prediction():
    kinds = [{}, {"input_scaling": "unit"}, {"input_scaling": "signed"}, {"batch_norm_epsilon": 1e-5}]
    assert len({fingerprint(WideResNet(10, 1, **kind)) for kind in kinds}) == 4


def test_the_fingerprint_is_of_all_weights():
    first, second = WideResNet(10, 1), WideResNet(10, 1)
    assert fingerprint(first) == fingerprint(second) != fingerprint(WideResNet(10, 1, seed=1))
    for variable in (second.units[0].norm1.moving_variance, second.logits.bias):
        before = fingerprint(second)
        variable.value[0].assign(0.5)
        assert fingerprint(second) != before
