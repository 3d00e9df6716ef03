"""FAB against linear programming, and on a linear classifier, whose nearest errors are known."""

import functools

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st
from linear import Linear, halfway, run_attack
from scipy.optimize import linprog

from madry_cifar import attacks
from madry_cifar.attacks import fab
from madry_cifar.randomness import Draws


@hypothesis.given(st.integers(0, 2**32 - 1), st.sampled_from([0.3, 1.0, 3.0]))
@hypothesis.settings(max_examples=60)
def test_the_move_to_a_hyperplane_is_the_smallest(seed, scale):
    """min δ with w·d = −value, |d| ≤ δ and pixels in their range; where there is none, the move of most effect."""
    draws, size = np.random.default_rng(seed), 7
    point = np.clip(draws.uniform(-60, 315, size), 0, 255)  # some pixels at the ends of their range
    normal = draws.normal(size=size) * (draws.uniform(size=size) < 0.8)
    value = draws.normal() * 200 * scale
    move = fab.to_hyperplane(*(tf.constant([given], tf.float64) for given in (point, normal, value)))[0].numpy()
    bounds = [(-pixel, 255 - pixel) for pixel in point] + [(0, None)]
    within = np.block([[np.eye(size), -np.ones((size, 1))], [-np.eye(size), -np.ones((size, 1))]])
    found = linprog(
        [*[0] * size, 1], A_ub=within, b_ub=np.zeros(2 * size), A_eq=[[*normal, 0]], b_eq=[-value], bounds=bounds
    )
    assert (point + move >= -1e-9).all()
    assert (point + move <= 255 + 1e-9).all()
    if found.status == 0:
        np.testing.assert_allclose(normal @ move, -value, atol=1e-6)
        np.testing.assert_allclose(np.abs(move).max(), found.fun, atol=1e-6)
    else:
        room = np.where(-np.sign(value) * normal > 0, 255 - point, point)
        np.testing.assert_allclose(normal @ move, -np.sign(value) * np.sum(np.abs(normal) * room), atol=1e-6)


@pytest.fixture(scope="module")
def linear():
    return Linear()


def test_the_nearest_error_of_a_linear_classifier(linear):
    images, labels = linear.images(40)
    draws = Draws(tf.constant([0, 0], tf.int64)).of(40)
    ranks = np.argsort(-linear(images).logits.numpy(), axis=1)
    run = tf.function(
        lambda targets: fab.fab_toward(linear, tf.constant(images), tf.constant(labels), targets, draws),
        autograph=False,
    )
    found = [run(tf.constant(ranks[:, rank], tf.int32)) for rank in range(1, 5)]
    nearest = np.min([distances for _, distances in found], axis=0)
    exact = linear.distances(images, labels)
    assert (nearest >= exact * (1 - 1e-4)).all()
    # from x + δ, back to x + 0.9 δ, then α of the image's own projection: where the published constants settle
    assert np.median(nearest / exact) < 1.0055
    assert (nearest / exact).max() < 1.03
    for adversarial, distances in found:
        assert (np.argmax(linear(adversarial).logits, axis=1) != labels).all()
        np.testing.assert_allclose(np.abs(adversarial - images).max(axis=(1, 2, 3)), distances, rtol=1e-6)


def attacked(model, images, labels, epsilon):
    return run_attack(attacks.attack("fab-t", epsilon=epsilon), model, images, labels)


def test_what_is_within_epsilon_is_found(linear):
    images, labels = linear.images(100)
    exact = linear.distances(images, labels)
    labels[:5] = (labels[:5] + 1) % 5  # wrong as they are
    epsilon = halfway(exact)
    found = attacked(linear, images, labels, epsilon)
    is_wrong = np.argmax(linear(found).logits, axis=1) != labels
    np.testing.assert_array_equal(found[:5], images[:5])
    assert is_wrong[:5].all()
    assert is_wrong[5:][exact[5:] < epsilon / 1.03].all()
    assert not is_wrong[5:][exact[5:] > epsilon].any()
    np.testing.assert_array_equal(found[~is_wrong], images[~is_wrong])
    assert np.abs(found - images).max() <= epsilon


def test_on_a_trained_network_no_weaker_than_pgd(trained, digits, monkeypatch):
    monkeypatch.setattr(fab, "TARGETS", 2)
    monkeypatch.setattr(fab, "fab_toward", functools.partial(fab.fab_toward, steps=30))
    images, labels = digits.test.images[:16].astype(np.float32), digits.test.labels[:16]
    by_fab = np.argmax(trained(attacked(trained, images, labels, 4.0)).logits, axis=1) == labels
    adversarial = attacks.pgd(trained, images, labels, epsilon=4.0, step_size=1.0, steps=20)
    by_pgd = np.argmax(trained(adversarial).logits, axis=1) == labels
    assert 3 <= by_pgd.sum() <= 13
    assert by_fab.sum() <= by_pgd.sum() + 1


def test_no_gradient_no_move():
    flat = tf.constant([[1.0, 2.0, 3.0]])
    assert not fab.to_hyperplane(flat, tf.zeros_like(flat), tf.constant([5.0])).numpy().any()
    assert not fab.to_hyperplane(flat, tf.ones_like(flat), tf.constant([0.0])).numpy().any()
