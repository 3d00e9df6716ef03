"""From the generator's output to adversarial images (Eq. 3 and 4 of the paper)."""

import tensorflow as tf

from madry_cifar.attacks.steps import PIXEL_RANGE, project


def perturb(images: tf.Tensor, perturbation: tf.Tensor, epsilon: float = 8.0, noise: tf.Tensor | None = None):
    """x_adv = Π_x(x + Π_S(G(z))).

    Args:
      images: x [B, 32, 32, 3], pixels in [0, 255].
      perturbation: G(z), of the same shape, unbounded.
      epsilon: radius of the ball S, in grey levels.
      noise: uniform in ±ε, of the same shape. The released code adds it to the image first, and projects the sum of
        image, noise and perturbation back to the ball; the paper's text knows no noise (None).

    Returns:
      Adversarial images, within ε of `images` and in [0, 255].
    """
    delta = tf.clip_by_value(perturbation, -epsilon, epsilon)
    if noise is None:
        return tf.clip_by_value(images + delta, *PIXEL_RANGE)
    return project(tf.clip_by_value(images + noise, *PIXEL_RANGE) + delta, images, epsilon)
