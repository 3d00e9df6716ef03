"""Square on classifiers whose nearest errors are known, with and without gradients, and its schedule."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from linear import Linear, halfway, run_attack

from madry_cifar import attacks
from madry_cifar.attacks import square


def published_share(query, queries=5000):
    """As the paper has it for 10,000 queries, rescaled: the first line that holds."""
    progress = int(query / queries * 10_000)
    bounds = [(8000, 512), (6000, 256), (4000, 128), (2000, 64), (1000, 32), (500, 16), (200, 8), (50, 4), (10, 2)]
    return 0.8 / next((divisor for bound, divisor in bounds if progress > bound), 1)


@pytest.mark.parametrize("queries", [5000, 10_000, 300])
def test_the_published_schedule(queries):
    found = square.sides(32, 32, queries)
    expected = [max(round((published_share(query, queries) * 32 * 32) ** 0.5), 1) for query in range(queries)]
    assert found.tolist() == expected
    assert (found[0], found[-1]) == (29, 1)


def attacked(model, images, labels, epsilon, queries=1500, **where):
    attack = attacks.attack("square")._replace(settings={"epsilon": epsilon, "queries": queries})
    return run_attack(attack, model, images, labels, **where)


@pytest.mark.parametrize("has_gradient", [True, False])
def test_a_linear_classifier(has_gradient):
    """Nothing beyond its nearest error is broken, and nearly all that is within; gradients do not matter."""
    linear = Linear(classes=2)  # so that no change of one pixel leads away from the nearest error
    model = linear if has_gradient else lambda x: linear(tf.stop_gradient(x))
    images, labels = linear.images(48)
    exact = linear.distances(images, labels)
    labels[:4] = 1 - labels[:4]  # wrong as they are
    epsilon = halfway(exact)
    found = attacked(model, images, labels, epsilon)
    is_wrong = np.argmax(linear(found).logits, axis=1) != labels
    np.testing.assert_array_equal(found[:4], images[:4])
    assert not is_wrong[4:][exact[4:] > epsilon].any()
    assert is_wrong[4:][exact[4:] < epsilon].all()
    assert np.abs(found - images).max() <= epsilon
    changes = np.abs(found[4:] - images[4:])
    np.testing.assert_allclose(changes, epsilon, rtol=1e-5)  # every pixel is at an end of the ball


def test_at_the_ends_of_the_pixels_range():
    linear = Linear()
    images, labels = linear.images(16, spread=128)
    found = attacked(linear, images, labels, 60.0, queries=50)
    assert found.min() >= 0
    assert found.max() <= 255
    assert np.abs(found - images).max() <= 60


def test_the_windows_are_everywhere():
    windows = [
        square._window(tf.constant([[low, high]]), 3, 5, 4)[0, :, :, 0].numpy()
        for low in np.linspace(0, 0.999, 7)
        for high in np.linspace(0, 0.999, 5)
    ]
    assert {window.sum() for window in windows} == {9}
    assert {tuple(np.argwhere(window)[0]) for window in windows} == {
        (row, column) for row in range(3) for column in range(2)
    }


def test_an_image_does_not_depend_on_the_rest_of_its_batch():
    linear = Linear(shape=(6, 6, 3))
    images, labels = linear.images(32, shape=(6, 6, 3))
    epsilon = halfway(linear.distances(images, labels))
    whole = attacked(linear, images, labels, epsilon, 200, seed=3)
    for rows in (np.r_[8:24], np.r_[8:24, 0:16]):
        part = attacked(linear, images[rows], labels[rows], epsilon, 200, place=rows, seed=3)
        np.testing.assert_array_equal(part, whole[rows])
    assert not np.array_equal(attacked(linear, images, labels, epsilon, 200, seed=4), whole)


def test_queries_are_what_the_protocol_says():
    """An image that cannot be broken costs the protocol's queries, and two passes at the start."""
    passes = []

    def unbreakable(images):
        tf.py_function(lambda: passes.append(1), [], [])
        first = tf.ones_like(images[:, 0, 0, :1])
        return SimpleNamespace(logits=tf.concat([first, 0 * first, 0 * first, 0 * first], axis=1))

    attack = attacks.attack("square")
    run_attack(attack, unbreakable, tf.fill([8, 2, 2, 1], 100.0), np.zeros(8, np.int32))
    assert len(passes) == attack.protocol["queries"] + 2 == 5002
