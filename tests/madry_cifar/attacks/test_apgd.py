"""Auto-PGD against its algorithm written out for one image in NumPy, and its losses against their formulas."""

from types import SimpleNamespace

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st
from linear import compiled, run_attack
from tiers import mostly_slow

import rvs_tf
from madry_cifar import attacks
from madry_cifar.attacks import apgd, multitargeted
from madry_cifar.cli.errors import UsageError
from madry_cifar.predictor import Outputs, Predictor
from madry_cifar.randomness import Draws, noise

SHAPE = (3, 3, 1)


class Quadratic(Predictor):
    """A network of 4 classes on images [B, 3, 3, 1] whose logits are quadratic in the pixels: the loss oscillates."""

    def __init__(self, seed, scale=1.0):
        draws = np.random.default_rng(seed)
        self.linear, self.bias = draws.normal(size=(9, 4)) * scale, draws.normal(size=4) * scale
        self.square = draws.normal(size=(9, 9, 4)) * scale * 2

    def __call__(self, images, draw=0):
        x = tf.reshape(images, [-1, 9]) / 255.0
        squares = tf.einsum("bi,ijk,bj->bk", x, tf.constant(self.square, x.dtype), x)
        return Outputs(None, x @ tf.constant(self.linear, x.dtype) + squares + tf.constant(self.bias, x.dtype))

    def at(self, point, label, loss):
        """Loss and gradient at one point [9], and whether it is wrong, by formulas."""
        x = point / 255.0
        logits = x @ self.linear + np.einsum("i,ijk,j->k", x, self.square, x) + self.bias
        jacobian = (self.linear + np.einsum("ijk,j->ik", self.square, x) + np.einsum("jik,j->ik", self.square, x)) / 255
        value, by_logits = loss(logits, label)
        return value, jacobian @ by_logits, np.argmax(logits) != label


def cross_entropy(logits, label):
    shifted = np.exp(logits - logits.max())
    probabilities = shifted / shifted.sum()
    return -np.log(probabilities[label]), probabilities - np.eye(4)[label]


def dlr(logits, label):
    """−(z_y − max z_j) / (z_(1) − z_(3)) and its derivative by the quotient rule."""
    order = np.argsort(-logits)
    rival = order[1] if order[0] == label else order[0]
    top, bottom = logits[label] - logits[rival], logits[order[0]] - logits[order[2]]
    one = np.eye(4)
    return -top / bottom, -((one[label] - one[rival]) * bottom - top * (one[order[0]] - one[order[2]])) / bottom**2


def algorithm(model, image, label, start, loss, epsilon, steps):
    """Algorithm 1 of the paper for one image: the point and every one before it; stops at the first wrong one."""
    interval, checkpoints, end = int(0.22 * steps), [], int(0.22 * steps)
    while end <= steps:
        checkpoints.append(end)
        interval = max(interval - int(0.03 * steps), int(0.06 * steps))
        end += interval

    def project(point):
        return np.clip(np.clip(point, image - epsilon, image + epsilon), 0, 255)

    point = last = best = start
    values = [model.at(start, label, loss)]
    if values[0][2]:
        return start
    value, best_value, gradient, best_gradient = values[0][0], values[0][0], values[0][1], values[0][1]
    size, rises, since, was_best, was_halved = 2 * epsilon, 0, 0, values[0][0], True
    for step in range(1, steps + 1):
        share = 1.0 if step == 1 else 0.75
        ahead = project(point + size * np.sign(gradient))
        new = project(point + share * (ahead - point) + (1 - share) * (point - last))
        point, last = new, point
        new_value, gradient, is_wrong = model.at(point, label, loss)
        if is_wrong:
            return point
        rises, since, value = rises + (new_value > value), since + 1, new_value
        if value > best_value:
            best, best_value, best_gradient = point, value, gradient
        if step in checkpoints:
            halve = rises <= 0.75 * since or (not was_halved and best_value == was_best)
            if halve:
                size, point, gradient = size / 2, best, best_gradient
            rises, since, was_best, was_halved = 0, 0, best_value, halve
    return best


@pytest.mark.parametrize(("name", "loss"), [("ce", cross_entropy), ("dlr", dlr)])
@pytest.mark.parametrize("steps", [100, 35])
def test_against_the_algorithm_written_out(name, loss, steps):
    model, draws = Quadratic(3), np.random.default_rng(1)
    images = draws.uniform(0, 255, size=(60, *SHAPE))
    labels = np.argmax(model(tf.constant(images)).logits, axis=1).astype(np.int32)
    start = np.clip(images + draws.uniform(-30, 30, images.shape), 0, 255)
    attack = tf.function(
        lambda: apgd.apgd(
            model,
            tf.constant(images),
            tf.constant(labels),
            tf.constant(start),
            apgd.LOSSES[name],
            Draws(tf.constant([0, 0], tf.int64)).of(60),
            epsilon=30.0,
            steps=steps,
        ),
        autograph=False,
    )
    found = attack().numpy().reshape(60, 9)
    expected = np.stack(
        [
            algorithm(model, image, label, begin, loss, 30.0, steps)
            for image, label, begin in zip(images.reshape(60, 9), labels, start.reshape(60, 9), strict=True)
        ]
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)
    wrong = np.argmax(model(tf.constant(found.reshape(images.shape))).logits, axis=1) != labels
    assert 5 < wrong.sum() < 55


def test_checkpoints_of_the_paper():
    assert apgd.checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    last, before, expected = 0.22, 0.0, [0.22]
    while (following := last + max(last - before - 0.03, 0.06)) <= 1:
        last, before = following, last
        expected.append(last)
    assert apgd.checkpoints(1000) == [pytest.approx(1000 * share) for share in expected]
    assert apgd.checkpoints(1) == [1]


LOGITS = st.lists(st.integers(-500, 500), min_size=4, max_size=7, unique=True)


@hypothesis.given(LOGITS, st.data(), st.floats(0.01, 100), st.floats(-50, 50))
def test_the_ratio_knows_no_scale(logits, data, scale, shift):
    label = data.draw(st.integers(0, len(logits) - 1))
    target = data.draw(st.integers(0, len(logits) - 1).filter(lambda number: number != label))
    ordered = sorted(logits, reverse=True)
    rival = max(value for place, value in enumerate(logits) if place != label)
    expected = -(logits[label] - rival) / (ordered[0] - ordered[2])
    toward = -(logits[label] - logits[target]) / (ordered[0] - (ordered[2] + ordered[3]) / 2)
    given = tf.constant([[scale * value + shift for value in logits]], tf.float64)
    true = tf.constant([label])
    np.testing.assert_allclose(apgd.difference_of_logits_ratio(given, true), [expected], rtol=1e-6)
    found = apgd.targeted_difference_of_logits_ratio(given, true, tf.constant([target]))
    np.testing.assert_allclose(found, [toward], rtol=1e-6)


@pytest.mark.parametrize(("name", "classes", "least"), [("apgd-dlr", 2, 3), ("apgd-t", 3, 4)])
def test_too_few_classes(name, classes, least):
    model = lambda images: images[:, 0, :classes, 0] / 8  # noqa: E731
    images = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 1))
    with pytest.raises(
        UsageError, match=f"compares the logits of {least} classes, and there are {classes}; use apgd-ce"
    ):
        rvs_tf.attacks.run(name, model, images, np.zeros(8, np.int32))


def saturated(network, scale):
    """The network with logits so large that the softmax, in float32, is one or zero: cross-entropy has no gradient."""
    return lambda images: SimpleNamespace(logits=scale * network(images).logits)


def robust(model, name, images, labels, epsilon):
    attack = attacks.attack(name, epsilon=epsilon)
    adversarial = run_attack(attack, model, images, labels)
    assert np.abs(adversarial - images).max() <= epsilon
    return np.mean(np.argmax(model(adversarial).logits, axis=1) == labels)


def test_saturated_gradients_fool_cross_entropy_and_not_the_ratio(trained, digits):
    images, labels = digits.test.images[:32].astype(np.float32), digits.test.labels[:32]
    masked = saturated(trained, 1e4)
    assert robust(trained, "pgd-20", images, labels, 12.0) < 0.3
    assert robust(masked, "pgd-20", images, labels, 12.0) > 0.7
    assert (
        robust(masked, "apgd-dlr", images, labels, 12.0) <= robust(trained, "apgd-dlr", images, labels, 12.0) + 1 / 32
    )


@pytest.mark.parametrize("name", mostly_slow(["apgd-ce", "apgd-dlrx2", "apgd-t", "multitargeted"], "apgd-t"))
def test_an_image_does_not_depend_on_the_rest_of_its_batch(trained, digits, monkeypatch, name):
    """Bit for bit: in a batch of 32, and among others in batches of 16 and 32. Of few steps and targets."""
    for module in (apgd, multitargeted):
        monkeypatch.setattr(module, "TARGETS", 2)
    monkeypatch.setattr(multitargeted, "STEPS", 10)
    monkeypatch.setitem(apgd.apgd.__kwdefaults__, "steps", 10)
    images, labels = digits.test.images[:32].astype(np.float32), digits.test.labels[:32]
    attack = compiled(attacks.attack(name, epsilon=2.0), trained)
    whole = attack(images, labels, seed=3)
    for rows in (np.r_[8:24], np.r_[8:24, 0:16]):
        part = attack(images[rows], labels[rows], place=rows, seed=3)
        np.testing.assert_array_equal(part, whole[rows])
    assert not np.array_equal(attack(images, labels, seed=4), whole)


class NoisyGradient(Predictor):
    """A linear classifier plus noise in its gradient twice as large, another one for each draw; notes the draws."""

    stochastic = True

    def __init__(self):
        self.draws = []

    def __call__(self, images, draw=0):
        tf.py_function(lambda draw: self.draws.append(draw.numpy()), [draw], [])
        x, weights = tf.reshape(images, [-1, 9]), np.float32([[0.001, -0.001, 0, 0]] * 9)
        noisy = x + 2 * noise(draw, tf.shape(x)) * (x - tf.stop_gradient(x))
        return Outputs(None, noisy @ weights + [2.0, 0.0, -9.0, -9.0])


@pytest.mark.parametrize("randomized", [True, False])
def test_gradients_of_a_stochastic_predictor_are_averaged_over_different_draws(randomized):
    """Averaged over 20 passes, all steps go right; of single ones some do not."""
    predictor, images = NoisyGradient(), np.full((16, *SHAPE), 128, np.float32)
    attack = apgd.untargeted("ce", attacks.Sizes(), randomized=randomized)
    adversarial = run_attack(attack, predictor, images, np.zeros(16, np.int32))
    progress, eot = -np.mean(adversarial - images) / 8, 20 if randomized else 1
    assert progress == 1 if randomized else progress < 0.98
    assert attack.protocol.get("eot", 1) == eot
    of_one_image = [int(draws[3]) for draws in predictor.draws]
    assert len(of_one_image) == 101 * eot + 20  # the start, 100 steps; how often the last point is wrong
    assert len(set(of_one_image)) == len(of_one_image)
