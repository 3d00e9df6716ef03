"""Losses of logits: cross-entropy with soft labels, Kullback-Leibler divergence."""

import tensorflow as tf

from madry_cifar.attacks.losses import cross_entropy


def soft_cross_entropy(logits: tf.Tensor, soft_labels: tf.Tensor) -> tf.Tensor:
    """−Σ_k y_k log softmax(z)_k, averaged over the batch: L_CE of Eq. 9 with soft labels. A scalar."""
    return tf.reduce_mean(cross_entropy(logits, soft_labels))


def kl_divergence(logits: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """KL(p ‖ q) [B] of p = softmax(`logits`) and q = softmax(`other`), both [B, K]; 0 ≤ KL."""
    log_p, log_q = tf.nn.log_softmax(logits), tf.nn.log_softmax(other)
    return tf.reduce_sum(tf.exp(log_p) * (log_p - log_q), axis=1)
