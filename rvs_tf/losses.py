"""The classifier's cross-entropy in RvS: soft labels by label smoothing."""

import tensorflow as tf


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


def soft_cross_entropy(logits: tf.Tensor, soft_labels: tf.Tensor) -> tf.Tensor:
    """−Σ_k y_k log softmax(z)_k, averaged over the batch: L_CE of Eq. 9 with soft labels. A scalar."""
    return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(labels=soft_labels, logits=logits))
