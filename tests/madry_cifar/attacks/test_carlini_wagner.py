"""Carlini and Wagner's L2 attack on classifiers whose nearest errors are known, and beside Foolbox's."""

import functools
import inspect
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from linear import Linear, run_attack

from madry_cifar import attacks
from madry_cifar.attacks import carlini_wagner as module
from madry_cifar.attacks.carlini_wagner import carlini_wagner
from madry_cifar.cli.errors import UsageError
from madry_cifar.predictor import as_predictor
from madry_cifar.randomness import Draws


def attacked(model, images, labels, **settings):
    """Images and distances; the numbers are tensors, as an `Evaluator` has them."""
    run = tf.function(functools.partial(carlini_wagner, as_predictor(model)), autograph=False)
    numbers = {name: tf.constant(value) for name, value in settings.items()}
    draws = Draws(tf.constant([0, 0], tf.int64)).of(len(labels))
    return [values.numpy() for values in run(tf.constant(images), tf.constant(labels), draws, **numbers)]


def norms(values):
    return np.linalg.norm(values.reshape(len(values), -1), axis=1)


def is_wrong(model, images, labels):
    return np.argmax(model(tf.constant(images)).logits, axis=1) != labels


def two_classes(count, spread=40):
    """A linear classifier (of two classes: among more, the runner-up may not be the nearest), images, distances."""
    model = Linear(classes=2)
    images, labels = model.images(4 * count, spread=spread)
    exact = model.distances(images, labels, norm=2)
    chosen = np.flatnonzero(exact > 2)[:count]  # to the others, Adam's first step is too long
    return model, images[chosen], labels[chosen], exact[chosen]


def normal(model):
    return model.weights[:, 1] - model.weights[:, 0]


def test_the_nearest_error_of_a_linear_classifier():
    model, images, labels, exact = two_classes(16)
    found, distances = attacked(model, images, labels, steps=150)
    assert is_wrong(model, found, labels).all()
    np.testing.assert_allclose(norms(found - images), distances, rtol=1e-4)
    assert (distances > exact * (1 - 1e-4)).all()
    assert (distances < exact * 1.02).all()
    along = np.abs((found - images).reshape(16, -1) @ normal(model)) / np.linalg.norm(normal(model))
    assert (along > 0.98 * distances).all()


def farther(model, images, by):
    """The classifier with its boundary moved by a distance, away from the first class; the labels change."""
    model.bias = model.bias + np.float32([by * np.linalg.norm(normal(model)), 0])
    return np.argmax(model(tf.constant(images)).logits, axis=1).astype(np.int32)


@pytest.mark.parametrize("saturated", [False, True])
def test_the_nearest_error_within_the_range_of_pixels(saturated):
    """Where pixels reach an end, the nearest error is x + λn, clipped; or where they are at one from the start."""
    model, images, _, _ = two_classes(48, spread=110)
    if saturated:
        images = np.where(images < 127.5, np.float32(0), np.float32(255))
    chosen = np.flatnonzero(farther(model, images, 100.0 if saturated else 200.0) == 0)[:16]
    images, labels = images[chosen], np.zeros(16, np.int32)
    low, high = np.zeros(16), np.full(16, 1e3)
    for _ in range(50):
        middle = (low + high) / 2
        points = np.clip(images + middle[:, None, None, None] * normal(model).reshape(4, 4, 1), 0, 255)
        crossed = is_wrong(model, points.astype(np.float32), labels)
        low, high = np.where(crossed, low, middle), np.where(crossed, middle, high)
    exact = norms(points - images)
    assert (exact > 1.05 * model.distances(images, labels, norm=2)).sum() > 4
    found, distances = attacked(model, images, labels, steps=300)
    assert found.min() >= 0
    assert found.max() <= 255
    assert is_wrong(model, found, labels).all()
    assert (distances > exact * (1 - 1e-4)).all()
    assert (distances < exact * 1.03).all()


def test_confidence_is_the_lead_of_the_other_class():
    model, images, labels, exact = two_classes(8)
    found, distances = attacked(model, images, labels, steps=100, confidence=30.0)
    logits, rows = model(tf.constant(found)).logits.numpy(), np.arange(8)
    assert (logits[rows, 1 - labels] - logits[rows, labels] > 30 - 1e-2).all()
    np.testing.assert_allclose(distances, exact + 30 / np.linalg.norm(normal(model)), rtol=0.02)


@pytest.mark.parametrize(("searches", "constant"), [(1, 0.1), (2, 0.01), (3, 0.001)])
def test_the_constant_grows_tenfold(searches, constant):
    """For a linear gap of slope g, with the range of pixels as 1, the error at distance d is reached if c g > 2 d."""
    model, images, labels, exact = two_classes(24)
    slope = 255 * np.linalg.norm(normal(model))
    scale = np.median(2 * exact / 255 / slope) / 0.1  # so that half need more than 0.1
    model.weights, model.bias = model.weights * scale, model.bias * scale
    needed = 2 * exact / 255 / (slope * scale)
    _, distances = attacked(model, images, labels, steps=100, searches=searches, constant=constant)
    clear = np.abs(needed / 0.1 - 1) > 0.2
    np.testing.assert_array_equal(np.isfinite(distances)[clear], (needed < 0.1)[clear])
    assert 4 < np.isfinite(distances).sum() < 20


def test_images_that_are_wrong_or_near_enough_are_left_alone():
    model, images, labels, exact = two_classes(16)
    labels[:4] = 1 - labels[:4]
    radius = float(np.median(exact))
    found, distances = attacked(model, images, labels, steps=100)
    quick, quick_distances = attacked(model, images, labels, steps=100, radius=radius)
    for result, distance in ((found, distances), (quick, quick_distances)):
        np.testing.assert_array_equal(result[:4], images[:4])
        np.testing.assert_array_equal(distance[:4], 0)
    near = distances < radius
    assert 4 < near[4:].sum() < 12
    np.testing.assert_array_equal(quick_distances <= radius, near)
    assert (quick_distances[4:][near[4:]] > exact[4:][near[4:]] * 1.05).any()  # not the nearest: it stopped before
    np.testing.assert_array_equal(quick[~near], found[~near])


def test_the_attack_finds_errors_within_half_of_the_pixels_range():
    model, images, labels, exact = two_classes(40, spread=120)
    labels = farther(model, images, 100.0)
    labels[:4] = 1 - labels[:4]
    attack = attacks.attack("cw-l2-60")
    found = run_attack(attack, model, images, labels)
    broken, moved = is_wrong(model, found, labels), norms(found - images)
    np.testing.assert_array_equal(broken[4:], moved[4:] > 0)
    np.testing.assert_array_equal(moved[:4], 0)
    assert moved.max() <= 127.5 * (1 + 1e-6)
    exact = model.distances(images, labels, norm=2)[4:]  # or farther, where pixels reach an end
    assert not broken[4:][exact > 127.5].any()
    assert broken[4:][exact < 90].all()
    assert (exact > 127.5).sum() > 4


def test_an_image_does_not_depend_on_the_rest_of_its_batch():
    """But for rounding, which `tf.matmul` and `tf.atanh` do otherwise at the end of a batch, on some CPUs."""
    model = Linear(shape=(6, 6, 3), dtype=np.float64)
    images, labels = model.images(32, shape=(6, 6, 3))
    attack = attacks.attack("cw-l2-60")
    run = functools.partial(run_attack, attack._replace(settings={**attack.settings, "radius": 12.0}), model)
    same = functools.partial(np.testing.assert_allclose, rtol=1e-11, atol=0)
    whole, rows = run(images, labels), np.r_[8:24, 0:16]
    same(run(images[rows], labels[rows], rows), whole[rows])
    broken = np.flatnonzero(is_wrong(model, whole, labels))
    assert 4 < len(broken) < 28
    for row in broken[:4]:  # with none but itself: no other image keeps Adam going once this one is near enough
        same(run(images[[row] * 32], labels[[row] * 32]), whole[[row] * 32])


def test_the_network_is_in_the_graph_twice_and_left_where_the_loss_stays():
    """At the start, and in Adam's loop; with no gradient, each constant is given up after two tenths of the steps."""
    traced, passes = [], []

    def flat(images):
        traced.append(1)
        tf.py_function(lambda: passes.append(1), [], [])
        return SimpleNamespace(logits=tf.constant([[1.0, 0.0]]) + 0 * images[:, 0, 0])

    images, labels = np.full((8, 2, 2, 1), 100, np.float32), np.zeros(8, np.int32)
    found, distances = attacked(flat, images, labels, steps=50, searches=9)
    assert len(traced) == 2
    assert len(passes) == 1 + 9 * 2 * 5
    np.testing.assert_array_equal(found, images)
    assert np.isinf(distances).all()


class Hidden:
    """Ten classes from 24 hidden units with random weights."""

    def __init__(self):
        draws = np.random.default_rng(5)
        self.first, self.second = (draws.normal(size=shape).astype(np.float32) for shape in ((48, 24), (24, 10)))

    def __call__(self, images):
        hidden = tf.nn.relu(tf.matmul(tf.reshape(images, [-1, 48]) / 255 - 0.5, self.first))
        return SimpleNamespace(logits=tf.matmul(hidden, self.second))


def test_as_near_as_foolboxs():
    """With as many steps; Foolbox stops early only where the whole batch's loss falls no more."""
    foolbox = pytest.importorskip("foolbox")
    model = Hidden()
    images = tf.constant(np.random.default_rng(2).uniform(0, 255, size=(8, 4, 4, 3)), tf.float32)
    labels = tf.argmax(model(images).logits, axis=1).numpy()
    numbers = {"steps": 40, "confidence": 0.1}
    theirs = foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=4, initial_const=0.1, stepsize=0.01, **numbers)
    subject = foolbox.TensorFlowModel(lambda x: model(255 * x).logits, bounds=(0, 1), device="/CPU:0")
    expected = 255 * theirs.run(subject, images / 255, foolbox.criteria.Misclassification(tf.constant(labels))).numpy()
    assert is_wrong(model, expected, labels).all()
    _, distances = attacked(model, images, labels, searches=4, constant=0.1, **numbers)
    ratios = distances / norms(expected - images.numpy())
    assert np.median(ratios) < 1.001
    assert ratios.max() < 1.02


def test_as_near_as_foolboxs_on_white_images():
    """Foolbox's finds nothing in so few steps of 0.01, as tanh is flat there, and by longer ones nothing nearer."""
    foolbox = pytest.importorskip("foolbox")
    model = Hidden()
    images = tf.fill([1, 4, 4, 3], 255.0)
    labels = tf.argmax(model(images).logits, axis=1).numpy()
    subject = foolbox.TensorFlowModel(lambda x: model(255 * x).logits, bounds=(0, 1), device="/CPU:0")
    criterion = foolbox.criteria.Misclassification(tf.constant(labels))
    numbers = {"steps": 60, "confidence": 0.1}

    def theirs(stepsize):
        numbers_of_theirs = {"binary_search_steps": 3, "initial_const": 0.1, "stepsize": stepsize, **numbers}
        return 255 * foolbox.attacks.L2CarliniWagnerAttack(**numbers_of_theirs).run(subject, images / 255, criterion)

    assert not is_wrong(model, theirs(0.01), labels).any()
    expected = theirs(0.15).numpy()
    assert is_wrong(model, expected, labels).all()
    found, distances = attacked(model, images.numpy(), labels, searches=3, constant=0.1, **numbers)
    assert is_wrong(model, found, labels).all()
    assert (distances < norms(expected - images.numpy()) * 1.02).all()


@pytest.mark.parametrize(("name", "steps"), [("cw-l2", 1000), ("cw-l2-100", 100)])
def test_names(name, steps):
    attack = attacks.attack(name)
    told = attack.protocol
    assert (attack.name, told["steps"], told["norm"], told["radius"]) == (name, steps, "l2", 127.5)
    assert (told["searches"], told["restarts"], told["stops_at_error"]) == (9, 1, True)
    assert "epsilon" not in told
    defaults = {each.name: each.default for each in inspect.signature(carlini_wagner).parameters.values()}
    assert {number: defaults[number] for number in module.PUBLISHED} == module.PUBLISHED
    assert module.PUBLISHED.items() <= told.items()


@pytest.mark.parametrize("name", ["cw-l2-0", "cw-l2-", "cw-l2-10x2"])
def test_names_that_are_none(name):
    with pytest.raises(UsageError):
        attacks.attack(name)
