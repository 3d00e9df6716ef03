"""From the generator's output to adversarial images: Eq. 3 and 4, and the released code's noise."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rvs_tf.perturbation import perturb

SHAPE = (2, 3, 3, 3)
images = hnp.arrays(np.float64, SHAPE, elements=st.integers(0, 255))
perturbations = hnp.arrays(np.float64, SHAPE, elements=st.integers(-4000, 4000).map(lambda k: k / 8))
shares = hnp.arrays(
    np.float64, SHAPE, elements=st.integers(-64, 64).map(lambda k: k / 64)
)  # of the noise, in units of ε
radii = st.sampled_from([0.0, 0.5, 8.0, 16.0])


@given(images, perturbations, radii)
def test_without_noise_it_is_equations_3_and_4(images, perturbation, epsilon):
    delta = np.minimum(np.maximum(perturbation, -epsilon), epsilon)  # Π_S
    expected = np.minimum(np.maximum(images + delta, 0), 255)
    np.testing.assert_array_equal(perturb(images, perturbation, epsilon), expected)


@given(images, perturbations, shares, radii)
def test_with_noise_it_is_the_released_formula(images, perturbation, share, epsilon):
    noise = epsilon * share
    start = np.clip(images + noise, 0, 255)
    moved = start + np.clip(perturbation, -epsilon, epsilon)
    expected = np.clip(np.clip(moved, images - epsilon, images + epsilon), 0, 255)
    np.testing.assert_array_equal(perturb(images, perturbation, epsilon, noise), expected)


@given(images, perturbations, st.none() | shares, radii)
def test_result_is_an_image_within_the_ball(images, perturbation, share, epsilon):
    result = perturb(images, perturbation, epsilon, None if share is None else epsilon * share).numpy()
    assert np.abs(result - images).max() <= epsilon
    assert result.min() >= 0
    assert result.max() <= 255


@pytest.mark.parametrize("noise", [None, -3.0])
def test_gradient_stops_at_the_bounds(noise):
    """For the pixels 100, 100, 100 and 254, perturbed by 2, 20 (beyond ε), −7 and 6 (beyond white)."""
    image = tf.constant([100.0, 100.0, 100.0, 254.0])
    perturbation = tf.constant([2.0, 20.0, -7.0, 6.0])
    with tf.GradientTape() as tape:
        tape.watch(perturbation)
        result = perturb(image, perturbation, 8.0, noise)
    reaches = [1, 0, 1, 0] if noise is None else [1, 0, 0, 0]  # with the noise the third leaves the ball
    np.testing.assert_array_equal(tape.gradient(result, perturbation), reaches)


def test_default_radius_is_that_of_the_paper():
    assert perturb(tf.constant([100.0]), tf.constant([50.0])).numpy() == [108.0]
