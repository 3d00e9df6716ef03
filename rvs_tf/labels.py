"""Soft labels [B, K] of the methods of Table II; all sum to 1."""

import tensorflow as tf

from madry_cifar.attacks.losses import is_true


def smooth_labels(labels: tf.Tensor, num_classes: int, smoothing: float = 0.5, dtype=tf.float32) -> tf.Tensor:
    """(1 − s − s/(K−1))·onehot + s/(K−1), as in the released code: 1 − s for the true class, s/(K−1) for the others.

    Args:
      labels: [B] integer classes.
      num_classes: K, at least 2.
      smoothing: s, in [0, 1).

    Returns:
      [B, K] labels that sum to 1.
    """
    other = smoothing / (num_classes - 1)
    return tf.one_hot(labels, num_classes, on_value=1 - smoothing, off_value=other, dtype=dtype)


def bilateral_labels(
    probabilities: tf.Tensor, labels: tf.Tensor, *, ratio: float = 9.0, gamma: float = 0.01
) -> tf.Tensor:
    """The label adversary of Bilateral adversarial training: the wrong classes get the more, the less likely they are.

    With v = −log p, m and M its smallest and largest value of a wrong class, a wrong class gets δ(v_k − m + γ)/Σ, Σ
    being the sum of v_j − m + γ over the wrong classes, and the true class 1 − δ, with 1/δ = 1 + β(M − m + γ)/Σ.

    Args:
      probabilities: p [B, K], of the natural images.
      labels: [B] integer classes.
      ratio: β: the true class gets β times what the largest wrong one gets.
      gamma: γ > 0, the share of the most likely wrong class.

    Returns:
      [B, K] labels, of the probabilities' type.
    """
    surprise = -tf.math.log(probabilities + 1e-8)
    true = is_true(labels, probabilities)
    least = tf.reduce_min(tf.where(true, surprise.dtype.max, surprise), axis=1, keepdims=True)
    gains = tf.where(true, tf.zeros_like(surprise), surprise - least + gamma)
    whole = tf.reduce_sum(gains, axis=1, keepdims=True)
    delta = 1 / (1 + ratio * tf.reduce_max(gains, axis=1, keepdims=True) / whole)
    return tf.where(true, 1 - delta, delta * gains / whole)


def interpolation_labels(
    labels: tf.Tensor, partners: tf.Tensor, num_classes: int, share: float = 0.5, dtype=tf.float32
) -> tf.Tensor:
    """(1 − ε_y)·onehot + ε_y(1 − onehot')/(K−1): what is taken from the class goes to all but the partner's.

    Args:
      labels: [B] integer classes.
      partners: [B] those of the images that are moved towards.
      num_classes: K, at least 2.
      share: ε_y, in [0, 1].

    Returns:
      [B, K] labels.
    """
    others = tf.one_hot(partners, num_classes, on_value=0.0, off_value=share / (num_classes - 1), dtype=dtype)
    return tf.one_hot(labels, num_classes, on_value=1 - share, off_value=0.0, dtype=dtype) + others


def vertex_labels(
    labels: tf.Tensor, natural_share: tf.Tensor, num_classes: int, lambda1: float = 1.0, lambda2: float = 0.1
) -> tf.Tensor:
    """α·φ(λ₁) + (1 − α)·φ(λ₂), where φ(λ) gives λ to the true class and (1 − λ)/(K−1) to each other one.

    Args:
      labels: [B] integer classes.
      natural_share: α [B], how much of the natural image is in the interpolated one.
      num_classes: K, at least 2.
      lambda1, lambda2: λ of the natural image and of the vertex, in [0, 1].

    Returns:
      [B, K] labels, of the shares' type.
    """
    natural_share = natural_share[:, tf.newaxis]
    natural, vertex = (smooth_labels(labels, num_classes, 1 - kept, natural_share.dtype) for kept in (lambda1, lambda2))
    return natural_share * natural + (1 - natural_share) * vertex
