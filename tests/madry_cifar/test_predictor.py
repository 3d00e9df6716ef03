"""Predictors with noise inside, and without a useful gradient, under attacks, in the evaluator and in the diagnosis."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from linear import Linear, halfway
from tiers import mostly_slow

from madry_cifar import attacks
from madry_cifar.attacks.restarts import first_error
from madry_cifar.cli.errors import UsageError
from madry_cifar.data.datasets import Split
from madry_cifar.evaluation.diagnosis import diagnose
from madry_cifar.evaluation.evaluator import REDRAWN, Evaluator, Task, against
from madry_cifar.evaluation.measuring import Measuring
from madry_cifar.predictor import Outputs, Predictor, as_predictor
from madry_cifar.randomness import Draws, noise


class Noisy(Predictor):
    """A linear classifier of images with noise; notes what it is asked, as (draw, first pixel) of each image."""

    num_classes, stochastic = 5, True

    def __init__(self, deviation=20.0):
        self.linear, self.deviation, self.asked = Linear(), deviation, []

    def __call__(self, images, draw=0):
        draws = tf.broadcast_to(tf.cast(draw, tf.int64), tf.shape(images)[:1])
        tf.py_function(lambda draws, _: self.asked.append(draws.numpy()), [draws, images], [])  # once there are images
        return self.linear(images + self.deviation * noise(draw, tf.shape(images)))


class Quantised(Predictor):
    """A linear classifier of images rounded to multiples of 8: without a gradient but for that of its stand-in."""

    num_classes = 5

    def __init__(self, stand_in):
        self.linear, self.stand_in = Linear(), stand_in

    def __call__(self, images, draw=0):
        return self.linear(8 * tf.round(images / 8))

    def differentiable(self):
        return self.linear if self.stand_in else self


@pytest.fixture
def split():
    images, labels = Linear().images(200)
    return Split(images, labels)


@pytest.mark.parametrize(
    "name",
    mostly_slow(["natural", "fgsm-rs", "pgd-3", "pgd-2x3", "apgd-ce", "square", "multitargeted"], "natural", "pgd-2x3"),
)
def test_an_image_comes_out_the_same_in_a_batch_of_1_and_of_200(split, name, monkeypatch):
    monkeypatch.setattr(attacks.square.square, "__kwdefaults__", {"queries": 20})
    monkeypatch.setattr(attacks.multitargeted, "STEPS", 3)
    monkeypatch.setattr(attacks.apgd, "STEPS", 5)
    attack, rows = attacks.attack(name, epsilon=30, step_size=10), [0, 1, 77, 130, 199]
    whole = Evaluator(Noisy(), batch_size=200, keep_adversarial=True).run(attack, split, seed=3)
    alone = Evaluator(Noisy(), batch_size=1, keep_adversarial=True)
    earlier = Evaluator(Noisy(), batch_size=200).run(attacks.attack("natural"), split, seed=3)
    for row in rows:
        only_it = dataclasses.replace(earlier, predictions=np.where(np.arange(200) == row, split.labels, -1))
        found = alone.run(attack, split, seed=3, earlier=only_it)
        assert found.predictions[row] == whole.predictions[row]
        np.testing.assert_array_equal(found.redrawn[row], whole.redrawn[row])
        np.testing.assert_allclose(found.adversarial[row], whole.adversarial[row], atol=1e-3)


@pytest.mark.parametrize("name", ["natural", "fgsm", "pgd-3", "pgd-2x2", "cw-l2-10", "fab-t"])
def test_no_query_is_drawn_twice_and_the_judges_is_another(split, name):
    """Each image's draws: those of the attack all differ, and so do those by which it is judged, once and again."""
    predictor, few = Noisy(), split.take(slice(8))
    evaluator = Evaluator(predictor, batch_size=8)
    evaluator.admit(few)
    predictor.asked.clear()
    evaluator.run(attacks.attack(name, epsilon=4), few, seed=1)
    of_attack, judging = predictor.asked[: -1 - len(REDRAWN)], np.stack(predictor.asked[-1 - len(REDRAWN) :])
    assert len(np.unique(judging)) == judging.size == 11 * 8
    assert not np.isin(judging, np.concatenate(of_attack or [[]])).any()
    of_steps = [draws[0] for draws in of_attack]
    if name in ("fgsm", "pgd-3"):
        assert len(set(of_steps)) == len(of_steps) == {"fgsm": 1, "pgd-3": 3}[name]


@pytest.mark.parametrize("name", ["pgd-10", "pgd-10x3", "apgd-ce", "apgd-dlr", "apgd-t", "multitargeted", "square"])
def test_what_is_wrong_by_one_draw_is_attacked_all_the_same(split, name, monkeypatch):
    """A third of these images' draws is wrong without an attack, and within this ε nearly all can be made so, as PGD
    shows, which always takes all its steps. What stops at the first error leaves a fifth to a half."""
    monkeypatch.setattr(attacks.square.square, "__kwdefaults__", {"queries": 300})
    monkeypatch.setattr(attacks.multitargeted, "STEPS", 10)
    monkeypatch.setitem(attacks.apgd.apgd.__kwdefaults__, "steps", 15)
    evaluator = Evaluator(Noisy(), batch_size=200)
    natural = evaluator.run(attacks.attack("natural"), split, seed=1)
    right = natural.predictions == split.labels
    assert np.mean(natural.redrawn[right] == split.labels[right, np.newaxis]) < 0.7
    found = evaluator.run(attacks.attack(name, epsilon=30, step_size=6), split, seed=1)
    assert np.mean(found.redrawn[right] == split.labels[right, np.newaxis]) < 0.08
    assert found.accuracy < 8
    assert found.attacked == 200


def test_the_attempt_that_is_wrong_most_often_counts():
    """Of three points, which a draw gets wrong with these chances; and a point that was wrong once is not the end."""
    chances = {0: 0.1, 1: 0.9, 2: 0.5}

    class Chance(Predictor):
        num_classes, stochastic = 2, True

        def __call__(self, images, draw=0):
            uniform = 0.5 * (1 + tf.math.erf(noise(draw, [len(images), 1]) / 2**0.5))[:, 0]
            is_wrong = uniform < tf.gather(list(chances.values()), tf.cast(images[:, 0, 0, 0], tf.int32))
            return Outputs(None, tf.one_hot(tf.cast(is_wrong, tf.int32), 2))

    images, labels = tf.fill([40, 1, 1, 1], 0.0), tf.constant([0] * 32 + [-1] * 8)  # the last are copies
    found = first_error(
        *(Chance(), images, labels, Draws(tf.constant([1, 0], tf.int64)).of(40)),
        lambda number, rows, draws: tf.fill([len(rows), 1, 1, 1], tf.cast(number, tf.float32)),
        tf.constant(3),
    )
    np.testing.assert_array_equal(found[:, 0, 0, 0], [1] * 32 + [0] * 8)


def test_the_first_stage_of_autoattack_attacks_what_one_draw_got_wrong_too(split, monkeypatch):
    """And the second one what the first has left."""
    monkeypatch.setitem(attacks.apgd.apgd.__kwdefaults__, "steps", 2)
    evaluator, few, attacked = Evaluator(Noisy(), batch_size=40), split.take(slice(40)), []

    def measure(attack, part="", earlier=None):
        outcome = evaluator.run(attack, few, earlier=earlier)
        attacked.append((part, outcome.attacked, (outcome.predictions == few.labels).sum()))
        return outcome

    task = Task(against(attacks.attack("autoattack-rand", epsilon=4), evaluator.attacked))
    task.outcomes(measure)
    (_, _, right), (_, first, left), (_, second, _) = attacked
    assert (first, second) == (40, left)
    assert left < right < 40


@pytest.mark.parametrize("seed", [0, 1])
def test_which_images_are_skipped_is_of_the_same_draws(split, seed, tmp_path):
    """Those that the natural accuracy of the same seed counts as wrong."""
    evaluator, names = Evaluator(Noisy(), batch_size=200), ("natural", "apgd-ce")
    about = {
        "classifier_sha256": "0",
        "provenance": "",
        "split": "test",
        "images": 200,
        "seed": seed,
        "batch_size": 200,
    }
    about |= {"model": "noisy", "skip_misclassified": True}
    for order in (names, names[::-1]):
        tasks = [Task(attacks.attack(name, epsilon=2)) for name in order]
        measuring = Measuring(evaluator, split, tmp_path / order[0], seed, skip_misclassified=True)
        [content] = measuring(about, [({"epsilon": 2, "step_size": 1}, tasks)])
        with np.load(tmp_path / order[0] / content["predictions"]) as stored:
            kept = {name: stored[name] for name in ("labels", *names)}
        assert content["attacks"]["apgd-ce"]["protocol"]["errors_counted_over"] == 20
        wrong = kept["natural"] != kept["labels"]
        np.testing.assert_array_equal(kept["apgd-ce"][wrong], kept["natural"][wrong])


def test_other_seeds_draw_otherwise(split):
    predictor, few = Noisy(), split.take(slice(8))
    evaluator = Evaluator(predictor, batch_size=8)
    evaluator.admit(few)
    predictor.asked.clear()
    for seed in (1, 2):
        evaluator.run(attacks.attack("natural"), few, seed=seed)
    first, second = np.split(np.stack(predictor.asked), 2)
    assert not np.isin(first, second).any()


def test_the_diagnosis_calls_it_random_and_its_images_their_own(split):
    found = diagnose(Noisy(), split.take(slice(40)), checks=["randomness", "batch-dependence"]).checks
    assert [check.verdict for check in found] == ["suspect", "ok"]
    assert "use autoattack-rand" in found[0].evidence


@pytest.mark.parametrize("name", ["pgd-20", "apgd-ce", "fab-t", "multitargeted"])
def test_a_stand_in_gives_the_gradient_that_is_missing(split, name):
    labels = np.argmax(Quantised(False)(split.images).logits, axis=1).astype(np.int32)
    some = Split(split.images[:48], labels[:48])
    attack = attacks.attack(name, epsilon=4.5, step_size=0.9)
    without, with_stand_in = (Evaluator(Quantised(has), batch_size=48).run(attack, some) for has in (False, True))
    assert without.accuracy > 70  # random starts alone break few
    assert with_stand_in.accuracy < 50


def test_bpda_is_pgd_by_the_gradient_of_a_stand_in(split):
    """For one without random outputs the same as pgd-N; what has no stand-in is refused."""
    some, (bpda, pgd) = split.take(slice(48)), (attacks.attack(name, epsilon=4) for name in ("bpda-pgd-5", "pgd-5"))
    evaluator = Evaluator(Quantised(True), batch_size=48, keep_adversarial=True)
    np.testing.assert_array_equal(*(evaluator.run(attack, some, seed=1).adversarial for attack in (bpda, pgd)))
    assert (bpda.protocol["gradient"], bpda.protocol["eot_if_random"]) == ("of a stand-in (BPDA)", 10)
    for predictor in (Quantised(False), Noisy()):
        with pytest.raises(UsageError, match="--attacks=bpda-pgd-5: the model has a gradient of its own"):
            Evaluator(predictor, batch_size=48).run(bpda, some)


def test_bpda_asks_a_random_predictor_ten_times_a_step(split):
    predictor, few = Noisy(), split.take(slice(8))
    predictor.differentiable = lambda: counted
    counted = Noisy()
    evaluator = Evaluator(predictor, batch_size=8)
    evaluator.admit(few)
    counted.asked.clear()
    evaluator.run(attacks.attack("bpda-pgd-3", epsilon=4), few, seed=1)
    assert np.stack(counted.asked).shape == (30, 8)
    assert len(np.unique(counted.asked)) == 240


def test_where_there_is_no_gradient_the_start_is_all_there_is(split):
    predictor, images = Quantised(False), tf.constant(split.images[:4])
    for steps in (0, 5):
        adversarial = attacks.pgd(predictor, images, split.labels[:4], steps=steps, random_start=False)
        np.testing.assert_array_equal(adversarial, images)
    assert np.abs(attacks.pgd(Quantised(True), images, split.labels[:4], random_start=False) - images).max() == 8


def test_a_network_becomes_a_predictor_and_a_predictor_stays_one(trained, digits):
    images = digits.test.images[:4].astype(np.float32)
    predictor = as_predictor(trained)
    assert as_predictor(predictor) is predictor.differentiable() is predictor
    assert (predictor.num_classes, predictor.image_shape, predictor.stochastic) == (10, (32, 32, 3), False)
    outputs = predictor(images, draw=5)
    assert isinstance(outputs, Outputs)
    np.testing.assert_array_equal(outputs.logits, trained(images, batch_norm="eval").logits)
    np.testing.assert_array_equal(outputs.features, trained(images).features)


def test_the_docstrings_predictor():
    """A predictor of a few lines, robust accuracy of it under an attack that averages over its noise."""
    linear = Linear()
    images, labels = linear.images(32)
    attack = attacks.attack("autoattack-rand", epsilon=halfway(linear.distances(images, labels))).stages[0]
    outcome = Evaluator(Noisy(1.0), batch_size=32).run(attack, Split(images, labels))
    assert 20 < outcome.accuracy < 80
